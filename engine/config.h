// config.json and generation_config.json of a Hugging Face model folder, checked against the
// bounds of base/limits.h. What an architecture makes of it is its own business (models/).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "engine/engine.h"

namespace perdure::engine {

struct RopeConfig {
  enum class Scaling { kNone, kLinear, kLlama3 };
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;            // kLinear, kLlama3
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  int original_context = 8192;    // kLlama3
};

// Affine quantization as MLX writes it.
struct QuantConfig {
  int bits = 4;
  int group = 64;
  bool operator==(const QuantConfig&) const = default;
};

struct QuantizationConfig {
  QuantConfig all;
  // By module path; nothing: not quantized.
  std::map<std::string, std::optional<QuantConfig>, std::less<>> overrides;
};

struct ModelConfig {
  std::string model_type;
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
  std::optional<bool> attention_bias;
  // The positions that layers ≥ sliding_from see; nothing where every layer sees all of them.
  std::optional<int> sliding_window;
  int sliding_from = 0;
  std::optional<QuantizationConfig> quantization;
  std::vector<TokenId> eos_ids;  // generation_config.json over config.json
  GenerationDefaults generation;
};

// bad_model: malformed or out of bounds; unsupported: understood, but not implemented. Both name
// the file, the key and what was found.
Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir);

}  // namespace perdure::engine
