// Instruction-set paths. They give the same bits (engine/kernels/kernels.h); the slower ones are
// oracles and fallbacks.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace perdure::engine {

// Slowest first. kScalar is the oracle of the others. The VNNI ones have instructions for products
// of bytes: kAvxVnni is kAvx2 with them, kAvx512Vnni kAvx512.
enum class Isa { kScalar, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni };
inline constexpr Isa kIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512,
                                Isa::kAvx512Vnni};
Isa BestIsa();  // of this CPU
bool CpuHas(Isa isa);
std::string_view IsaName(Isa isa);
std::optional<Isa> ParseIsa(std::string_view name);

}  // namespace perdure::engine
