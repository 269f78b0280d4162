#include "engine/models/windows.h"

#include <algorithm>

namespace perdure::engine {

Result<std::vector<int>> SlidingWindows(const ModelConfig& config, std::optional<int> window,
                                        int from) {
  const auto& types = config.layer_types;
  if (!window && std::find(types.begin(), types.end(), LayerAttention::kSliding) != types.end())
    return Err(
        ErrorCode::bad_model,
        "config.json: layer_types has \"sliding_attention\", but no sliding_window is set or "
        "use_sliding_window is off");
  std::vector<int> windows(static_cast<size_t>(config.layers), 0);
  if (!window || *window >= config.max_context) return windows;
  for (size_t i = 0; i < windows.size(); ++i) {
    const bool slides =
        types.empty() ? static_cast<int>(i) >= from : types[i] == LayerAttention::kSliding;
    if (slides) windows[i] = *window;
  }
  return windows;
}

Result<std::vector<int>> QwenSlidingWindows(const ModelConfig& config) {
  // What transformers takes where config.json does not say.
  constexpr int kDefaultFrom = 28;
  const bool use = config.use_sliding_window.value_or(false);
  return SlidingWindows(config, use ? config.sliding_window : std::nullopt,
                        config.max_window_layers.value_or(kDefaultFrom));
}

}  // namespace perdure::engine
