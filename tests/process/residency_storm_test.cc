// Six models in the memory of about three, eight clients, and somebody who kills workers: every
// answer is right and comes once, nobody waits for ever, conversations go on from what was
// computed, and the memory stays within its budget.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/json.h"
#include "client.h"
#include "kernel_memory.h"
#include "service.h"
#include "shm/arena_segment.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;

constexpr int kModels = 6;
constexpr int kClients = 8;
constexpr int kScripts = 3;  // of conversations
constexpr int kTurns = 5;
constexpr int kPlain = 6;  // kinds of requests that stand alone
constexpr int kPageTokens = 32;
// About three of the six.
constexpr uint64_t kBudgetBytes = uint64_t{170} << 20;
constexpr int kResidentMax = 3;
// A model's turn lasts a second, and there are two rounds of three; answers take some hundred
// milliseconds, a killed worker's replacement up to a second. On a busy machine all take longer.
constexpr int64_t kWaitMsMax = 30'000;

// More on demand: bench/residency_storm.sh.
int StormSeconds() {
  const char* text = std::getenv("PERDURE_STORM_SECONDS");
  return text == nullptr ? 60 : std::atoi(text);
}

std::string ModelName(int model) { return std::string(1, static_cast<char>('a' + model)); }

Json Message(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

// What came of one request, streamed or whole.
struct Outcome {
  std::string content, finish_reason;
  int prompt_tokens = 0, completion_tokens = 0, cached = 0, computed = 0;
  int64_t took_ms = 0;
};

// What is the same each time that it is asked.
bool IsSameAnswer(const Outcome& a, const Outcome& b) {
  return a.content == b.content && a.finish_reason == b.finish_reason &&
         a.prompt_tokens == b.prompt_tokens && a.completion_tokens == b.completion_tokens;
}

void TakeUsage(const Json& from, Outcome* outcome) {
  const Json& usage = from["usage"];
  outcome->prompt_tokens = usage["prompt_tokens"];
  outcome->completion_tokens = usage["completion_tokens"];
  outcome->cached = usage["prompt_tokens_details"]["cached_tokens"];
  outcome->computed = from["timings"]["cache"]["computed"];
}

Outcome Ask(const std::string& url, Json body, bool streamed) {
  Outcome outcome;
  const int64_t begin_ms = MonotonicMs();
  if (streamed) {
    body["stream_options"] = {{"include_usage", true}};
    Stream stream(url, body);
    stream.Join();
    EXPECT_TRUE(stream.done()) << stream.status() << ' ' << stream.error_code() << ' '
                               << stream.transport_error();
    outcome.content = stream.content();
    outcome.finish_reason = stream.finish_reason();
    int ends = 0;
    for (const Json& event : stream.events()) {
      if (event.contains("usage") && event["usage"].is_object() && ++ends == 1)
        TakeUsage(event, &outcome);
    }
    EXPECT_EQ(ends, 1) << "an answer ends once";
  } else {
    const Answer answer = Chat(url, body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    outcome.content = answer.content();
    outcome.finish_reason = answer.finish_reason();
    if (answer.status == 200) TakeUsage(answer.body, &outcome);
  }
  outcome.took_ms = MonotonicMs() - begin_ms;
  return outcome;
}

Json PlainBody(int kind) {
  Json body = LongChatBody(20 + 30 * kind, {{"seed", kind}, {"temperature", kind % 3 * 0.6}});
  if (kind % 2 == 1) body["messages"][0]["content"] = std::string(300, 'w') + " What is 2+2?";
  if (kind == 4) body["stop"] = Json::array({"zzz", "the "});
  return body;
}

// One conversation: its question of each turn is the client's, its answers are the model's.
struct Conversation {
  int model = 0, script = 0, turn = 0;
  std::string id;
  Json messages = Json::array();
  int tokens = 0;  // of the turns so far

  Json NextBody() {
    static constexpr std::array<const char*, kTurns> kQuestions = {
        "My name is Anna. Remember it, and tell me of the sea, please.", "What is my name?",
        "Tell me a story of a cat that lived beside a lake.", "And then?",
        "Thank you. Say goodbye."};
    const size_t which = static_cast<size_t>(turn + script) % kQuestions.size();
    messages.push_back(Message("user", kQuestions[which]));
    return {{"model", ModelName(model)},   {"messages", messages}, {"conversation_id", id},
            {"temperature", script * 0.5}, {"seed", script},       {"max_tokens", 24},
            {"ignore_eos", true}};
  }
  void Take(const Outcome& outcome) {
    messages.push_back(Message("assistant", outcome.content));
    tokens = outcome.prompt_tokens + outcome.completion_tokens;
    ++turn;
  }
};

class ResidencyStormTest : public testing::Test {
 protected:
  // Models of equal size that answer differently: what another one has computed is seen.
  void MakeModels() {
    std::ifstream in(BuiltinModel() / "config.json");
    const Json config = Json::parse(in);
    for (int model = 0; model < kModels; ++model) {
      const fs::path folder = service_.folder() / ("model-" + ModelName(model));
      fs::create_directory(folder);
      for (const auto& entry : fs::directory_iterator(BuiltinModel()))
        if (entry.path().filename() != "config.json")
          fs::create_symlink(entry.path(), folder / entry.path().filename());
      Json own = config;
      own["rope_theta"] = 10000.0 + 500 * model;
      std::ofstream(folder / "config.json") << own.dump();
      toml_ += fmt::format("[models.{}]\nsource = \"{}\"\n", ModelName(model), folder.string());
    }
  }

  // The answers of a service in which nothing happens.
  void AskUndisturbed() {
    std::set<std::string> different;
    for (int model = 0; model < kModels; ++model) {
      for (int kind = 0; kind < kPlain; ++kind) {
        Json body = PlainBody(kind);
        body["model"] = ModelName(model);
        plain_[{model, kind}] = Ask(service_.url(), body, false);
        different.insert(plain_[{model, kind}].content);
      }
      for (int script = 0; script < kScripts; ++script) {
        Conversation conversation{.model = model, .script = script, .id = ModelName(script)};
        for (int turn = 0; turn < kTurns; ++turn) {
          const Outcome outcome = Ask(service_.url(), conversation.NextBody(), false);
          ASSERT_GT(outcome.completion_tokens, 0);
          conversation.Take(outcome);
          turns_[{model, script, turn}] = outcome;
        }
      }
    }
    EXPECT_GT(different.size(), size_t{kPlain} * 2) << "these models are all the same";
  }

  void RunClient(int client, unsigned seed) {
    std::mt19937 random(seed + static_cast<unsigned>(client));
    const auto draw = [&](int below) {
      return static_cast<int>(random() % static_cast<unsigned>(below));
    };
    std::map<int, Conversation> open;  // by model
    for (int begun = 0; !stop_ && !HasFailure();) {
      const int model = draw(kModels);
      const bool streamed = draw(2) == 0;
      if (draw(2) == 0) {
        const int kind = draw(kPlain);
        Json body = PlainBody(kind);
        body["model"] = ModelName(model);
        const Outcome outcome = Ask(service_.url(), body, streamed);
        Check(outcome, plain_[{model, kind}], fmt::format("{} of {}", kind, ModelName(model)));
        continue;
      }
      if (!open.contains(model)) {
        open[model] = {
            .model = model, .script = draw(kScripts), .id = fmt::format("c{}-{}", client, begun++)};
      }
      Conversation& conversation = open[model];
      const Outcome outcome = Ask(service_.url(), conversation.NextBody(), streamed);
      const auto what = fmt::format("turn {} of {}, a conversation with {}", conversation.turn,
                                    conversation.id, ModelName(model));
      Check(outcome, turns_[{model, conversation.script, conversation.turn}], what);
      if (conversation.turn > 0) {
        ++continued_;
        EXPECT_GT(outcome.cached, 0) << what;
        EXPECT_LE(outcome.computed, outcome.prompt_tokens - conversation.tokens + kPageTokens)
            << what << " of " << outcome.prompt_tokens << " tokens, " << conversation.tokens
            << " of them known; cached " << outcome.cached;
      }
      conversation.Take(outcome);
      if (conversation.turn == kTurns) open.erase(model);
    }
  }

  void Check(const Outcome& outcome, const Outcome& expected, const std::string& what) {
    ++answers_;
    EXPECT_TRUE(IsSameAnswer(outcome, expected))
        << what << ": '" << outcome.content << "' (" << outcome.prompt_tokens << " + "
        << outcome.completion_tokens << " tokens), undisturbed '" << expected.content << "' ("
        << expected.prompt_tokens << " + " << expected.completion_tokens << ")";
    const std::lock_guard lock(mutex_);
    waits_ms_.push_back(outcome.took_ms);
    EXPECT_LE(outcome.took_ms, kWaitMsMax) << what;
  }

  // Watches the memory, and kills.
  void Disturb(unsigned seed) {
    std::mt19937 random(seed);
    const int64_t end_ms = MonotonicMs() + int64_t{1000} * StormSeconds();
    int64_t sample_ms = 0;
    std::set<pid_t> seen;
    while (MonotonicMs() < end_ms && !HasFailure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50 + random() % 600));
      const Json ps = service_.Ps();
      if (!ps.is_object()) continue;
      EXPECT_LE(ps["memory"]["held_bytes"], kBudgetBytes) << ps["memory"];
      std::vector<pid_t> workers;
      for (const Json& model : ps["models"])
        if (model["pid"].is_number()) workers.push_back(model["pid"]);
      resident_max_ = std::max(resident_max_, static_cast<int>(workers.size()));
      EXPECT_LE(workers.size(), kResidentMax) << ps["models"];
      for (const pid_t worker : workers) seen.insert(worker);
      if (MonotonicMs() >= sample_ms) {
        sample_ms = MonotonicMs() + 1000;
        const KernelMemory memory = ReadKernelMemory(service_.pid());
        bytes_max_ = std::max(bytes_max_, memory.bytes());
        ++samples_;
        EXPECT_LE(memory.bytes(), kBudgetBytes)
            << memory.process_bytes << " of processes, " << memory.arena_bytes << " of arenas; "
            << ps["memory"];
      }
      if (workers.empty() || random() % 3 == 0) continue;
      kill(workers[random() % workers.size()], SIGKILL);
      ++kills_;
    }
    processes_ = static_cast<int>(seen.size());
  }

  void Report() {
    std::ranges::sort(waits_ms_);
    const auto wait_at = [&](size_t percent) {
      return waits_ms_.empty() ? 0 : waits_ms_[(waits_ms_.size() - 1) * percent / 100];
    };
    fmt::print(
        "| seconds | answers | continued turns | workers seen | kills | loaded at once, at most | "
        "memory at most | of | answer after, median | 99 % | at most |\n"
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        "| {} | {} | {} | {} | {} | {} | {} MiB | {} MiB | {} ms | {} ms | {} ms |\n",
        StormSeconds(), answers_.load(), continued_.load(), processes_, kills_, resident_max_,
        bytes_max_ >> 20, kBudgetBytes >> 20, wait_at(50), wait_at(99), wait_at(100));
  }

  Service service_;
  std::string toml_;
  std::map<std::pair<int, int>, Outcome> plain_;        // by model and kind
  std::map<std::tuple<int, int, int>, Outcome> turns_;  // by model, script and turn
  std::atomic<bool> stop_{false};
  std::atomic<int> answers_{0}, continued_{0};
  std::mutex mutex_;
  std::vector<int64_t> waits_ms_;
  int kills_ = 0, resident_max_ = 0, processes_ = 0, samples_ = 0;
  uint64_t bytes_max_ = 0;
};

