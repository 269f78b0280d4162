#include "engine/kernels/kernels.h"

#include "base/check.h"

namespace perdure::engine {

PanelLayout MakePanelLayout(PanelFormat format, int k, int group, ScaleType scale_type) {
  PanelLayout layout{.format = format, .scale_type = scale_type, .group = 0, .k = k};
  const size_t elements = size_t(k) * kPanelWidth;
  switch (format) {
    case PanelFormat::kF32:
      layout.panel_bytes = elements * 4;
      return layout;
    case PanelFormat::kF16:
    case PanelFormat::kBf16:
      layout.panel_bytes = elements * 2;
      return layout;
    case PanelFormat::kQ8:
    case PanelFormat::kQ4:
      layout.group_header_bytes = 2 * kPanelWidth * (scale_type == ScaleType::kF32 ? 4 : 2);
      break;
    case PanelFormat::kMxfp4:
      CHECK(group == kMxfp4Group);
      layout.group_header_bytes = kPanelWidth;
      break;
  }
  CHECK(group > 0 && k % group == 0 && kChunkRows % group == 0);
  layout.group = group;
  const size_t group_elements = size_t(group) * kPanelWidth;
  layout.group_bytes = layout.group_header_bytes +
                       (format == PanelFormat::kQ8 ? group_elements : group_elements / 2);
  layout.panel_bytes = size_t(k / group) * layout.group_bytes;
  return layout;
}

size_t AttentionScratchFloats(int head_dim) {
  const size_t padded = (size_t(head_dim) + 31) / 32 * 32;
  const size_t queries = kAttentionQueries + kTileRows;
  return 2 * padded * kPanelWidth  // K and V of a page
         + 2 * queries * padded    // queries, outputs
         + queries * kPanelWidth   // scores
         + 2 * queries;            // running maximum and sum
}

bool CpuHas(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
#ifdef PERDURE_X86_KERNELS
    // __builtin_cpu_supports looks at the operating system's part (xgetbv), too.
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return CpuHas(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
      return false;
#endif
  }
  return false;
}

Isa BestIsa() {
  if (CpuHas(Isa::kAvx512)) return Isa::kAvx512;
  if (CpuHas(Isa::kAvx2)) return Isa::kAvx2;
  return Isa::kScalar;
}

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::optional<Isa> ParseIsa(std::string_view name) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512})
    if (name == IsaName(isa)) return isa;
  return std::nullopt;
}

const Kernels& KernelsFor(Isa isa) {
  CHECK_MSG(CpuHas(isa), "this CPU lacks the instruction set asked for");
#ifdef PERDURE_X86_KERNELS
  if (isa == Isa::kAvx512) return kKernelsAvx512;
  if (isa == Isa::kAvx2) return kKernelsAvx2;
#endif
  return kKernelsScalar;
}

}  // namespace perdure::engine
