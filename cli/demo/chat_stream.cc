#include "cli/demo/chat_stream.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/demo/interrupt.h"
#include "cli/sse_reader.h"

namespace perdure::cli {
namespace {

class Reader {
 public:
  explicit Reader(const std::function<void(std::string_view)>& on_piece) : on_piece_(on_piece) {}

  bool OnBytes(std::string_view bytes) {
    events_.Append(bytes, [this](std::string_view data) { OnEvent(data); });
    return !Interrupted();
  }
  ChatAnswer Finish(const Result<HttpResponse>& response) {
    if (Interrupted()) {
      answer_.problem = "it was interrupted";
    } else if (!answer_.problem.empty()) {
      return std::move(answer_);
    } else if (!response) {
      answer_.problem = response.error().message;
    } else if (response->status != 200) {
      answer_.problem = fmt::format("HTTP {}: {}", response->status, response->body);
    } else if (!done_) {
      answer_.problem = "the stream ended without [DONE]";
    }
    return std::move(answer_);
  }

 private:
  void OnEvent(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const Result<Json> chunk = ParseJson(data, "a chunk", ErrorCode::protocol_error);
    if (!chunk) {
      answer_.problem = chunk.error().message;
    } else if (chunk->contains("error")) {
      answer_.problem = (*chunk)["error"].value("message", "unknown error");
    } else {
      OnChunk(*chunk);
    }
  }

  void OnChunk(const Json& chunk) {
    if (chunk.contains("usage") && chunk["usage"].is_object()) {
      const Json& usage = chunk["usage"];
      answer_.prompt_tokens = usage.value("prompt_tokens", 0);
      answer_.completion_tokens = usage.value("completion_tokens", 0);
      if (usage.contains("prompt_tokens_details"))
        answer_.cached_tokens = usage["prompt_tokens_details"].value("cached_tokens", 0);
    }
    const Json::json_pointer content("/choices/0/delta/content");
    if (!chunk.contains(content) || !chunk[content].is_string()) return;
    const auto piece = chunk[content].get<std::string>();
    if (piece.empty()) return;
    answer_.text += piece;
    on_piece_(piece);
  }

  const std::function<void(std::string_view)>& on_piece_;
  SseReader events_;
  bool done_ = false;
  ChatAnswer answer_;
};

}  // namespace

ChatAnswer StreamChat(const std::string& url, const std::string& api_key, Json body,
                      const std::function<void(std::string_view piece)>& on_piece) {
  body["stream"] = true;
  body["stream_options"] = Json{{"include_usage", true}};
  Reader reader(on_piece);
  return reader.Finish(Perform(
      HttpRequest{.url = url + "/v1/chat/completions",
                  .body = DumpJson(body),
                  .api_key = api_key,
                  .timeout_s = 0,
                  .on_data = [&](std::string_view bytes) { return reader.OnBytes(bytes); }}));
}

}  // namespace perdure::cli
