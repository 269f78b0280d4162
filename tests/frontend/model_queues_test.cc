#include "frontend/model_queues.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class ModelQueuesTest : public testing::Test {
 protected:
  ModelQueuesTest() { settings_.queue_max = 4; }
  // As many of them as are let in.
  int Join(const std::string& model, uint64_t client, int count) {
    int joined = 0;
    for (; count > 0; --count) {
      if (!queues_.Check(model, client, settings_, 0)) continue;
      queues_.Join(model, client);
      ++joined;
    }
    return joined;
  }
  Error Refusal(const std::string& model, uint64_t client, int retry_after_s = 0) const {
    const Status status = queues_.Check(model, client, settings_, retry_after_s);
    EXPECT_FALSE(status);
    return status ? Error{} : status.error();
  }

  protocol::FrontendSettings settings_;
  ModelQueues queues_;
};

TEST_F(ModelQueuesTest, OneClientMayHaveAllOfAQueue) {
  EXPECT_EQ(Join("a", 1, 9), 4);
  const Error full = Refusal("a", 1, 7);
  EXPECT_EQ(full.code, ErrorCode::queue_full);
  EXPECT_EQ(full.retry_after_s, 7);
  EXPECT_EQ(
      full.message,
      "The queue of a is full: 4 requests are under way, and server.queue_max is 4. Try again "
      "later, or raise server.queue_max.");
  queues_.Leave("a", 1);
  EXPECT_EQ(Join("a", 1, 9), 1);
}

TEST_F(ModelQueuesTest, AModelsQueueIsItsOwn) {
  settings_.model_limits = {{"b", 2, std::nullopt}, {"c", std::nullopt, 5}};
  EXPECT_EQ(Join("a", 1, 9), 4);
  EXPECT_EQ(Join("b", 1, 9), 2);
  EXPECT_EQ(Join("c", 1, 9), 4);
  EXPECT_THAT(Refusal("b", 1).message, HasSubstr("models.b.queue_max is 2"));
  EXPECT_THAT(Refusal("c", 1).message, HasSubstr("server.queue_max is 4"));
  // A reload counts at once.
  settings_.model_limits[0].queue_max = 3;
  EXPECT_EQ(Join("b", 1, 9), 1);
}

TEST_F(ModelQueuesTest, AFullQueueKeepsNobodyOutWhoHasLessThanAShare) {
  EXPECT_EQ(Join("a", 1, 9), 4);
  EXPECT_EQ(Join("a", 2, 9), 2) << "half of it";
  const Error full = Refusal("a", 2);
  EXPECT_EQ(full.code, ErrorCode::queue_full);
  EXPECT_THAT(full.message, HasSubstr("6 requests are under way, 2 of them this client's, whose "
                                      "share is 2 while others wait"));
  EXPECT_EQ(Join("a", 3, 9), 1) << "a third";
  EXPECT_EQ(Join("a", 1, 9), 0);
  // Who had all of it comes back to its share.
  for (int i = 0; i < 3; ++i) queues_.Leave("a", 1);
  EXPECT_EQ(Join("a", 1, 9), 0) << "the others are enough to fill it";
  queues_.Leave("a", 2);
  EXPECT_EQ(Join("a", 1, 9), 1);
}

TEST_F(ModelQueuesTest, ManyClientsTogetherAreBounded) {
  int joined = 0;
  for (uint64_t client = 1; client <= 100; ++client) joined += Join("a", client, 1);
  EXPECT_EQ(joined, 4 * static_cast<int>(limits::kQueueTimes));
  for (uint64_t client = 1; joined > 0; ++client, --joined) queues_.Leave("a", client);
  EXPECT_EQ(Join("a", 200, 9), 4);
}

TEST(HandingOrder, ClientsTakeTurns) {
  EXPECT_THAT(
      HandingOrder({{31, 3, 6}, {11, 1, 1}, {12, 1, 2}, {21, 2, 4}, {13, 1, 3}, {22, 2, 5}}),
      ElementsAre(11, 21, 31, 12, 22, 13));
  EXPECT_THAT(HandingOrder({}), ElementsAre());
}

TEST(HandingOrder, StreamsThatHadBegunComeFirst) {
  EXPECT_THAT(
      HandingOrder({{21, 2, 1}, {12, 1, 3, true}, {11, 1, 2, true}, {22, 2, 4}, {13, 1, 5}}),
      ElementsAre(11, 12, 21, 13, 22));
}

}  // namespace
}  // namespace perdure::frontend
