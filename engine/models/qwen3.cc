// Qwen3, dense. Source: modeling_qwen3.py of Hugging Face transformers.

#include "engine/models/registry.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeQwen3(const ModelConfig& config) {
  RETURN_IF_ERROR(RefuseSlidingWindow(config));
  const bool bias = config.attention_bias.value_or(false);
  return DecoderSpec{.config = config, .qkv_bias = bias, .output_bias = bias, .qk_norm = true};
}

}  // namespace perdure::engine
