// Real processes killed for real. The outcomes are those that docs/lifecycle.md promises.
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

// On the scalar path a long stream takes most of a minute: there is time to kill in the middle of
// it, however busy the machine.
constexpr const char* kTwoModels = R"(
[supervisor]
isa = "scalar"
hang_timeout_s = 3

[models.a]
source = "nano"
default = true

[models.b]
source = "nano"
)";

class CrashTest : public testing::Test {
 protected:
  void SetUp() override {
    service_.WriteConfig(kTwoModels);
    service_.StartReady(2);
  }
  std::string Undisturbed(const Json& body) { return Chat(service_.url(), body).content(); }
  Service service_;
};

TEST_F(CrashTest, AStreamSurvivesItsWorkerAndOthersDoNotNotice) {
  const Json body_a = LongChatBody(150, {{"model", "a"}, {"seed", 7}, {"temperature", 0.9}});
  const Json body_b = LongChatBody(60, {{"model", "b"}, {"seed", 1}, {"temperature", 0.7}});
  const std::string expected_a = Undisturbed(body_a);
  const std::string expected_b = Undisturbed(body_b);
  const pid_t frontend = service_.FrontendPid();
  Stream a(service_.url(), body_a);
  Stream b(service_.url(), body_b);
  ASSERT_TRUE(a.AwaitChunks(3));
  ASSERT_TRUE(b.AwaitChunks(3));
  const pid_t victim = service_.SignalModel("a", SIGKILL);
  ASSERT_GT(victim, 0);
  a.Join();
  EXPECT_TRUE(a.done()) << a.error_code();
  EXPECT_EQ(a.content(), expected_a);
  b.Join();
  EXPECT_TRUE(b.done());
  EXPECT_EQ(b.content(), expected_b);
  // The death was external and counts for nothing.
  EXPECT_NE(service_.ModelPid("a"), victim);
  EXPECT_EQ(service_.FrontendPid(), frontend);
  EXPECT_NE(service_.Model("a").dump().find("external"), std::string::npos);
}

TEST_F(CrashTest, AnUnstreamedChatSurvivesItsWorker) {
  const Json body = LongChatBody(150, {{"model", "a"}});
  const std::string expected = Undisturbed(body);
  Answer answer;
  std::thread chat([&] { answer = Chat(service_.url(), body); });
  ASSERT_TRUE(Eventually([&] { return service_.Model("a")["running"] == 1; }));
  const pid_t victim = service_.SignalModel("a", SIGKILL);
  chat.join();
  EXPECT_GT(victim, 0);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.content(), expected);
}

TEST_F(CrashTest, ACrashCountsAndIsToldInPsAndItsSuspectGoesOn) {
  const Json body = LongChatBody(150, {{"model", "a"}});
  const std::string expected = Undisturbed(body);
  Stream a(service_.url(), body);
  ASSERT_TRUE(a.AwaitChunks(3));
  ASSERT_GT(service_.SignalModel("a", SIGSEGV), 0);
  a.Join();
  EXPECT_TRUE(a.done()) << a.error_code();
  EXPECT_EQ(a.content(), expected);
  const Json model = service_.Model("a");
  EXPECT_EQ(model["deaths"], 1);
  EXPECT_NE(model["last_death"].dump().find("crash"), std::string::npos) << model;
}

TEST_F(CrashTest, AStoppedWorkerIsAHangAndItsStreamGoesOn) {
  const Json body = LongChatBody(150, {{"model", "a"}});
  const std::string expected = Undisturbed(body);
  Stream a(service_.url(), body);
  ASSERT_TRUE(a.AwaitChunks(3));
  const pid_t victim = service_.SignalModel("a", SIGSTOP);
  ASSERT_GT(victim, 0);
  // The other model goes on meanwhile.
  EXPECT_EQ(Chat(service_.url(), ChatBody("hi", {{"model", "b"}})).status, 200);
  a.Join();
  EXPECT_TRUE(a.done()) << a.error_code();
  EXPECT_EQ(a.content(), expected);
  EXPECT_NE(service_.ModelPid("a"), victim);
  EXPECT_NE(service_.Model("a")["last_death"].dump().find("hang"), std::string::npos);
  EXPECT_FALSE(Alive(victim));
}

