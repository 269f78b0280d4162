// Instruction-set paths. They give the same bits (engine/kernels/kernels.h); the slower ones are
// oracles and fallbacks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace perdure::engine {

// Slowest first. kScalar is the oracle of the others.
enum class Isa { kScalar, kAvx2, kAvx512 };
Isa BestIsa();  // of this CPU
bool CpuHas(Isa isa);
std::string_view IsaName(Isa isa);
std::optional<Isa> ParseIsa(std::string_view name);

}  // namespace perdure::engine
