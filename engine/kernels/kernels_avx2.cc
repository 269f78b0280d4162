#ifdef PERDURE_X86_KERNELS
#include "engine/kernels/simd_avx2.h"
// After the lanes it is written over.
#include "engine/kernels/kernels_impl.h"

namespace perdure::engine {

const Kernels kKernelsAvx2 = MakeKernels(Isa::kAvx2);

}  // namespace perdure::engine
#endif  // PERDURE_X86_KERNELS
