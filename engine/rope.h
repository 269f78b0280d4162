// Rotary position embedding, half-split: element i of a head is paired with i + head_dim / 2.
// Sources: Su et al., RoFormer (2021); the llama3 scaling as in its model card's reference code;
// Peng et al., YaRN (2023), with borders rounded outward as in its reference implementation.
#pragma once

#include <vector>

#include "engine/config.h"

namespace perdure::engine {

struct RopeTable {
  std::vector<double> frequencies;  // head_dim / 2 angles per position, in radians
  double magnitude = 1.0;           // of the rotated heads
};

RopeTable MakeRopeTable(const RopeConfig& rope, int head_dim);

// magnitude × cos and sin of position × frequency, computed in double and rounded once.
void RopeRow(const RopeTable& table, int position, float* cosines, float* sines);

}  // namespace perdure::engine
