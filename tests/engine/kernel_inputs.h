// Random inputs of the kernels' tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "engine/float16.h"
#include "engine/kernels/kernels.h"

namespace perdure::engine {

// Floats at a chosen misalignment, with guard values around them.
class Floats {
 public:
  Floats(size_t n, size_t offset, float fill = 0.0f) : data_(n + offset + 64, 777.0f), n_(n) {
    offset_ = offset + (64 - reinterpret_cast<uintptr_t>(data_.data()) % 64) / 4 % 16;
    for (size_t i = 0; i < n; ++i) data()[i] = fill;
  }
  float* data() { return data_.data() + offset_; }
  const float* data() const { return data_.data() + offset_; }
  size_t size() const { return n_; }
  bool GuardsIntact() const {
    for (size_t i = 0; i < data_.size(); ++i)
      if ((i < offset_ || i >= offset_ + n_) && data_[i] != 777.0f) return false;
    return true;
  }
  bool SameBits(const Floats& other) const {
    return n_ == other.n_ && std::memcmp(data(), other.data(), n_ * sizeof(float)) == 0;
  }

 private:
  std::vector<float> data_;
  size_t n_;
  size_t offset_;
};

inline void FillRandom(Floats& floats, uint64_t seed, float scale = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  for (size_t i = 0; i < floats.size(); ++i) floats.data()[i] = normal(random);
}

struct Panels {
  PanelLayout layout;
  std::vector<std::byte> bytes;
};

inline Panels RandomPanels(PanelFormat format, int k, int group, ScaleType scale_type, int panels,
                           uint64_t seed) {
  Panels p{MakePanelLayout(format, k, group, scale_type), {}};
  p.bytes.resize(p.layout.panel_bytes * static_cast<size_t>(panels));
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  const auto put = [&](size_t at, auto value) { std::memcpy(&p.bytes[at], &value, sizeof value); };
  const auto floats = [&](size_t begin, size_t count, PanelFormat as) {
    for (size_t i = 0; i < count; ++i) {
      const float value = normal(random);
      if (as == PanelFormat::kF32)
        put(begin + i * 4, value);
      else if (as == PanelFormat::kF16)
        put(begin + i * 2, F32ToF16(value));
      else
        put(begin + i * 2, F32ToBf16(value));
    }
  };
  if (p.layout.group == 0) {
    floats(0, p.bytes.size() / (format == PanelFormat::kF32 ? 4 : 2), format);
    return p;
  }
  for (std::byte& byte : p.bytes) byte = static_cast<std::byte>(random());
  if (format == PanelFormat::kMxfp4) {  // scales from 2^-7 to 2^8
    for (size_t at = 0; at < p.bytes.size(); at += p.layout.group_bytes)
      for (size_t i = 0; i < kPanelWidth; ++i)
        p.bytes[at + i] = (p.bytes[at + i] & std::byte{15}) | std::byte{0x78};
    return p;
  }
  const PanelFormat scales = scale_type == ScaleType::kF32   ? PanelFormat::kF32
                             : scale_type == ScaleType::kF16 ? PanelFormat::kF16
                                                             : PanelFormat::kBf16;
  for (size_t at = 0; at < p.bytes.size(); at += p.layout.group_bytes)
    floats(at, 2 * kPanelWidth, scales);
  return p;
}

struct FormatCase {
  PanelFormat format;
  int group;
  ScaleType scale_type;
};
inline constexpr FormatCase kFormats[] = {
    {PanelFormat::kF32, 0, ScaleType::kF32},  {PanelFormat::kF16, 0, ScaleType::kF32},
    {PanelFormat::kBf16, 0, ScaleType::kF32}, {PanelFormat::kQ8, 32, ScaleType::kF16},
    {PanelFormat::kQ8, 64, ScaleType::kBf16}, {PanelFormat::kQ8, 128, ScaleType::kF32},
    {PanelFormat::kQ4, 32, ScaleType::kBf16}, {PanelFormat::kQ4, 64, ScaleType::kF32},
    {PanelFormat::kQ4, 128, ScaleType::kF16}, {PanelFormat::kMxfp4, 32, ScaleType::kF32},
};

}  // namespace perdure::engine