TEST_F(CrashTest, TheFrontendIsReplacedAndConnectionsQueue) {
  Stream a(service_.url(), LongChatBody(1900, {{"model", "a"}}));
  ASSERT_TRUE(a.AwaitChunks(3));
  const pid_t victim = service_.FrontendPid();
  const pid_t worker = service_.ModelPid("a");
  ASSERT_GT(victim, 0);
  kill(victim, SIGKILL);
  a.Join();
  EXPECT_FALSE(a.done());
  // At once: the listening socket is the supervisor's, so this waits instead of being refused.
  const Answer answer = Chat(service_.url(), ChatBody("What is 2+2?", {{"model", "b"}}));
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_NE(service_.FrontendPid(), victim);
  EXPECT_EQ(service_.ModelPid("a"), worker) << "workers outlive a frontend";
  EXPECT_TRUE(Eventually([&] { return service_.Model("a")["running"] == 0; }))
      << "a lost client's generation stops";
  EXPECT_EQ(Chat(service_.url(), ChatBody("hi", {{"model", "a"}})).status, 200);
}

TEST_F(CrashTest, TheSupervisorsDeathEndsAllAndTheNextStartWorks) {
  Stream a(service_.url(), LongChatBody(1900, {{"model", "a"}}));
  ASSERT_TRUE(a.AwaitChunks(3));
  const std::vector<pid_t> children = {service_.FrontendPid(), service_.ModelPid("a"),
                                       service_.ModelPid("b")};
  service_.Signal(SIGKILL);
  ASSERT_TRUE(service_.AwaitExit());
  for (const pid_t child : children)
    EXPECT_TRUE(Eventually([&] { return !Alive(child); }, 20)) << child;
  a.Join();
  service_.StartReady(2);
  EXPECT_EQ(Chat(service_.url(), ChatBody("hi", Json::object())).status, 200);
}

TEST_F(CrashTest, RandomKillsDuringStreamsNeverStopTheService) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const Json body = LongChatBody(40, Json::object());
  const std::string expected = Undisturbed(body);
  for (int round = 0; round < 12; ++round) {
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < 4; ++i)
      streams.push_back(std::make_unique<Stream>(
          service_.url(), LongChatBody(40, {{"model", i % 2 == 0 ? "a" : "b"}})));
    streams[random() % 4]->AwaitChunks(1 + static_cast<int>(random() % 20));
    const int choice = static_cast<int>(random() % 3);
    const pid_t victim = choice == 0   ? service_.FrontendPid()
                         : choice == 1 ? service_.ModelPid("a")
                                       : service_.ModelPid("b");
    if (victim > 0) kill(victim, SIGKILL);
    for (auto& stream : streams) {
      stream->Join();
      // Finished, or ended with an error that says so; never silently cut.
      EXPECT_TRUE(stream->done() || !stream->error_code().empty() ||
                  !stream->transport_error().empty())
          << "status " << stream->status() << ", content " << stream->content();
      // A worker's death is not seen at all.
      EXPECT_TRUE(choice == 0 || stream->done()) << stream->error_code();
      if (stream->done()) {
        EXPECT_EQ(stream->finish_reason(), "length");
        EXPECT_EQ(stream->content(), expected);
      }
    }
    for (const char* model : {"a", "b"}) {
      const Answer answer = Chat(service_.url(), ChatBody("What is 2+2?", {{"model", model}}));
      EXPECT_EQ(answer.status, 200) << "round " << round << ": " << answer.body;
    }
    if (HasFailure()) break;
  }
  EXPECT_TRUE(Alive(service_.pid()));
}

}  // namespace
}  // namespace perdure::process_tests
