// One client's requests beside another's, with real processes: neither a model's queue nor its
// places go to the one that asks for the most.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <deque>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/http_client.h"
#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;

// Requests of one client that all go on until they are let go.
class Flood {
 public:
  Flood(const std::string& base_url, std::string key, int requests, const Json& body) {
    for (; requests > 0; --requests)
      threads_.emplace_back([this, base_url, key, text = DumpJson(body)] {
        const auto response = cli::Perform(
            cli::HttpRequest{.url = base_url + "/v1/chat/completions",
                             .body = text,
                             .api_key = key,
                             .timeout_s = 180,
                             .on_data = [this](std::string_view) { return !let_go_; }});
        if (!response || response->status != 200) return;
        if (!let_go_) ++ended_;
      });
  }
  ~Flood() {
    let_go_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  int ended() const { return ended_; }

 private:
  std::atomic<bool> let_go_{false};
  std::atomic<int> ended_{0};
  std::deque<std::thread> threads_;
};

class FairnessTest : public testing::Test {
 protected:
  static Json Long(const std::string& model) {
    return LongChatBody(400, {{"model", model}, {"stream", true}});
  }
  Answer Ask(const std::string& key, const std::string& model) {
    return PostWithKey(service_.url() + "/v1/chat/completions",
                       ChatBody("What is 2+2?", {{"model", model}}), key);
  }
  // Of its sequences, running and waiting.
  bool AwaitRequests(const std::string& model, int count) {
    return Eventually([&] {
      const Json seen = service_.Model(model);
      return seen["running"].get<int>() + seen["waiting"].get<int>() >= count;
    });
  }

  Service service_;
};

TEST_F(FairnessTest, AFloodOfLongRequestsDoesNotKeepAShortOneWaiting) {
  service_.WriteConfig(
      "[server]\napi_keys = [\"flooder\", \"other\"]\n"
      "[models.nano]\nmax_sequences = 2\n");
  service_.StartReady();
  const Answer alone = Ask("other", "nano");
  ASSERT_EQ(alone.status, 200) << alone.body;
  Flood flood(service_.url(), "flooder", 40, Long("nano"));
  ASSERT_TRUE(AwaitRequests("nano", 30));
  const int before = flood.ended();
  const Answer beside = Ask("other", "nano");
  const int meanwhile = flood.ended() - before;
  EXPECT_EQ(beside.status, 200) << beside.body;
  EXPECT_EQ(beside.content(), alone.content());
  // It has the first place that is left: of two, both may be left at about the same time.
  EXPECT_LE(meanwhile, 4) << "of 40";
  EXPECT_TRUE(Eventually([&] { return flood.ended() > before + meanwhile; }))
      << "and the others go on";
}

TEST_F(FairnessTest, AFullQueueIsOneModelsAndOneClients) {
  service_.WriteConfig(
      "[server]\napi_keys = [\"flooder\", \"other\"]\n"
      "[models.a]\nsource = \"nano\"\nqueue_max = 4\n[models.b]\nsource = \"nano\"\n");
  service_.StartReady(2);
  const pid_t pid = service_.ModelPid("a");
  Json endless = Long("a");
  endless["max_tokens"] = 1500;
  Flood flood(service_.url(), "flooder", 4, endless);
  ASSERT_TRUE(AwaitRequests("a", 4));
  const Answer full = Ask("flooder", "a");
  EXPECT_EQ(full.status, 503) << full.body;
  EXPECT_EQ(full.error_code(), "queue_full");
  EXPECT_THAT(full.error_message(), HasSubstr("The queue of a is full"));
  EXPECT_THAT(full.error_message(), HasSubstr("models.a.queue_max is 4"));
  EXPECT_EQ(Ask("other", "a").status, 200);
  EXPECT_EQ(Ask("flooder", "b").status, 200);
  // A reload takes effect at once, and disturbs nothing.
  service_.WriteConfig(
      "[server]\napi_keys = [\"flooder\", \"other\"]\n"
      "[models.a]\nsource = \"nano\"\nqueue_max = 8\n[models.b]\nsource = \"nano\"\n");
  service_.Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] { return Ask("flooder", "a").status == 200; }));
  EXPECT_EQ(service_.ModelPid("a"), pid);
}

}  // namespace
}  // namespace perdure::process_tests
