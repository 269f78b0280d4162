// Qwen2 and Qwen2.5. Source: modeling_qwen2.py of Hugging Face transformers.

#include "engine/models/registry.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeQwen2(const ModelConfig& config) {
  RETURN_IF_ERROR(RefuseSlidingWindow(config));
  return DecoderSpec{.config = config, .qkv_bias = true};
}

}  // namespace perdure::engine
