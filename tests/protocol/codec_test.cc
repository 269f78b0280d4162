// Every message: round trip, and bytes that are not what the writer wrote.

#include "protocol/codec.h"

#include <gtest/gtest.h>

#include <random>

#include "protocol/frame.h"
#include "protocol/heritage.h"
#include "protocol/messages.h"

namespace perdure::protocol {
namespace {

SamplingRequest FullSampling() {
  SamplingRequest s;
  s.temperature = 0.5f;
  s.top_k = 40;
  s.repetition_penalty = 1.1f;
  s.logit_bias = {{7, -100.0f}, {9, 2.5f}};
  return s;
}

GenerationRequest FullRequest() {
  GenerationRequest r;
  r.kind = RequestKind::kCompletion;
  r.chat_json = "{\"messages\":[]}";
  r.prompt = std::string("a\0b", 3);
  r.prompt_ids = std::vector<TokenId>{1, -2, 1 << 30};
  r.sampling = FullSampling();
  r.seed = ~uint64_t{0};
  r.choices = 3;
  r.max_tokens = 17;
  r.stop = {"x", "", "\xff"};
  r.ignore_eos = true;
  r.echo = true;
  r.unix_time = -1;
  r.top_logprobs = 20;
  r.tenant = "0123456789abcdef";
  r.reasoning_tokens_max = 5;
  r.conversation_id = "mine";
  r.cache.settings.type = "kv";
  r.cache.settings.compression_ratio = 0.5f;
  r.cache.then = {{4096, {"rotating_kv", 8, 1000, 4, 32, 0.25f, 7}}};
  return r;
}

Heritage FullHeritage() {
  Heritage h;
  h.instance = "0123";
  h.log_level = "info";
  h.supervisor_pid = 42;
  h.control_fd = 7;
  h.status_fd = 8;
  h.worker = WorkerHeritage{};
  h.worker->model = "nano";
  h.worker->default_temperature = 0.25f;
  h.worker->cache_types = {{"small", FullRequest().cache}};
  h.worker->shared_prompts = {"/etc/prompt.txt"};
  h.frontend = FrontendHeritage{};
  h.frontend->settings.api_keys = {"one", "two"};
  return h;
}

Roster FullRoster() {
  Roster roster;
  for (int i = 0; i < 3; ++i) {
    RosterEntry entry;
    entry.name = std::string(static_cast<size_t>(i), 'm');
    entry.state = ModelState::kBackoff;
    entry.reason = "died";
    entry.load_bytes_total = 1u << i;
    roster.models.push_back(entry);
  }
  roster.draining = true;
  return roster;
}

ConversationTicket FullTicket() {
  ConversationTicket ticket;
  ticket.cache = {"rotating_kv", {{0, 16, 0, 0}, {4096, 8, 4, 1000}}, 512, true};
  ticket.conversation_id = "mine";
  ticket.message_hashes = {1, ~uint64_t{0}};
  ticket.drawn = {5, 0};
  ticket.form = {1, "<think>", "</think>", 2};
  return ticket;
}

// Calls `f` with one value of every message, its fields filled.
template <class F>
void ForEveryMessage(F f) {
  f(Hello{"nano", 3, 2048, 8});
  f(Submit{1, FullRequest(), 65536, true});
  f(Submit{});
  f(Resume{1, FullRequest(), {1, 2}, FullTicket(), {{7, {4, 5}, true, 3}, {}}, 65536, true});
  f(Accepted{1, {1, 2, 3}, FullTicket(), 5, {"a warning"}});
  f(Begun{1, 2, 32});
  f(Event{1, 2, 3, {4, 5}, "text"});
  f(Event{1,
          2,
          3,
          {4, 5},
          "text",
          {{{-0.5f, "a", false}, {{-0.25f, "b", true}, {-1.0f, "\xE2", false}}, 7}, {}},
          1,
          {{PartKind::kReasoning, 0, "Hm."}, {PartKind::kCallBegin, 1, "f"}}});
  f(End{1, 2, 3, FinishReason::kLength, {1, 2, 3, 4, 5, 6, 7, 8, 9}, true});
  f(Failed{1, 2, "message", "param"});
  f(Release{1});
  f(Cancel{2});
  f(Credit{3, 4});
  f(CacheCommand{5, CacheOperation::kMonitor, true, 10});
  f(CacheAnswer{5, "{}"});
  f(FullRoster());
  f(ChannelOffer{"nano", 5, {1, ~uint64_t{0}}, {2}});
  f(FullHeritage().frontend->settings);
  f(FrontendReady{});
  f(Drained{});
  f(ChannelBroken{"nano", 3, "an event without its request"});
  f(WorkerReady{2048, "llama", "q8", 1'000'000, 2, 3, "avx2", 4096, 65536, 5});
  f(MemoryQuery{7});
  f(MemoryReport{7, R"({"budget_bytes": 1})"});
  f(LoadFailed{21, "no"});
  f(Cleared{9});
  f(NewChannel{});
  f(Drain{30, true});
  f(FullHeritage());
}

TEST(Codec, EveryMessageSurvivesARoundTrip) {
  ForEveryMessage([](const auto& message) {
    using T = std::decay_t<decltype(message)>;
    const std::string bytes = Encode(message);
    const auto decoded = Decode<T>(bytes);
    ASSERT_TRUE(decoded.has_value()) << typeid(T).name();
    // The encoding has one form for each value, so equal bytes mean equal values.
    EXPECT_EQ(Encode(*decoded), bytes) << typeid(T).name();
  });
}

TEST(Codec, EveryTruncationAndEveryExtensionIsAnError) {
  ForEveryMessage([](const auto& message) {
    using T = std::decay_t<decltype(message)>;
    const std::string bytes = Encode(message);
    for (size_t n = 0; n < bytes.size(); ++n) {
      // A copy of its own size: a read beyond its end is one that the sanitizer sees.
      const std::string cut(bytes.data(), n);
      EXPECT_FALSE(Decode<T>(cut).has_value()) << typeid(T).name() << " cut to " << n;
    }
    EXPECT_FALSE(Decode<T>(bytes + '\0').has_value()) << typeid(T).name();
  });
}

TEST(Codec, FlippedBitsNeverDoMoreThanFail) {
  std::mt19937_64 random(20260801);
  ForEveryMessage([&](const auto& message) {
    using T = std::decay_t<decltype(message)>;
    const std::string bytes = Encode(message);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string damaged = bytes;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      const auto decoded = Decode<T>(damaged);
      if (decoded.has_value()) {
        EXPECT_EQ(Encode(*decoded), damaged);
      }
    }
    for (int i = 0; i < 200; ++i) {
      std::string noise(random() % 200, '\0');
      for (char& c : noise) c = static_cast<char>(random());
      const auto decoded = Decode<T>(noise);
      if (decoded.has_value()) {
        EXPECT_EQ(Encode(*decoded), noise);
      }
    }
  });
}

TEST(Codec, CountsThatTheBytesCannotHoldAllocateNothing) {
  std::string bytes;
  Writer writer(&bytes);
  writer.Put(RequestId{1});
  writer.Put(uint32_t{0xffff'ffff});  // prompt_ids
  const auto accepted = Decode<Accepted>(bytes);
  ASSERT_FALSE(accepted.has_value());
  EXPECT_EQ(accepted.error().code, ErrorCode::protocol_error);
}

TEST(Codec, ABooleanIsZeroOrOne) {
  Roster roster;
  roster.ends_soon = true;
  std::string bytes = Encode(roster);
  ASSERT_EQ(bytes.back(), 1);
  bytes.back() = 2;
  EXPECT_FALSE(Decode<Roster>(bytes).has_value());
}

TEST(Messages, StatesHaveNames) {
  EXPECT_EQ(ModelStateName(ModelState::kStarting), "starting");
  EXPECT_EQ(ModelStateName(ModelState::kStopped), "stopped");
  EXPECT_EQ(ModelStateName(static_cast<ModelState>(200)), "unknown");
}

}  // namespace
}  // namespace perdure::protocol
