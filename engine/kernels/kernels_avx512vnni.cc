#ifdef PERDURE_X86_KERNELS
#include "engine/kernels/simd_avx512.h"
// After the lanes it is written over.
#include "engine/kernels/kernels_impl.h"

namespace perdure::engine {

const Kernels kKernelsAvx512Vnni = MakeKernels(Isa::kAvx512Vnni);

}  // namespace perdure::engine
#endif  // PERDURE_X86_KERNELS
