#include "tests/sim/stream_clients.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string_view>
#include <utility>

namespace perdure::sim {
namespace {

void EraseAll(std::string* text, std::string_view part) {
  for (size_t at; (at = text->find(part)) != std::string::npos;) text->erase(at, part.size());
}

}  // namespace

Script MakeScript(std::mt19937& random, protocol::RequestId rid, bool poison) {
  const auto pick = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  const auto letter = [&] { return static_cast<char>(pick('a', 'z')); };
  Script script;
  script.rid = script.first_rid = rid;
  script.poison = poison;
  script.request.stream = pick(0, 2) != 0;
  protocol::GenerationRequest& request = script.request.generation;
  const bool bitter = poison && pick(0, 1) == 0;
  if (pick(0, 1) == 0) {
    request.kind = protocol::RequestKind::kCompletion;
    request.prompt = std::string(static_cast<size_t>(pick(1, 60)), letter());
    request.echo = pick(0, 3) == 0;
    if (poison) request.prompt += bitter ? kBitterPoison : kPoison;
  } else {
    std::string text(static_cast<size_t>(pick(1, 50)), letter());
    if (poison) text += bitter ? "\\u0002" : "\\u0001";
    request.chat_json = R"({"messages":[{"role":"user","content":")" + text + R"("}]})";
  }
  request.seed = rid;
  request.max_tokens = pick(poison ? 1 : 0, 24);
  if (pick(0, 2) == 0) request.stop = {std::string(1, letter()), "qx"};
  return script;
}

void Client::Respond(frontend::HttpResponse response) {
  EXPECT_FALSE(ended_);
  EXPECT_EQ(status_, 0);
  status_ = response.status;
  bytes_ = Comparable(std::move(response.body));
  ended_ = true;
}

void Client::BeginStream(frontend::HttpResponse head) {
  EXPECT_EQ(status_, 0);
  status_ = head.status;
}

void Client::Stream(std::string more, size_t payload_bytes) {
  EXPECT_FALSE(ended_);
  bytes_ += Comparable(std::move(more));
  unread.push_back(payload_bytes);
}

void Client::EndStream() {
  EXPECT_FALSE(ended_);
  ended_ = true;
}

std::string Client::Comparable(std::string bytes) const {
  EraseAll(&bytes, frontend::kStreamComment);
  EraseAll(&bytes, fmt::format("-{:016x}", script_.rid));
  if (const size_t at = bytes.find("\"timings\":{"); at != std::string::npos)
    bytes.erase(at, bytes.find("}}", at) + 2 - at);
  if (const size_t at = bytes.find("\"cached_tokens\":"); at != std::string::npos)
    bytes.erase(at, bytes.find('}', at) - at);
  return bytes;
}

}  // namespace perdure::sim
