#include "engine/kv_page.h"

#include <cstdint>
#include <cstring>

#include "base/check.h"

namespace perdure::engine {
namespace {

constexpr size_t kTokens = kPageTokens;

// Rows of kPageTokens elements of so many bytes: the last ones of each.
void ClearColumns(std::span<std::byte> rows, size_t element_bytes, size_t count) {
  const size_t row_bytes = kTokens * element_bytes, begin = count * element_bytes;
  for (size_t at = 0; at < rows.size(); at += row_bytes)
    std::memset(rows.data() + at + begin, 0, row_bytes - begin);
}

// A row for each position: the last rows.
void ClearRows(std::span<std::byte> rows, size_t count) {
  const auto rest = rows.subspan(rows.size() / kTokens * count);
  std::memset(rest.data(), 0, rest.size());
}

bool AreFiniteHalves(std::span<const std::byte> bytes) {
  constexpr uint16_t kExponent = 0x7c00;
  bool are_finite = true;
  for (size_t i = 0; i + sizeof(uint16_t) <= bytes.size(); i += sizeof(uint16_t)) {
    uint16_t half;
    std::memcpy(&half, bytes.data() + i, sizeof half);
    are_finite &= (half & kExponent) != kExponent;
  }
  return are_finite;
}

}  // namespace

void ClearBehind(const KvShape& kv, KvPrecision precision, int count, std::span<std::byte> page) {
  CHECK(page.size() == kv.PageBytes(precision));
  const auto computed = static_cast<size_t>(count);
  if (computed >= kTokens) return;
  const KvHeadLayout layout = KvHeadLayout::Of(precision, kv.head_dim);
  for (size_t at = 0; at < page.size(); at += layout.bytes) {
    const auto head = page.subspan(at, layout.bytes);
    const bool is_f16 = precision == KvPrecision::kF16;
    ClearColumns(head.first(layout.values), is_f16 ? sizeof(uint16_t) : 1, computed);
    const size_t values_end = is_f16 ? layout.bytes : layout.key_params;
    ClearRows(head.subspan(layout.values, values_end - layout.values), computed);
    ClearColumns(head.subspan(values_end), sizeof(uint16_t), computed);
  }
}

bool AreFinite(const KvShape& kv, KvPrecision precision, std::span<const std::byte> page) {
  if (precision == KvPrecision::kF16) return AreFiniteHalves(page);
  const KvHeadLayout layout = KvHeadLayout::Of(precision, kv.head_dim);
  for (size_t at = 0; at + layout.bytes <= page.size(); at += layout.bytes)
    if (!AreFiniteHalves(page.subspan(at + layout.key_params, layout.bytes - layout.key_params)))
      return false;
  return true;
}

}  // namespace perdure::engine
