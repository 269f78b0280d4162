// What a model's folder holds, from config.json and the headers of its safetensors: no weights are
// read, so a checkpoint of any size takes milliseconds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/config.h"
#include "engine/kv_view.h"

namespace perdure::engine {

// Matrices (and vectors) that are stored alike, scales and biases of groups included.
struct WeightFormat {
  std::string name;  // "bf16", "affine 4-bit, group 64"
  int bits = 0;      // of an element
  int group = 0;     // of quantized ones; else 0
  int64_t tensors = 0;
  int64_t parameters = 0;
  uint64_t disk_bytes = 0;
};

struct WeightsSummary {
  // Counted before quantization, without what the model does not use (a tied head's copy).
  int64_t parameters = 0;
  // Those that one token meets: of a layer's experts, as many as it is sent to.
  int64_t active_parameters = 0;
  int files = 0;
  uint64_t disk_bytes = 0;            // of all tensors
  uint64_t memory_bytes = 0;          // as this engine packs them
  std::vector<WeightFormat> formats;  // the one with the most parameters first
};

struct ModelSummary {
  std::string model_type;                 // empty where config.json does not say
  std::optional<ModelConfig> config;      // nothing where config.json is broken or not understood
  std::optional<WeightsSummary> weights;  // nothing where files are broken or missing
  std::vector<std::string> notes;         // what a person should know of this model
  // What keeps this build from serving the model, a sentence each; empty: nothing was found.
  std::vector<std::string> problems;
};
// quantize_bits: as in EngineOptions; it changes memory_bytes, while formats are those on the disk.
ModelSummary SummarizeModel(const std::filesystem::path& model_dir, int quantize_bits = 0);

KvShape KvShapeOf(const ModelConfig& config);

// A way to keep KV. A presets' retention does not change what a token takes, but how many there
// are.
struct CacheType {
  std::string name;  // "quantized_kv"
  int bits = 16;     // of an element
  uint64_t bytes_per_token = 0;
  bool has_ceiling = false;  // holds max_size tokens at most, however long the conversation
};
// Quantized elements come in groups of 64 along head_dim, per token and head, with a 16-bit scale
// and a 16-bit bias each.
std::vector<CacheType> CacheTypes(const KvShape& shape);

}  // namespace perdure::engine
