// Qwen2 and Qwen2.5. Source: modeling_qwen2.py of Hugging Face transformers.

#include "engine/models/registry.h"
#include "engine/models/windows.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeQwen2(const ModelConfig& config) {
  ASSIGN_OR_RETURN(auto windows, QwenSlidingWindows(config));
  return DecoderSpec{.config = config, .qkv_bias = true, .windows = std::move(windows)};
}

}  // namespace perdure::engine
