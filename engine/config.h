// config.json and generation_config.json of a Hugging Face model folder, checked against the
// bounds of base/limits.h. What an architecture makes of it is its own business (models/).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "engine/engine.h"

namespace perdure::engine {

struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3, kYarn };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;            // of all but kNone
  int original_context = 8192;    // kLlama3, kYarn
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  double beta_fast = 32.0;        // kYarn
  double beta_slow = 1.0;         // kYarn
  // Queries and keys are multiplied by it.
  double magnitude = 1.0;  // kYarn
};

// Quantization as MLX writes it. kAffine: scale · q + bias. kMxfp4: kernels/kernels.h.
enum class QuantMode : uint8_t { kAffine, kMxfp4 };

struct QuantConfig {
  QuantMode mode = QuantMode::kAffine;
  int bits = 4;
  int group = 64;
  bool operator==(const QuantConfig&) const = default;
};
// Affine with 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128; mxfp4 with 4 in groups of 32.
bool IsSupported(const QuantConfig& quant);
struct ModelConfig;
// How a model's floats are quantized on load: affine with `bits` (8 or 4) in groups of 64 as MLX's
// converter does it; nothing for 0. bad_config: other bits, or a model that is quantized already.
Result<std::optional<QuantConfig>> QuantizeOnLoad(const ModelConfig& config, int bits,
                                                  const std::filesystem::path& model_dir);
// The same for one module's matrix of floats; nothing where it stays as it is.
std::optional<QuantConfig> QuantizeTo(const ModelConfig& config, std::string_view module,
                                      int64_t inputs);
// What people read: "affine 4-bit, group 64", "mxfp4, group 32".
std::string NameOf(const QuantConfig& quant);

struct QuantizationConfig {
  QuantConfig all;
  // By module path; nothing: not quantized.
  std::map<std::string, std::optional<QuantConfig>, std::less<>> overrides;
};

// Feed-forward layers made of experts. 0: config.json does not say.
struct ExpertsConfig {
  int count = 0;
  int per_token = 0;
  int feed_forward = 0;        // of one expert
  bool normalize = false;      // the weights of a token's experts sum up to 1
  int sparse_step = 1;         // layers i with (i + 1) % sparse_step == 0 have experts …
  std::set<int> dense_layers;  // … but for these
  bool InLayer(int layer) const {
    return (layer + 1) % sparse_step == 0 && !dense_layers.contains(layer);
  }
};

// What a layer's queries see, where config.json says it layer by layer.
enum class LayerAttention : uint8_t { kFull, kSliding };

// What tells whether config.json is of a kind that can be read at all.
struct ModelKind {
  std::string model_type;
  std::vector<std::string> architectures;  // "Qwen3ForCausalLM"; often one, may be none
};

struct ModelConfig {
  std::string model_type;
  // That of text_config, where the model wraps a text model: all else is read from there.
  std::string text_model_type;
  int hidden_size = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int feed_forward = 0;
  int vocab_size = 0;
  int max_context = 0;
  float rms_epsilon = 0.0f;
  RopeConfig rope;
  std::optional<bool> tied_embeddings;
  std::optional<bool> attention_bias, mlp_bias;
  // As written; models/windows.h makes windows of layers of them.
  std::optional<int> sliding_window, max_window_layers;
  std::optional<bool> use_sliding_window;
  std::vector<LayerAttention> layer_types;  // one a layer; empty where config.json does not say
  ExpertsConfig experts;
  std::optional<QuantizationConfig> quantization;
  // How floats are quantized while they are packed: a wish of ours, not of config.json.
  std::optional<QuantConfig> quantize;
  std::vector<TokenId> eos_ids;  // generation_config.json over config.json
  GenerationDefaults generation;
};

// Old formats that have no model_type are refused (unsupported) in words of their own.
Result<ModelKind> ReadModelKind(const std::filesystem::path& model_dir);

// bad_model: malformed or out of bounds; unsupported: understood, but not implemented. Both name
// the file, the key and what was found.
Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir);

}  // namespace perdure::engine
