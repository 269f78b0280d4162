#include "hub/model_size.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "hub/weight_bytes.h"

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPageTokens = 32;
constexpr uint64_t kFloatBytes = 4, kHalfBytes = 2;

// A positive number of at most `most`; 0 where there is none.
uint64_t Number(const Json& config, const char* key, int most) {
  const auto it = config.find(key);
  if (it == config.end() || !it->is_number_integer()) return 0;
  const int64_t value = it->get<int64_t>();
  return value > 0 && value <= most ? static_cast<uint64_t>(value) : 0;
}

// As engine/models/decoder.cc lays out its buffers, roughly.
uint64_t WorkBytes(const Json& config, uint64_t hidden, uint64_t queries, uint64_t keys,
                   int sequences) {
  const uint64_t rows = limits::kEngineRowsMax;
  const uint64_t inner = Number(config, "intermediate_size", limits::kFeedForwardMax);
  const uint64_t per_token = Number(config, "num_experts_per_tok", limits::kExpertsMax);
  const uint64_t expert = Number(config, "moe_intermediate_size", limits::kFeedForwardMax);
  uint64_t floats = rows * (5 * hidden + 2 * queries + 2 * keys + 3 * inner);
  floats += std::min<uint64_t>(rows * per_token, limits::kExpertSlotsMax) * (3 * expert + hidden);
  const uint64_t logits = std::bit_ceil(static_cast<unsigned>(std::max(1, sequences))) *
                          Number(config, "vocab_size", limits::kVocabMax);
  return (floats + logits) * kFloatBytes;
}

void ReadShapes(const Json& config, int sequences, ModelSize* size) {
  const uint64_t hidden = Number(config, "hidden_size", limits::kHiddenMax);
  const uint64_t layers = Number(config, "num_hidden_layers", limits::kLayersMax);
  const uint64_t heads = Number(config, "num_attention_heads", limits::kHeadsMax);
  if (hidden == 0 || layers == 0 || heads == 0) return;
  uint64_t kv_heads = Number(config, "num_key_value_heads", limits::kHeadsMax);
  if (kv_heads == 0) kv_heads = heads;
  uint64_t head_dim = Number(config, "head_dim", limits::kHeadDimMax);
  if (head_dim == 0) head_dim = hidden / heads;
  size->work_bytes = WorkBytes(config, hidden, heads * head_dim, kv_heads * head_dim, sequences);
  size->kv_page_bytes = 2 * layers * kv_heads * head_dim * kHalfBytes * kPageTokens;
  size->context = static_cast<int>(Number(config, "max_position_embeddings", limits::kContextMax));
}

}  // namespace

ModelSize SizeOf(const ModelConfig& model, const ModelPlaces& places, int sequences) {
  ModelSize size;
  const auto folder = FindModel(model.source, places);
  if (!folder) return size;
  size.weight_bytes = LoadedBytes(model, places);
  size.work_bytes = limits::kWorkBytesUnknown;
  if (const auto text = ReadFile(*folder / "config.json", limits::kModelJsonBytesMax)) {
    const auto config = ParseJson(*text, "config.json", ErrorCode::bad_model);
    if (config && config->is_object()) {
      // Models that see wrap one that reads.
      const auto inner = config->find("text_config");
      ReadShapes(inner != config->end() && inner->is_object() ? *inner : *config, sequences, &size);
    }
  }
  std::error_code absent;
  const uint64_t tokenizer = fs::file_size(*folder / "tokenizer.json", absent);
  if (!absent) size.work_bytes += tokenizer;
  if (model.max_context > 0)
    size.context = size.context > 0 ? std::min(size.context, model.max_context) : model.max_context;
  return size;
}

}  // namespace perdure::hub
