// Streams that go on while workers are killed, replaced and poisoned.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

#ifdef __SANITIZE_ADDRESS__
// Of supervisor and frontend: each keeps freed memory in a quarantine of up to 256 MiB.
constexpr size_t kGrowthKibMax = 2 * 300 * 1024;
#else
constexpr size_t kGrowthKibMax = 24 * 1024;
#endif

namespace fs = std::filesystem;

// Requests of several kinds; equal kinds have equal answers.
std::vector<Json> Bodies() {
  std::vector<Json> bodies;
  for (int kind = 0; kind < 6; ++kind) {
    Json body = LongChatBody(60 + 40 * kind, {{"seed", kind}, {"temperature", kind % 3 * 0.6}});
    if (kind % 2 == 1) body["messages"][0]["content"] = std::string(300, 'w') + " What is 2+2?";
    if (kind == 4) body["stop"] = Json::array({"zzz", "the "});
    bodies.push_back(std::move(body));
  }
  return bodies;
}

std::vector<std::string> Undisturbed(const Service& service, const std::vector<Json>& bodies) {
  std::vector<std::string> answers;
  for (const Json& body : bodies) {
    answers.push_back(Chat(service.url(), body).content());
    EXPECT_FALSE(answers.back().empty());
  }
  return answers;
}

size_t OpenFiles(pid_t pid) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       fs::directory_iterator("/proc/" + std::to_string(pid) + "/fd"))
    ++count;
  return count;
}

size_t ResidentKiB(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/statm");
  size_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * 4096 >> 10;
}

// More of them on demand: docs/lifecycle.md has the figures of a thousand.
int StormKills() {
  const char* text = std::getenv("PERDURE_STORM_KILLS");
  return text == nullptr ? 50 : std::atoi(text);
}

// What must not grow with the number of workers that have come and gone.
struct Footprint {
  size_t files = 0, frontend_files = 0;
  size_t resident_kib = 0, frontend_resident_kib = 0;
  size_t arena_bytes = 0;
};

Footprint FootprintOf(const Service& service, pid_t frontend, int kills) {
  Footprint now;
  now.files = OpenFiles(service.pid());
  now.frontend_files = OpenFiles(frontend);
  now.resident_kib = ResidentKiB(service.pid());
  now.frontend_resident_kib = ResidentKiB(frontend);
  const Json model = service.Model("nano");
  if (model.is_object()) now.arena_bytes = model["arena"]["bytes"].get<size_t>();
  fmt::print(
      "after {:4} kills: {} + {} descriptors, {} + {} KiB resident (supervisor + frontend), arena "
      "{} MiB\n",
      kills, now.files, now.frontend_files, now.resident_kib, now.frontend_resident_kib,
      now.arena_bytes >> 20);
  return now;
}

int Occurrences(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = 0; (at = text.find(word, at)) != std::string::npos; at += word.size()) ++count;
  return count;
}

// Clients that ask for one answer after the other and compare each with the undisturbed one.
class Clients {
 public:
  Clients(const Service& service, int count)
      : url_(service.url()), bodies_(Bodies()), expected_(Undisturbed(service, bodies_)) {
    for (int client = 0; client < count; ++client)
      threads_.emplace_back([this, client] { Run(client); });
  }
  ~Clients() { Stop(); }

  // Returns how many answers were compared.
  int Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return answers_;
  }

 private:
  void Run(int client) {
    for (int i = client; !stop_; ++i) {
      const auto kind = static_cast<size_t>(i) % bodies_.size();
      if (i % 4 == 0) {
        const Answer answer = Chat(url_, bodies_[kind]);
        EXPECT_EQ(answer.status, 200) << answer.body;
        EXPECT_EQ(answer.content(), expected_[kind]);
      } else {
        Stream stream(url_, bodies_[kind]);
        stream.Join();
        EXPECT_TRUE(stream.done())
            << stream.status() << ' ' << stream.error_code() << ' ' << stream.transport_error();
        EXPECT_EQ(stream.content(), expected_[kind]);
      }
      ++answers_;
    }
  }

  const std::string url_;
  const std::vector<Json> bodies_;
  const std::vector<std::string> expected_;
  std::atomic<bool> stop_{false};
  std::atomic<int> answers_{0};
  std::vector<std::thread> threads_;
};

TEST(StreamTest, AKillStormLosesNoTokenOfAnyStream) {
  constexpr int kClients = 8;
  const int kills_wanted = StormKills();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Service service;
  service.StartReady();
  const pid_t frontend = service.FrontendPid();
  Clients clients(service, kClients);
  const Footprint before = FootprintOf(service, frontend, 0);
  pid_t last = -1;
  for (int kills = 0; kills < kills_wanted && !testing::Test::HasFailure();) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % 500));
    const pid_t pid = service.SignalModel("nano", SIGKILL);
    if (pid <= 0 || pid == last) continue;
    last = pid;
    if (++kills % std::max(1, kills_wanted / 5) == 0) FootprintOf(service, frontend, kills);
  }
  const int answers = clients.Stop();
  EXPECT_GE(answers, kClients);
  ASSERT_TRUE(service.AwaitModel("nano", "ready"));
  const Json model = service.Model("nano");
  EXPECT_GE(model["deaths"], kills_wanted);
  EXPECT_EQ(service.FrontendPid(), frontend);
  const int went_on = Occurrences(service.Log(), " of them cached: ");
  EXPECT_GT(went_on, 0);
  fmt::print("{} answers compared; {} times one went on with the next worker; {} deaths\n", answers,
             went_on, model["deaths"].get<int>());
  // Nothing grows with the number of workers.
  const Footprint after = FootprintOf(service, frontend, kills_wanted);
  EXPECT_LE(after.files, before.files + 2);
  EXPECT_LE(after.frontend_files, before.frontend_files + kClients + 2);
  EXPECT_LE(after.resident_kib + after.frontend_resident_kib,
            before.resident_kib + before.frontend_resident_kib + kGrowthKibMax);
}

