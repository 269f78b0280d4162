#include "engine/models/registry.h"

#include <fmt/format.h>

namespace perdure::engine {

Result<DecoderSpec> DescribeQwen2(const ModelConfig& config);
Result<DecoderSpec> DescribeQwen3(const ModelConfig& config);

namespace {

struct Row {
  std::string_view model_type;
  DescribeFn describe;
};
constexpr Row kArchitectures[] = {
    {"qwen2", DescribeQwen2},
    {"qwen3", DescribeQwen3},
};

}  // namespace

Result<DecoderSpec> DescribeModel(const ModelConfig& config) {
  std::string known;
  for (const Row& row : kArchitectures) {
    if (row.model_type == config.model_type) return row.describe(config);
    known += known.empty() ? "" : ", ";
    known += row.model_type;
  }
  return Err(
      ErrorCode::unsupported,
      fmt::format("config.json: model_type is \"{}\"; supported are {}", config.model_type, known));
}

Status RefuseSlidingWindow(const ModelConfig& config) {
  if (!config.sliding_window || config.sliding_from >= config.layers ||
      *config.sliding_window >= config.max_context)
    return {};
  return Err(ErrorCode::unsupported,
             fmt::format("config.json: use_sliding_window with a window of {} from layer {} of {}; "
                         "only attention to all positions is supported",
                         *config.sliding_window, config.sliding_from, config.layers));
}

}  // namespace perdure::engine
