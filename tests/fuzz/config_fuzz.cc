// config.json, and behind a byte 0 generation_config.json.

#include <cmath>

#include "base/limits.h"
#include "engine/config.h"
#include "engine/model_summary.h"
#include "engine/models/registry.h"
#include "engine/rope.h"
#include "fuzz_target.h"

namespace perdure::engine {
namespace {

void CheckConfig(const ModelConfig& c) {
  CHECK(c.layers >= 1 && c.layers <= limits::kLayersMax);
  CHECK(c.heads >= 1 && c.kv_heads >= 1 && c.heads % c.kv_heads == 0);
  CHECK(c.head_dim >= 2 && c.head_dim % 2 == 0 && c.head_dim <= limits::kHeadDimMax);
  CHECK(c.vocab_size >= 1 && c.max_context >= 1);
  CHECK(c.layer_types.empty() || c.layer_types.size() == static_cast<size_t>(c.layers));
  for (const TokenId id : c.eos_ids) CHECK(id >= 0 && id < c.vocab_size);
  for (const CacheType& type : CacheTypes(KvShapeOf(c))) CHECK(type.bytes_per_token > 0);
}

void CheckSpec(const DecoderSpec& spec) {
  CHECK(!spec.names.empty());
  CHECK(spec.windows.empty() || spec.windows.size() == static_cast<size_t>(spec.config.layers));
  for (const int window : spec.windows) CHECK(window >= 0);
  const RopeTable table = MakeRopeTable(spec.config.rope, spec.config.head_dim);
  const size_t half = static_cast<size_t>(spec.config.head_dim) / 2;
  CHECK(table.frequencies.size() == half);
  std::vector<float> cosines(half), sines(half);
  RopeRow(table, spec.config.max_context - 1, cosines.data(), sines.data());
  for (size_t i = 0; i < half; ++i) CHECK(std::isfinite(cosines[i]) && std::isfinite(sines[i]));
}

}  // namespace

FUZZ_TARGET(config) {
  static fuzz::Folder folder;
  const auto [config_json, generation_json] = fuzz::SplitAtZero(input);
  folder.Write("config.json", config_json);
  if (generation_json.empty())
    folder.Remove("generation_config.json");
  else
    folder.Write("generation_config.json", generation_json);
  const auto kind = ReadModelKind(folder.path());
  const auto config = ReadModelConfig(folder.path());
  if (!kind) fuzz::CheckError(kind.error());
  if (!config) return fuzz::CheckError(config.error());
  CheckConfig(*config);
  // As Engine::Load does: what the kind refuses is not described.
  if (!kind) return;
  if (const Status known = CheckModelKind(*kind); !known) return fuzz::CheckError(known.error());
  const auto spec = DescribeModel(*config);
  if (!spec) return fuzz::CheckError(spec.error());
  CheckSpec(*spec);
}

}  // namespace perdure::engine
