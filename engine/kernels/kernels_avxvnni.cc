#ifdef PERDURE_X86_KERNELS
#include "engine/kernels/simd_avx2.h"
// After the lanes it is written over.
#include "engine/kernels/kernels_impl.h"

namespace perdure::engine {

const Kernels kKernelsAvxVnni = MakeKernels(Isa::kAvxVnni);

}  // namespace perdure::engine
#endif  // PERDURE_X86_KERNELS
