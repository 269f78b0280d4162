// Small synthetic models in Hugging Face layout, written to a folder: every weight is a pure
// function of (seed, tensor name, index), the same one as in tools/synth/synth.py, so that goldens
// made in Python need not carry the weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace perdure::engine {

struct SynthSpec {
  std::string model_type = "qwen3";
  std::string dtype = "bf16";  // bf16, f16, f32: of everything that is not quantized, and of scales
  int hidden = 64;
  int layers = 2;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 16;
  int feed_forward = 96;
  int vocab = 256;
  bool tied = true;
  int bits = 0;  // 0: not quantized
  int group = 64;
  // Other bits than `bits`, by module path; 0: this module is not quantized.
  std::map<std::string, int> overrides = {};
  int shards = 1;
  uint64_t seed = 1;
  double logit_std = 3.0;  // of the head's outputs, about
  bool attention_bias = false;
  bool mlp_bias = false;
  // Of what is quantized: affine, or mxfp4 (bits: 4) but for the overrides. Where no group divides
  // the inputs, a matrix is not quantized.
  std::string mode = "affine";
  // qwen3_moe's layers of experts, in all layers but dense_layers; 0: none.
  int experts = 0;
  int experts_per_token = 2;
  int expert_feed_forward = 64;
  std::vector<int> dense_layers = {};
  // Where experts lie: stacked (as MLX writes them), fused (floats only) or apart. Their weights
  // are the same.
  std::string expert_layout = "stacked";
  // A JSON object: members of config.json that come on top, or in place, of those written from the
  // others.
  std::string config = "{}";
};

// Sets the field of that name from a row of a table in JSON; false for a name that is none.
bool SynthField(std::string_view name, const Json& value, SynthSpec* spec);

struct SynthTensor {
  std::string name;
  std::string dtype;  // as in a safetensors header
  std::vector<int64_t> shape;
  std::string data;
};

std::vector<SynthTensor> SynthTensors(const SynthSpec& spec);
std::string SynthConfigJson(const SynthSpec& spec);

// A file of these tensors; the header is padded with `pad` spaces (alignment).
std::string SafetensorsBytes(const std::vector<SynthTensor>& tensors, size_t pad = 0);
void WriteText(const std::filesystem::path& path, const std::string& text);

// config.json and the safetensors files. The folder must exist.
void WriteSynthModel(const SynthSpec& spec, const std::filesystem::path& dir);

// Token ids in [0, vocab), a function of seed and index.
std::vector<int32_t> SynthTokens(uint64_t seed, int count, int vocab);

// A fresh folder below the system's temporary one, removed with its content at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace perdure::engine
