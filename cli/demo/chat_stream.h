// One streamed answer, as a client program sees it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "cli/http_client.h"

namespace perdure::cli {

struct ChatAnswer {
  std::string text;
  std::string problem;  // why it did not come to its end; empty: it did
  // Of usage.
  int prompt_tokens = 0;
  int cached_tokens = 0;  // of the prompt: not computed for this answer
  int completion_tokens = 0;
};

// Posts `body` (a chat, which is made a stream) and calls `on_piece` with each piece of text as it
// comes. Ctrl-C ends it as a problem.
ChatAnswer StreamChat(const std::string& url, const std::string& api_key, Json body,
                      const std::function<void(std::string_view piece)>& on_piece);

}  // namespace perdure::cli
