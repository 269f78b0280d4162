#include "engine/kernels/kernels.h"

#include "base/check.h"
#include "engine/kernels/attention_scratch.h"

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

size_t AttentionScratchFloats(int head_dim) { return LayOutAttention(head_dim).floats; }

size_t Int8TileFloats(int rows, int k) {
  const size_t groups = (size_t(k) + kInt8Group - 1) / kInt8Group;
  return size_t(rows) * (size_t(k) / 4 + 2 * groups + size_t(k) / 32);
}

Int8Tile Int8TileAt(float* memory, int rows, int k) {
  const ptrdiff_t groups = (ptrdiff_t(k) + kInt8Group - 1) / kInt8Group;
  Int8Tile tile{.rows = rows};
  tile.words = reinterpret_cast<uint32_t*>(memory);
  tile.scales = memory + ptrdiff_t(rows) * (k / 4);
  tile.sums64 = tile.scales + rows * groups;
  tile.sums32 = tile.sums64 + rows * groups;
  return tile;
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
    case Isa::kAvxVnni:
      return CpuHas(Isa::kAvx2) && __builtin_cpu_supports("avxvnni");
    case Isa::kAvx512:
      return CpuHas(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    case Isa::kAvx512Vnni:
      return CpuHas(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
#else
    default:
      return false;
#endif
  }
  return false;
}

Isa BestIsa() {
  Isa best = Isa::kScalar;
  for (Isa isa : kIsas)
    if (CpuHas(isa)) best = isa;
  return best;
}

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
  }
  return "unknown";
}

std::optional<Isa> ParseIsa(std::string_view name) {
  for (Isa isa : kIsas)
    if (name == IsaName(isa)) return isa;
  return std::nullopt;
}

const Kernels& KernelsFor(Isa isa) {
  CHECK_MSG(CpuHas(isa), "this CPU lacks the instruction set asked for");
  switch (isa) {
#ifdef PERDURE_X86_KERNELS
    case Isa::kAvx2:
      return kKernelsAvx2;
    case Isa::kAvxVnni:
      return kKernelsAvxVnni;
    case Isa::kAvx512:
      return kKernelsAvx512;
    case Isa::kAvx512Vnni:
      return kKernelsAvx512Vnni;
#endif
    default:
      return kKernelsScalar;
  }
}

}  // namespace perdure::engine