int CachedTokens(const Answer& answer) {
  return answer.body["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
}

TEST(StreamTest, WhatWasComputedOutlivesTheWorker) {
  Service service;
  // In shared memory, that is; what is on disk outlives more.
  service.WriteConfig("[snapshots]\nenabled = false\n");
  service.StartReady();
  const Json body = ChatBody(std::string(400, 'x') + " What is 2+2?", {{"max_tokens", 8}});
  const Answer first = Chat(service.url(), body);
  EXPECT_EQ(CachedTokens(first), 0);
  const Answer second = Chat(service.url(), body);
  EXPECT_GT(CachedTokens(second), 32);
  EXPECT_EQ(second.content(), first.content());
  ASSERT_GT(service.SignalModel("nano", SIGKILL), 0);
  const Answer third = Chat(service.url(), body);
  EXPECT_EQ(third.status, 200);
  EXPECT_EQ(CachedTokens(third), CachedTokens(second));
  EXPECT_EQ(third.content(), first.content());
  EXPECT_EQ(service.Model("nano")["arena"]["shared"], true);
  // Its supervisor's sudden death, too, where /dev/shm has room for a name to find it by; an
  // orderly end leaves nothing behind.
  const bool named =
      service.Log().find("its KV cache will end with the service") == std::string::npos;
  service.Signal(SIGKILL);
  ASSERT_TRUE(service.AwaitExit());
  service.StartReady();
  const Answer fourth = Chat(service.url(), body);
  EXPECT_EQ(CachedTokens(fourth), named ? CachedTokens(second) : 0);
  EXPECT_EQ(fourth.content(), first.content());
  service.Signal(SIGTERM);
  ASSERT_TRUE(service.AwaitExit());
  service.StartReady();
  EXPECT_EQ(CachedTokens(Chat(service.url(), body)), 0);
}

TEST(StreamTest, ReloadingAModelBreaksNoStream) {
  Service service;
  service.WriteConfig("[supervisor]\nisa = \"scalar\"\n");
  service.StartReady();
  const Json body = LongChatBody(200, {{"seed", 3}, {"temperature", 0.8}});
  const std::string expected = Chat(service.url(), body).content();
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 3; ++i) streams.push_back(std::make_unique<Stream>(service.url(), body));
  for (auto& stream : streams) ASSERT_TRUE(stream->AwaitChunks(3));
  const pid_t before = service.ModelPid("nano");
  EXPECT_EQ(service.Reload("nano"), "");
  // What comes while nobody serves waits.
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", Json::object())).status, 200);
  for (auto& stream : streams) {
    stream->Join();
    EXPECT_TRUE(stream->done()) << stream->error_code();
    EXPECT_EQ(stream->content(), expected);
  }
  EXPECT_NE(service.ModelPid("nano"), before);
  EXPECT_NE(service.Log().find(" of them cached: "), std::string::npos) << "what it cost is logged";
  EXPECT_EQ(service.Model("nano")["deaths"], 0);
  EXPECT_NE(service.Reload("other").find("no model is called \"other\""), std::string::npos);
}

TEST(StreamTest, APoisonRequestIsGivenUpAloneAndTheOthersFinish) {
  Service service;
  service.SetPrograms(PERDURE_POISON_DIR);
  service.WriteConfig("[models.nano]\nsource = \"" + BuiltinModel().string() + "\"\n");
  service.StartReady();
  const std::vector<Json> bodies = Bodies();
  const std::vector<std::string> expected = Undisturbed(service, bodies);
  std::vector<std::unique_ptr<Stream>> streams;
  for (size_t i = 0; i < 7; ++i)
    streams.push_back(std::make_unique<Stream>(service.url(), bodies[i % bodies.size()]));
  ASSERT_TRUE(streams[5]->AwaitChunks(2));
  const Answer poison = Chat(service.url(), ChatBody("drink this: \u2620", Json::object()));
  EXPECT_EQ(poison.status, 500);
  EXPECT_EQ(poison.error_code(), "worker_crashed");
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i]->Join();
    EXPECT_TRUE(streams[i]->done()) << i << ' ' << streams[i]->error_code();
    EXPECT_EQ(streams[i]->content(), expected[i % bodies.size()]);
  }
  EXPECT_EQ(service.Model("nano")["deaths"], 2);
  EXPECT_EQ(service.Model("nano")["state"], "ready");
}

}  // namespace
}  // namespace perdure::process_tests
