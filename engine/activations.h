// What quantized weights are multiplied with.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace perdure::engine {

// kInt8: rows of activations are rounded to 8 bits, with a scale for each 64 of them, and sums
// within a group are integers. kFloat32: as they are, at about a fourth of the speed. Weights that
// are not quantized always meet f32.
enum class Activations : uint8_t { kInt8, kFloat32 };

constexpr std::string_view ActivationsName(Activations activations) {
  return activations == Activations::kInt8 ? "int8" : "float32";
}

constexpr std::optional<Activations> ParseActivations(std::string_view name) {
  for (Activations activations : {Activations::kInt8, Activations::kFloat32})
    if (name == ActivationsName(activations)) return activations;
  return std::nullopt;
}

}  // namespace perdure::engine
