// A feed-forward layer of experts (mixture of experts): a router gives every expert a weight, and
// of each token only the experts of the largest weights are computed. Source: modeling_qwen3_moe.py
// of Hugging Face transformers.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/aligned_buffer.h"
#include "engine/config.h"
#include "engine/kernels/kernels.h"
#include "engine/models/work_memory.h"
#include "engine/packed_matrix.h"
#include "engine/thread_pool.h"

namespace perdure::engine {

class WeightReader;

struct MoeLayer {
  PackedMatrix router;          // [experts, hidden]
  PackedMatrix gate, up, down;  // an expert is a part
};

// `mlp` is the module's path, "model.layers.0.mlp". Experts lie in one of three ways: stacked
// (<mlp>.switch_mlp.gate_proj.weight [experts, …], as MLX writes), fused
// (<mlp>.experts.gate_up_proj [experts, 2 · feed_forward, hidden], transformers 5) or apart
// (<mlp>.experts.0.gate_proj.weight).
Result<MoeLayer> LoadMoeLayer(WeightReader& reader, const std::string& mlp, int hidden,
                              const ExpertsConfig& config);

// The experts of the largest probabilities, largest first; of equal ones the lower index first. As
// many as chosen.size() == weights.size() ≤ probabilities.size(). `weights` are their
// probabilities, divided by their sum where `normalize`.
void ChooseExperts(std::span<const float> probabilities, bool normalize, std::span<int> chosen,
                   std::span<float> weights);

// Computes layers. What a token gets does not depend on the others of its batch: experts share out
// panels of weights, and a token's own experts are added in the order of their weights.
// Not thread-safe.
class MoeCompute {
 public:
  // `activations` of the experts; the router, whose work is small and decides, has them in f32.
  MoeCompute(const Kernels& kernels, ThreadPool& pool, Activations activations, int hidden,
             const ExpertsConfig& config);

  // Buffers of the largest call.
  uint64_t LargestWorkBytes(const MoeLayer& layer);

  // x[row] += Σ weight · expert(normed[row]) for each row; both are [rows][hidden].
  void Add(const MoeLayer& layer, const float* normed, int rows, float* x);

 private:
  // Slots are the pairs of (row, one of its experts), ordered by expert.
  void AddBlock(const MoeLayer& layer, const float* normed, int rows, float* x);
  void Route(const MoeLayer& layer, const float* normed, int rows);
  void MakeSlots(int rows);
  void ComputeSlots(const MoeLayer& layer, const float* normed);
  std::array<WorkArray, 6> LayOut(const MoeLayer& layer, int rows);
  void Reserve(const MoeLayer& layer, int rows);

  const Kernels& kernels_;
  ThreadPool& pool_;
  const Activations activations_;
  const int hidden_;
  const ExpertsConfig config_;
  const int block_rows_;  // that are computed at once

  int rows_ = 0;  // capacity
  AlignedBuffer memory_;
  float* logits_ = nullptr;   // [rows][experts, padded]
  float* weights_ = nullptr;  // [rows][per_token]
  float* gate_ = nullptr;     // [slots][feed_forward, padded]
  float* up_ = nullptr;       // the same
  float* out_ = nullptr;      // [slots][hidden, padded]
  float* packed_ = nullptr;   // Multiply's

  // Experts that have slots, and where those begin.
  struct Busy {
    int expert, first, slots;
  };
  std::vector<int> chosen_;    // [rows][per_token]
  std::vector<int> slot_of_;   // [rows][per_token]
  std::vector<int> slot_row_;  // by slot
  std::vector<int> fill_;      // by expert: the next slot
  std::vector<Busy> busy_;
  std::vector<Product> products_;
  std::vector<RowGroup> groups_;
};

}  // namespace perdure::engine
