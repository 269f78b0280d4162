// Qwen3 with layers of experts. Source: modeling_qwen3_moe.py of Hugging Face transformers.

#include <fmt/format.h>

#include "engine/models/registry.h"
#include "engine/models/windows.h"

namespace perdure::engine {
namespace {

Status CheckExperts(const ExpertsConfig& experts) {
  const auto bad = [](std::string_view reason) {
    return Err(ErrorCode::bad_model, fmt::format("config.json: {}", reason));
  };
  if (experts.count == 0) return bad("num_experts is missing");
  if (experts.per_token == 0) return bad("num_experts_per_tok is missing");
  if (experts.feed_forward == 0) return bad("moe_intermediate_size is missing");
  if (experts.per_token > experts.count)
    return bad(fmt::format("num_experts_per_tok is {}, but there are only {} experts (num_experts)",
                           experts.per_token, experts.count));
  return {};
}

}  // namespace

Result<DecoderSpec> DescribeQwen3Moe(const ModelConfig& config) {
  RETURN_IF_ERROR(CheckExperts(config.experts));
  ASSIGN_OR_RETURN(auto windows, QwenSlidingWindows(config));
  const bool bias = config.attention_bias.value_or(false);
  return DecoderSpec{.config = config,
                     .qkv_bias = bias,
                     .output_bias = bias,
                     .experts = true,
                     .qk_norm = true,
                     .windows = std::move(windows)};
}

}  // namespace perdure::engine
