#include "tests/sim/stream_clients.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace perdure::sim {
namespace {

void EraseAll(std::string* text, std::string_view part) {
  for (size_t at; (at = text->find(part)) != std::string::npos;) text->erase(at, part.size());
}

void AddBlocks(std::string_view bytes, Parts* parts) {
  static constexpr std::string_view kChoice = "\"choices\":[{\"index\":";
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find("\n\n"), bytes.size() - 2) + 2;
    const std::string_view block = bytes.substr(0, end);
    const size_t at = block.find(kChoice);
    const int choice = at == std::string_view::npos ? -1 : block[at + kChoice.size()] - '0';
    (*parts)[choice] += block;
    bytes.remove_prefix(end);
  }
}

}  // namespace

namespace {

// Of every kind, switched and combined; they differ within the 96 tokens that there are.
CacheChoice PickCache(std::mt19937& random) {
  CacheChoice cache;
  const auto phase = [&](int at, const char* type) -> CacheSettings& {
    cache.then.push_back({at, {}});
    cache.then.back().settings.type = type;
    return cache.then.back().settings;
  };
  cache.settings.type = "kv";
  switch (std::uniform_int_distribution<int>(0, 7)(random)) {
    case 0:
      cache.settings.type = "quantized_kv";
      break;
    case 1:
      cache.settings.type = "rotating_kv";
      cache.settings.max_size = 67;
      cache.settings.keep = 3;
      break;
    case 2:
      cache.settings.type = "chunked_kv";
      cache.settings.chunk_size = 64;
      break;
    case 3:
      cache.settings.type = "concatenate_kv";
      break;
    case 4:
      phase(20, "quantized_kv").bits = 4;
      break;
    case 5:
      phase(15, "rotating_kv").max_size = 70;
      phase(80, "kv");
      break;
    case 6:
      phase(33, "quantized_kv");
      phase(64, "concatenate_kv");
      break;
  }
  return cache;
}

}  // namespace

Script MakeScript(std::mt19937& random, protocol::RequestId rid, bool poison, bool typed) {
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
  if (pick(0, 3) == 0) request.choices = pick(2, 3);
  if (!request.echo && pick(0, 2) == 0) request.top_logprobs = pick(0, 2);
  if (pick(0, 2) == 0) request.stop = {std::string(1, letter()), "qx"};
  if (typed) {
    request.cache = PickCache(random);
    if (pick(0, 1) == 0) request.conversation_id = fmt::format("conversation {}", rid);
  }
  return script;
}

std::string Joined(const Parts& parts) {
  std::string all;
  for (const auto& [choice, bytes] : parts) all += bytes;
  return all;
}

void Client::Respond(frontend::HttpResponse response) {
  EXPECT_FALSE(ended_);
  EXPECT_EQ(status_, 0);
  status_ = response.status;
  parts_[-1] = Comparable(std::move(response.body));
  ended_ = true;
}

void Client::BeginStream(frontend::HttpResponse head) {
  EXPECT_EQ(status_, 0);
  status_ = head.status;
}

void Client::Stream(std::string more, size_t payload_bytes) {
  EXPECT_FALSE(ended_);
  AddBlocks(Comparable(std::move(more)), &parts_);
  unread.push_back(payload_bytes);
}

void Client::EndStream() {
  EXPECT_FALSE(ended_);
  ended_ = true;
}

std::string Client::Comparable(std::string bytes) const {
  EraseAll(&bytes, frontend::kStreamComment);
  EraseAll(&bytes, fmt::format("-{:016x}", script_.rid));
  if (const size_t at = bytes.find(",\"timings\":{"); at != std::string::npos)
    bytes.erase(at, bytes.find("}}", at) + 2 - at);
  if (const size_t at = bytes.find("\"cached_tokens\":"); at != std::string::npos)
    bytes.erase(at, bytes.find('}', at) - at);
  return bytes;
}

}  // namespace perdure::sim
