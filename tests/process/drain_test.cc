// An end that load balancers hear of first, with real processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;

TEST(DrainDelay, AllIsServedWhileReadySaysNo) {
  Service service;
  service.WriteConfig(
      "[server]\ndrain_delay_s = 600\n[models.a]\nsource = \"nano\"\ndefault = true\n"
      "[models.b]\nsource = \"nano\"\npreload = false\n");
  service.StartReady();
  Stream running(service.url(), LongChatBody(200, {}));
  ASSERT_TRUE(running.AwaitChunks(1));
  service.Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] { return Get(service.url() + "/ready").status == 503; }));
  EXPECT_EQ(Get(service.url() + "/ready").body["status"], "draining");
  EXPECT_EQ(Get(service.url() + "/ready?model=a").status, 503);
  EXPECT_EQ(Get(service.url() + "/health").status, 200);
  EXPECT_EQ(service.Ps()["supervisor"]["state"], "stopping");
  EXPECT_EQ(Chat(service.url(), ChatBody("Hello", {{"max_tokens", 2}})).status, 200);
  // Also of a model that is loaded for it, and after a death.
  const Json of_b = ChatBody("Hello", {{"max_tokens", 2}, {"model", "b"}});
  EXPECT_EQ(Chat(service.url(), of_b).status, 200);
  service.SignalModel("b", SIGKILL);
  EXPECT_EQ(Chat(service.url(), of_b).status, 200);
  running.Join();
  EXPECT_TRUE(running.done());
  EXPECT_FALSE(service.AwaitExit(0)) << "it has ten minutes";
  service.Signal(SIGTERM);
  EXPECT_EQ(service.AwaitExit(), 0) << "a second signal ends all at once";
}

TEST(DrainDelay, ThenItDrainsAsEver) {
  Service service;
  service.WriteConfig("[server]\ndrain_delay_s = 1\n[supervisor]\nisa = \"scalar\"\n");
  service.StartReady();
  Stream running(service.url(), LongChatBody(150, {}));
  ASSERT_TRUE(running.AwaitChunks(1));
  const auto begin = std::chrono::steady_clock::now();
  service.Signal(SIGTERM);
  EXPECT_EQ(service.AwaitExit(), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
  running.Join();
  EXPECT_TRUE(running.done()) << running.error_code();
  EXPECT_THAT(service.Log(), HasSubstr("all is served for 1 s more"));
  EXPECT_THAT(service.Log(), HasSubstr("drained"));
}

TEST(DrainDelay, AnInterruptDoesNotWait) {
  Service service;
  service.WriteConfig("[server]\ndrain_delay_s = 600\n");
  service.StartReady();
  service.Signal(SIGINT);
  EXPECT_EQ(service.AwaitExit(), 0);
}

}  // namespace
}  // namespace perdure::process_tests
