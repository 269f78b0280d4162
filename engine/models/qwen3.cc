// Qwen3, dense. Source: modeling_qwen3.py of Hugging Face transformers.

#include "engine/models/registry.h"
#include "engine/models/windows.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeQwen3(const ModelConfig& config) {
  ASSIGN_OR_RETURN(auto windows, QwenSlidingWindows(config));
  const bool bias = config.attention_bias.value_or(false);
  return DecoderSpec{.config = config,
                     .qkv_bias = bias,
                     .output_bias = bias,
                     .qk_norm = true,
                     .windows = std::move(windows)};
}

}  // namespace perdure::engine
