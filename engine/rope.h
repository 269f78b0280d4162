// Rotary position embedding, half-split: element i of a head is paired with i + head_dim / 2.
// Source: Su et al., RoFormer (2021); the llama3 scaling as in its model card's reference code.
#pragma once

#include <vector>

#include "engine/config.h"

namespace perdure::engine {

// head_dim / 2 angles per position, in radians.
std::vector<double> RopeFrequencies(const RopeConfig& rope, int head_dim);

// cos and sin of position × frequency, computed in double and rounded once.
void RopeRow(const std::vector<double>& frequencies, int position, float* cosines, float* sines);

}  // namespace perdure::engine
