// The pre-norm decoder that the architectures of models/ describe (DecoderSpec).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/aligned_buffer.h"
#include "engine/engine.h"
#include "engine/kernels/kernels.h"
#include "engine/models/moe.h"
#include "engine/models/registry.h"
#include "engine/models/work_memory.h"
#include "engine/packed_matrix.h"
#include "engine/rope.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/prepared_weights.h"

namespace perdure::engine {

class WeightReader;

// A linear layer: weights and, where it has one, a bias (padded with zeros like the outputs).
struct Linear {
  PackedMatrix weights;
  std::vector<float> bias;
};

struct DecoderLayer {
  std::vector<float> attention_norm, feed_forward_norm;
  Linear q, k, v, output;
  std::vector<float> q_norm, k_norm;
  // One or the other.
  Linear gate, up, down;
  std::optional<MoeLayer> experts;
};

class Decoder final : public Engine {
 public:
  // In memory.
  static Result<std::unique_ptr<Engine>> Load(DecoderSpec spec, const Checkpoint& checkpoint,
                                              const EngineOptions& options);
  // From a prepared file.
  static Result<std::unique_ptr<Engine>> Map(DecoderSpec spec, const Checkpoint& checkpoint,
                                             const EngineOptions& options, PreparedFile file);
  // Writes the prepared file.
  static Status Prepare(DecoderSpec spec, const Checkpoint& checkpoint,
                        const EngineOptions& options, PreparedWriter& writer);

  const ModelInfo& info() const override { return info_; }
  const GenerationDefaults& generation_defaults() const override { return spec_.config.generation; }
  void SetThreads(int threads) override { pool_.SetActive(threads); }
  std::span<const float> Step(std::span<const SequenceStep> sequences) override;

 private:
  // One token of the pass in hand.
  struct Row {
    const SequenceStep* sequence;
    TokenId token;
    int position;
    bool wants_logits;
  };
  // Consecutive rows of one sequence, no more than one attention tile and within one page.
  struct Run {
    const SequenceStep* sequence;
    int first_row;
    int rows;
    int start;  // position of first_row
  };
  // Work buffers of a pass, of `rows` rows each.
  struct Buffers;

  Decoder(DecoderSpec spec, const EngineOptions& options);
  Status LoadWeights(const Checkpoint& checkpoint, const EngineOptions& options,
                     const WeightsPlace& place);
  Status LoadLayer(WeightReader& reader, const std::string& prefix, int index, DecoderLayer* layer);
  Status LoadFeedForward(WeightReader& reader, const std::string& mlp, int index,
                         DecoderLayer* layer);
  void FillInfo(int64_t parameters, const Checkpoint& checkpoint);

  void Pass(std::span<const Row> rows, size_t logits_row);
  void Attention(const DecoderLayer& layer, int index, std::span<const Row> rows);
  void FeedForward(const DecoderLayer& layer, int rows);
  // Of the KV heads [first_head, end_head) and the queries that share them.
  void StoreKeysAndValues(const DecoderLayer& layer, int index, const Run& run, int first_head,
                          int end_head);
  void Attend(int index, const Run& run, int kv_head, float* scratch);
  void Norm(const float* x, const std::vector<float>& weight, int rows, float* y);
  void AddBias(const Linear& linear, float* row) const;
  bool HasDenseLayers() const;
  std::vector<WorkArray> LayOut(Buffers* buffers, int rows) const;
  uint64_t LargestWorkBytes();
  void Reserve(int rows, size_t logits_rows);

  DecoderSpec spec_;
  const std::function<void()> on_layer_;
  const Kernels& kernels_;
  const Activations activations_;
  ThreadPool pool_;
  ModelInfo info_;
  RopeTable rope_;

  std::optional<WeightsInUse> mapped_;  // where the matrices lie, unless they are in memory
  PackedMatrix embedding_;
  std::optional<PackedMatrix> head_;  // nothing: tied to the embedding
  std::vector<float> final_norm_;
  std::vector<DecoderLayer> layers_;
  std::optional<MoeCompute> moe_;  // where layers have experts

  std::unique_ptr<Buffers> buffers_;
  std::vector<Row> rows_;
  std::vector<Run> store_runs_, attend_runs_;
};

}  // namespace perdure::engine
