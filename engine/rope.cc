#include "engine/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace perdure::engine {
namespace {

double Llama3Frequency(const RopeConfig& rope, double f) {
  const double wavelength = 2.0 * std::numbers::pi / f;
  const double turns = rope.original_context / wavelength;
  if (turns < rope.low_freq_factor) return f / rope.factor;
  if (turns > rope.high_freq_factor) return f;
  const double smooth =
      (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * f / rope.factor + smooth * f;
}

// Indices of frequencies between which kept ones (below) go over into stretched ones (above).
struct YarnBorders {
  double low = 0.0, high = 0.0;
};

YarnBorders FindYarnBorders(const RopeConfig& rope, int head_dim) {
  if (rope.scaling != RopeConfig::Scaling::kYarn) return {};
  // The index whose wavelength makes so many turns within the original context.
  const auto index = [&](double turns) {
    return head_dim * std::log(rope.original_context / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  YarnBorders borders{std::max(std::floor(index(rope.beta_fast)), 0.0),
                      std::min(std::ceil(index(rope.beta_slow)), head_dim - 1.0)};
  if (borders.low == borders.high) borders.high += 0.001;
  return borders;
}

double YarnFrequency(const RopeConfig& rope, const YarnBorders& borders, size_t i, double f) {
  const double stretched =
      std::clamp((static_cast<double>(i) - borders.low) / (borders.high - borders.low), 0.0, 1.0);
  return f / rope.factor * stretched + f * (1.0 - stretched);
}

}  // namespace

RopeTable MakeRopeTable(const RopeConfig& rope, int head_dim) {
  RopeTable table{.frequencies = std::vector<double>(static_cast<size_t>(head_dim / 2)),
                  .magnitude = rope.magnitude};
  const YarnBorders borders = FindYarnBorders(rope, head_dim);
  for (size_t i = 0; i < table.frequencies.size(); ++i) {
    const double f = 1.0 / std::pow(rope.theta, 2.0 * static_cast<double>(i) / head_dim);
    switch (rope.scaling) {
      case RopeConfig::Scaling::kNone:
        table.frequencies[i] = f;
        break;
      case RopeConfig::Scaling::kLinear:
        table.frequencies[i] = f / rope.factor;
        break;
      case RopeConfig::Scaling::kLlama3:
        table.frequencies[i] = Llama3Frequency(rope, f);
        break;
      case RopeConfig::Scaling::kYarn:
        table.frequencies[i] = YarnFrequency(rope, borders, i, f);
        break;
    }
  }
  return table;
}

void RopeRow(const RopeTable& table, int position, float* cosines, float* sines) {
  for (size_t i = 0; i < table.frequencies.size(); ++i) {
    const double angle = position * table.frequencies[i];
    cosines[i] = static_cast<float>(table.magnitude * std::cos(angle));
    sines[i] = static_cast<float>(table.magnitude * std::sin(angle));
  }
}

}  // namespace perdure::engine
