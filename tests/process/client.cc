#include "client.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "cli/http_client.h"
#include "cli/sse_reader.h"

namespace perdure::process_tests {
namespace {

constexpr int kTransferTimeoutS = 180;

Answer Perform(const std::string& url, const std::string& body, const std::string& method = "",
               const std::string& api_key = "") {
  const auto response = cli::Perform(cli::HttpRequest{.url = url,
                                                      .body = body,
                                                      .api_key = api_key,
                                                      .timeout_s = kTransferTimeoutS,
                                                      .on_data = nullptr,
                                                      .method = method});
  Answer answer;
  if (!response) return answer;
  answer.status = response->status;
  if (auto json = ParseJson(response->body, "the answer", ErrorCode::protocol_error))
    answer.body = std::move(*json);
  return answer;
}

std::string TextAt(const Json& json, const char* pointer) {
  const Json::json_pointer at(pointer);
  return json.contains(at) && json[at].is_string() ? json[at].get<std::string>() : "";
}

}  // namespace

Json ChatBody(const std::string& content, const Json& more) {
  Json body{{"messages", Json::array({Json{{"role", "user"}, {"content", content}}})},
            {"temperature", 0}};
  for (const auto& [key, value] : more.items()) body[key] = value;
  return body;
}

Json LongChatBody(int tokens, const Json& more) {
  Json body = ChatBody("Tell me a story.", {{"ignore_eos", true}, {"max_tokens", tokens}});
  for (const auto& [key, value] : more.items()) body[key] = value;
  return body;
}

std::string Answer::content() const { return TextAt(body, "/choices/0/message/content"); }
std::string Answer::error_code() const { return TextAt(body, "/error/code"); }
std::string Answer::error_message() const { return TextAt(body, "/error/message"); }
std::string Answer::finish_reason() const { return TextAt(body, "/choices/0/finish_reason"); }

Answer Get(const std::string& url) { return Perform(url, ""); }
Answer Post(const std::string& url, const Json& body) { return Perform(url, DumpJson(body)); }
Answer PostWithKey(const std::string& url, const Json& body, const std::string& api_key) {
  return Perform(url, DumpJson(body), "", api_key);
}
Answer Delete(const std::string& url) { return Perform(url, "", "DELETE"); }
Answer Chat(const std::string& base_url, const Json& body) {
  return Post(base_url + "/v1/chat/completions", body);
}

Stream::Stream(const std::string& base_url, Json body) {
  body["stream"] = true;
  thread_ = std::thread([this, base_url, text = DumpJson(body)] { Run(base_url, text); });
}

Stream::~Stream() {
  Hangup();
  Join();
}

void Stream::Run(const std::string& base_url, const std::string& body) {
  cli::SseReader reader;
  const auto response = cli::Perform(
      cli::HttpRequest{.url = base_url + "/v1/chat/completions",
                       .body = body,
                       .api_key = {},
                       .timeout_s = kTransferTimeoutS,
                       .on_data = [&](std::string_view bytes) {
                         reader.Append(bytes, [this](std::string_view data) { OnData(data); });
                         return !hangup_;
                       }});
  const std::lock_guard lock(mutex_);
  if (!response) {
    transport_error_ = response.error().message;
  } else {
    status_ = response->status;
    if (const auto json = ParseJson(response->body, "the answer", ErrorCode::protocol_error))
      error_code_ = TextAt(*json, "/error/code");
  }
  ended_ = true;
  changed_.notify_all();
}

void Stream::OnData(std::string_view data) {
  const std::lock_guard lock(mutex_);
  if (data == "[DONE]") {
    done_ = true;
  } else if (const auto chunk = ParseJson(data, "a chunk", ErrorCode::protocol_error)) {
    if (chunk->contains("error")) error_code_ = TextAt(*chunk, "/error/code");
    const std::string piece = TextAt(*chunk, "/choices/0/delta/content");
    content_ += piece;
    chunks_ += !piece.empty();
    if (const std::string reason = TextAt(*chunk, "/choices/0/finish_reason"); !reason.empty())
      finish_reason_ = reason;
    events_.push_back(*chunk);
  }
  changed_.notify_all();
}

bool Stream::AwaitChunks(int count) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(kTransferTimeoutS),
                    [&] { return chunks_ >= count || ended_; });
  return chunks_ >= count;
}

void Stream::Join() {
  if (thread_.joinable()) thread_.join();
}

bool Stream::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

int Stream::chunks() const {
  const std::lock_guard lock(mutex_);
  return chunks_;
}

}  // namespace perdure::process_tests
