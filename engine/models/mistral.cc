// Mistral 7B, Nemo, Small, Devstral: Llama without biases, with a window in every layer where
// config.json has one. Source: modeling_mistral.py of Hugging Face transformers.

#include "engine/models/registry.h"
#include "engine/models/windows.h"

namespace perdure::engine {

Result<DecoderSpec> DescribeMistral(const ModelConfig& config) {
  ASSIGN_OR_RETURN(auto windows, SlidingWindows(config, config.sliding_window, 0));
  return DecoderSpec{.config = config, .windows = std::move(windows)};
}

}  // namespace perdure::engine
