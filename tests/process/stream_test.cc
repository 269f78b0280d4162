// Streams that go on while workers are killed, replaced and poisoned.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
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

size_t ResidentMiB(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/statm");
  size_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * 4096 >> 20;
}

TEST(StreamTest, AKillStormLosesNoTokenOfAnyStream) {
  constexpr int kKills = 50, kClients = 8;
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  Service service;
  service.StartReady();
  const std::vector<Json> bodies = Bodies();
  const std::vector<std::string> expected = Undisturbed(service, bodies);
  const pid_t frontend = service.FrontendPid();
  const size_t files_before = OpenFiles(service.pid());
  const size_t frontend_files_before = OpenFiles(frontend);
  const size_t mib_before = ResidentMiB(service.pid()) + ResidentMiB(frontend);

  std::atomic<bool> stop{false};
  std::atomic<int> answers{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      for (int i = client; !stop; ++i) {
        const auto kind = static_cast<size_t>(i) % bodies.size();
        if (i % 4 == 0) {
          const Answer answer = Chat(service.url(), bodies[kind]);
          EXPECT_EQ(answer.status, 200) << answer.body;
          EXPECT_EQ(answer.content(), expected[kind]);
        } else {
          Stream stream(service.url(), bodies[kind]);
          stream.Join();
          EXPECT_TRUE(stream.done())
              << stream.status() << ' ' << stream.error_code() << ' ' << stream.transport_error();
          EXPECT_EQ(stream.content(), expected[kind]);
        }
        ++answers;
      }
    });
  }
  for (int kills = 0; kills < kKills && !testing::Test::HasFailure();) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1 + random() % 500));
    if (service.SignalModel("nano", SIGKILL) > 0) ++kills;
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_GE(answers, kClients);
  ASSERT_TRUE(service.AwaitModel("nano", "ready"));
  const Json model = service.Model("nano");
  EXPECT_GE(model["deaths"], kKills);
  EXPECT_EQ(service.FrontendPid(), frontend);
  // Nothing grows with the number of workers.
  EXPECT_LE(OpenFiles(service.pid()), files_before + 2);
  EXPECT_LE(OpenFiles(frontend), frontend_files_before + kClients + 2);
  EXPECT_LE(ResidentMiB(service.pid()) + ResidentMiB(frontend), mib_before + 24);
}

int CachedTokens(const Answer& answer) {
  return answer.body["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
}

TEST(StreamTest, WhatWasComputedOutlivesTheWorker) {
  Service service;
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
