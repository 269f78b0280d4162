#include "engine/kv_write.h"

#include <cstdint>

#include "base/limits.h"

namespace perdure::engine {
namespace {

void WriteHalves(const Kernels& kernels, std::byte* head, int slot, const KvRows& in) {
  const auto dim = static_cast<size_t>(in.head_dim);
  const KvHeadLayout layout = KvHeadLayout::Of(KvPrecision::kF16, in.head_dim);
  auto* values = reinterpret_cast<uint16_t*>(head + layout.values) + ptrdiff_t{slot} * in.head_dim;
  for (int r = 0; r < in.rows; ++r)
    kernels.to_f16(in.values + r * in.stride, values + ptrdiff_t{r} * in.head_dim, dim);

  uint16_t* keys = reinterpret_cast<uint16_t*>(head) + slot;
  int r = 0;
  if (in.head_dim % 16 == 0)
    for (; r + kKeysAtOnce <= in.rows; r += kKeysAtOnce)
      kernels.keys_to_f16(in.keys + r * in.stride, in.stride, in.head_dim, keys + r);
  for (; r < in.rows; ++r) {
    uint16_t rounded[limits::kHeadDimMax];
    kernels.to_f16(in.keys + r * in.stride, rounded, dim);
    for (ptrdiff_t d = 0; d < in.head_dim; ++d) keys[d * kPageTokens + r] = rounded[d];
  }
}

void WriteCodes(const Kernels& kernels, KvPrecision precision, std::byte* head, int slot,
                const KvRows& in) {
  const int bits = precision == KvPrecision::kQ8 ? 8 : 4;
  const KvHeadLayout layout = KvHeadLayout::Of(precision, in.head_dim);
  const auto params = [&](size_t offset, int position) {
    return reinterpret_cast<uint16_t*>(head + offset) + position;
  };
  const ptrdiff_t padded = (ptrdiff_t{in.head_dim} + 31) / 32 * 32;
  for (int r = 0; r < in.rows; ++r) {
    const int position = slot + r;
    uint8_t codes[limits::kHeadDimMax + 32] = {};
    kernels.quantize_kv(in.keys + r * in.stride, in.head_dim, bits, codes,
                        params(layout.key_params, position));
    auto* key = reinterpret_cast<uint8_t*>(head) + position;
    if (bits == 8)
      for (ptrdiff_t d = 0; d < in.head_dim; ++d) key[d * kPageTokens] = codes[d];
    else
      for (ptrdiff_t d = 0; d < in.head_dim; d += 2)
        key[d / 2 * kPageTokens] = static_cast<uint8_t>(codes[d] | codes[d + 1] << 4);

    kernels.quantize_kv(in.values + r * in.stride, in.head_dim, bits, codes,
                        params(layout.value_params, position));
    auto* value = reinterpret_cast<uint8_t*>(head + layout.values) + position * padded * bits / 8;
    if (bits == 8)
      for (ptrdiff_t d = 0; d < padded; ++d) value[d] = codes[d];
    else
      for (ptrdiff_t d = 0; d < padded / 2; ++d) {
        const ptrdiff_t low = d / 16 * 32 + d % 16;
        value[d] = static_cast<uint8_t>(codes[low] | codes[low + 16] << 4);
      }
  }
}

}  // namespace

void WriteKv(const Kernels& kernels, KvPrecision precision, std::byte* head, int slot,
             const KvRows& in) {
  if (precision == KvPrecision::kF16)
    WriteHalves(kernels, head, slot, in);
  else
    WriteCodes(kernels, precision, head, slot, in);
}

}  // namespace perdure::engine
