// Renders templates for a differential test: a JSON line in, {"source", "context", "unix_time"}, a
// JSON line out, {"text"} or {"error"}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "text/template/chat_template.h"

namespace perdure::text {
namespace {

Result<RenderedPrompt> RenderLine(const std::string& line) {
  ASSIGN_OR_RETURN(const Json request,
                   ParseJson(line, "the line", ErrorCode::invalid_request, 200));
  ASSIGN_OR_RETURN(const auto chat, ChatTemplate::Parse(request["source"].get<std::string>(), "t"));
  return chat->Render(request["context"], {}, request["unix_time"].get<int64_t>());
}

}  // namespace
}  // namespace perdure::text

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const auto rendered = perdure::text::RenderLine(line);
    perdure::Json answer;
    if (rendered)
      answer["text"] = rendered->text;
    else
      answer["error"] = rendered.error().message;
    std::cout << perdure::DumpJson(answer) << std::endl;
  }
}
