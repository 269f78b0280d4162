// Forms in which models call tools, as configurations spell them; docs/tool_calls.md describes
// them.
#pragma once

#include <string_view>

namespace perdure {

// In the order of text::ToolFormat.
inline constexpr std::string_view kToolFormatNames[] = {
    "none", "hermes", "qwen3_coder", "mistral", "devstral", "llama3", "json"};

}  // namespace perdure
