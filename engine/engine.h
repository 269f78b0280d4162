// A loaded model and the one operation it has: a step over a flat list of tokens of many sequences.
//
// Contract (determinism): the logits and the KV of a token depend on the model, the token ids
// before it and the instruction-set path alone; not on what else is in the batch, how a prompt was
// cut into steps, or the number of threads. Equal means equal bits.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/prepared_folder.h"
#include "base/result.h"
#include "base/token.h"
#include "engine/activations.h"
#include "engine/isa.h"
#include "engine/kv_view.h"

namespace perdure::engine {

class PhaseProfile;

struct LoadProgress {
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;
};

struct EngineOptions {
  int threads = 1;  // ≥ 1; the calling thread is one of them
  Isa isa = BestIsa();
  Activations activations = Activations::kInt8;  // of quantized matrices
  // Where the model's packed weights are kept from its first load on. Without a folder, and where
  // it cannot be written, they are packed in memory.
  PreparedFolder prepared = {};
  // Floats are quantized to 8 or 4 bits while they are packed, in groups of 64; 0: they are not.
  int quantize_bits = 0;
  // Called once, on a thread of its own, when weights in use turn out to be damaged; the text says
  // which. Nothing: that ends the process (CHECK).
  std::function<void(const std::string&)> on_damage = nullptr;
  // Called on the loading thread, at least once a layer.
  std::function<void(const LoadProgress&)> on_progress = nullptr;
  // Called by Step on its thread after each layer: a sign of life within a long step.
  std::function<void()> on_layer = nullptr;
  // Told of every phase of every step; outlives the engine.
  PhaseProfile* profile = nullptr;
};

// What a person or another layer wants to know of a loaded model.
struct ModelInfo {
  std::string architecture;  // config.json's model_type
  std::string quantization;  // "bf16", "f32", "affine 4-bit, group 64", "mxfp4, group 32", …
  // Kernel version and activation mode. Equal ids give equal bits, on every instruction-set path.
  std::string numerics_id;
  int64_t parameters = 0;
  uint64_t weight_bytes = 0;
  // Of a prepared file, which processes share; 0: the weights are this process's own memory.
  uint64_t mapped_bytes = 0;
  // Weights that a step of one token multiplies, and their bytes: of experts the chosen ones, of an
  // embedding that is not the head none.
  int64_t token_weights = 0;
  uint64_t token_bytes = 0;
  uint64_t work_bytes = 0;  // buffers of the largest step, without logits
  int layers = 0;
  int vocab_size = 0;
  int max_context = 0;  // max_position_embeddings
  KvShape kv;
  std::vector<TokenId> eos_ids;  // generation_config.json over config.json
  // What a person should know, one sentence each: "its vision tower is not used: …".
  std::vector<std::string> notes;
};

// Sampling defaults of generation_config.json; absent where the file does not say.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
};

struct SequenceStep {
  KvView kv;      // must cover positions [0, start + tokens.size())
  int start = 0;  // position of tokens[0]; every position before it was computed into kv
  std::span<const TokenId> tokens;  // each in [0, vocab_size)
  // Logits are produced for tokens[logits_from …]; tokens.size() for none.
  int logits_from = 0;
};

class Engine {
 public:
  // Reads config.json, generation_config.json and *.safetensors of `model_dir`. Errors (bad_model,
  // bad_config, unsupported, io_error, out_of_memory) name the file and the reason.
  static Result<std::unique_ptr<Engine>> Load(const std::filesystem::path& model_dir,
                                              const EngineOptions& options);
  virtual ~Engine() = default;

  virtual const ModelInfo& info() const = 0;
  virtual const GenerationDefaults& generation_defaults() const = 0;

  // From the next step on at most so many of its threads compute, at least one. For whoever calls
  // Step.
  virtual void SetThreads(int /*threads*/) {}

  // One forward pass over all sequences. Returns rows of vocab_size floats, in the order of the
  // sequences and of their tokens; valid until the next call. Not thread-safe.
  virtual std::span<const float> Step(std::span<const SequenceStep> sequences) = 0;
};

}  // namespace perdure::engine
