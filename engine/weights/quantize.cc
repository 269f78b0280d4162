#include "engine/weights/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "engine/read_numbers.h"

namespace perdure::engine {
namespace {

void ReadFloats(ScaleType type, const std::byte* from, size_t first, size_t count, float* to) {
  for (size_t i = 0; i < count; ++i) to[i] = ReadFloatAt(type, from, first + i);
}

size_t BytesOf(ScaleType type) { return type == ScaleType::kF32 ? 4 : 2; }

void WriteFloat(ScaleType type, float value, std::byte* to, size_t index) {
  if (type == ScaleType::kF32) {
    std::memcpy(to + index * sizeof(float), &value, sizeof value);
  } else {
    const uint16_t half = type == ScaleType::kF16 ? F32ToF16(value) : F32ToBf16(value);
    std::memcpy(to + index * sizeof half, &half, sizeof half);
  }
}

// To nearest, ties to even, where |value| < 2^22: what std::rint gives, but vectorized.
float RoundSmall(float value) {
  constexpr float kShift = 0x1.8p23f;
  return (value + kShift) - kShift;
}

}  // namespace

GroupScale QuantizeGroup(std::span<const float> values, int bits, uint8_t* q) {
  constexpr float kStepMin = 1e-7f;
  const auto top = static_cast<float>((1 << bits) - 1);
  float min = values[0], max = values[0];
  for (const float value : values) {
    min = value < min ? value : min;
    max = value > max ? value : max;
  }
  const bool from_min = std::abs(min) > std::abs(max);
  const float step = std::max((max - min) / top, kStepMin);
  const float edge = from_min ? min : max;
  GroupScale to{.scale = from_min ? step : -step, .bias = 0.0f};
  if (const float steps = std::rint(edge / to.scale); steps != 0.0f)
    to = {.scale = edge / steps, .bias = edge};
  for (size_t i = 0; i < values.size(); ++i) {
    const float number = RoundSmall((values[i] - to.bias) / to.scale);
    q[i] = static_cast<uint8_t>(static_cast<int>(std::min(std::max(number, 0.0f), top)));
  }
  return to;
}

bool QuantizedRows::Quantize(const PanelLayout& layout, int bits, const SourceRows& rows,
                             size_t first, size_t lanes) {
  CHECK(bits == 4 || bits == 8);
  const size_t row_bytes = static_cast<size_t>(layout.k * bits / 8);
  const size_t scales_bytes =
      static_cast<size_t>(layout.k / layout.group) * BytesOf(layout.scale_type);
  weight_.resize(lanes * row_bytes);
  scales_.resize(lanes * scales_bytes);
  biases_.resize(lanes * scales_bytes);
  source_ = {.weight = {nullptr, weight_.data(), row_bytes},
             .scales = {nullptr, scales_.data(), scales_bytes},
             .biases = {nullptr, biases_.data(), scales_bytes}};
  for (size_t lane = 0; lane < lanes; ++lane) {
    if (!QuantizeRow(layout, bits, rows.first + (first + lane) * rows.row_bytes, lane))
      return false;
  }
  return true;
}

bool QuantizedRows::QuantizeRow(const PanelLayout& layout, int bits, const std::byte* row,
                                size_t lane) {
  constexpr size_t kGroupMax = 128;
  const auto group = static_cast<size_t>(layout.group), groups = size_t(layout.k) / group;
  float values[kGroupMax];
  uint8_t q[kGroupMax];
  std::byte* to = weight_.data() + lane * source_.weight.row_bytes;
  for (size_t g = 0; g < groups; ++g) {
    ReadFloats(layout.scale_type, row, g * group, group, values);
    // Of values that are all finite, all differences from themselves are 0.
    float sum = 0.0f;
    for (size_t i = 0; i < group; ++i) sum += values[i] - values[i];
    if (sum != 0.0f) return false;
    const GroupScale scale = QuantizeGroup({values, group}, bits, q);
    WriteFloat(layout.scale_type, scale.scale, scales_.data(), lane * groups + g);
    WriteFloat(layout.scale_type, scale.bias, biases_.data(), lane * groups + g);
    if (bits == 8)
      for (size_t i = 0; i < group; ++i) *to++ = static_cast<std::byte>(q[i]);
    else
      for (size_t i = 0; i < group; i += 2) *to++ = static_cast<std::byte>(q[i] | q[i + 1] << 4);
  }
  return true;
}

}  // namespace perdure::engine
