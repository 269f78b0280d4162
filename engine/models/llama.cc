// Llama 2 and 3, Code Llama and what shares their form. Source: modeling_llama.py of Hugging Face
// transformers; layer_types as in mlx-lm's llama.py.

#include "engine/models/registry.h"
#include "engine/models/windows.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeLlama(const ModelConfig& config) {
  // Without layer_types a sliding_window has no meaning here.
  ASSIGN_OR_RETURN(auto windows, SlidingWindows(config, config.sliding_window, config.layers));
  const bool bias = config.attention_bias.value_or(false);
  return DecoderSpec{.config = config,
                     .qkv_bias = bias,
                     .output_bias = bias,
                     .mlp_bias = config.mlp_bias.value_or(false),
                     .windows = std::move(windows)};
}

}  // namespace perdure::engine
