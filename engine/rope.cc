#include "engine/rope.h"

#include <cmath>
#include <numbers>

namespace perdure::engine {

std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim) {
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double f = 1.0 / std::pow(rope.theta, 2.0 * static_cast<double>(i) / head_dim);
    switch (rope.scaling) {
      case RopeConfig::Scaling::kNone:
        break;
      case RopeConfig::Scaling::kLinear:
        f /= rope.factor;
        break;
      case RopeConfig::Scaling::kLlama3: {
        const double wavelength = 2.0 * std::numbers::pi / f;
        const double turns = rope.original_context / wavelength;
        if (turns < rope.low_freq_factor) {
          f /= rope.factor;
        } else if (turns <= rope.high_freq_factor) {
          const double smooth =
              (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
          f = (1.0 - smooth) * f / rope.factor + smooth * f;
        }
        break;
      }
    }
    frequencies[i] = f;
  }
  return frequencies;
}

void RopeRow(const std::vector<double>& frequencies, int position, float* cosines, float* sines) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double angle = position * frequencies[i];
    cosines[i] = static_cast<float>(std::cos(angle));
    sines[i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace perdure::engine
