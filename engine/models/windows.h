// From config.json's ways to speak of sliding windows to one window a layer.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "engine/config.h"

namespace perdure::engine {

// For DecoderSpec::windows: `window` in the layers that layer_types calls sliding or, where
// config.json has no layer_types, in the layers ≥ `from`. A window as long as the context is none.
// bad_model where layer_types wants a window and there is none.
Result<std::vector<int>> SlidingWindows(const ModelConfig& config, std::optional<int> window,
                                        int from);

// The Qwen family's rule: off unless use_sliding_window; then for layers ≥ max_window_layers.
Result<std::vector<int>> QwenSlidingWindows(const ModelConfig& config);

}  // namespace perdure::engine