TEST_F(ResidencyStormTest, SixModelsInTheMemoryOfThree) {
  const char* const wanted = std::getenv("PERDURE_STORM_SEED");
  const unsigned seed =
      wanted != nullptr ? static_cast<unsigned>(std::atoll(wanted)) : std::random_device{}();
  SCOPED_TRACE("PERDURE_STORM_SEED=" + std::to_string(seed));
  ASSERT_NO_FATAL_FAILURE(MakeModels());
  service_.WriteConfig(
      fmt::format("[lifecycle]\nmemory_max = {}\nresidency_least_s = 0\n{}", kBudgetBytes, toml_));
  service_.StartReady();
  ASSERT_NO_FATAL_FAILURE(AskUndisturbed());
  const pid_t frontend = service_.FrontendPid();
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client)
    clients.emplace_back([this, client, seed] { RunClient(client, seed); });
  Disturb(seed);
  stop_ = true;
  for (std::thread& client : clients) client.join();
  Report();
  EXPECT_GT(answers_, kClients);
  EXPECT_GT(continued_, 0);
  EXPECT_GT(kills_, 0);
  EXPECT_GT(samples_, 0);
  EXPECT_GE(resident_max_, 2) << "the budget is for about three";
  EXPECT_EQ(service_.FrontendPid(), frontend);

  // An orderly end leaves nothing behind.
  std::vector<pid_t> children = ChildrenOf(service_.pid());
  EXPECT_FALSE(children.empty());
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.AwaitExit(), 0);
  for (const pid_t child : children) EXPECT_FALSE(Alive(child)) << child;
  const std::string mine = shm::ArenaName(shm::InstanceName(service_.folder() / "state"), "");
  for (const std::string& arena : shm::ListArenas()) EXPECT_FALSE(arena.starts_with(mine)) << arena;
}

}  // namespace
}  // namespace perdure::process_tests
