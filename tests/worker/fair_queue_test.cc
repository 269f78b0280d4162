#include "worker/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

namespace perdure::worker {
namespace {

class FairQueueTest : public testing::Test {
 protected:
  std::optional<SequenceId> Next() const {
    return queue_.Next([this](SequenceId id) { return !blocked_.contains(id); }, places_);
  }
  // Gives so many places, which are left at once, one after the other.
  std::vector<SequenceId> Serve(int count) {
    std::vector<SequenceId> served;
    for (; count > 0; --count) {
      const auto next = Next();
      if (!next) break;
      const uint64_t client = *next / 100;
      served.push_back(*next);
      queue_.Remove(*next, client);
      queue_.Touch(client);
    }
    return served;
  }
  // A client's sequences have its hundred.
  void Add(SequenceId id) { queue_.Add(id, id / 100); }

  FairQueue queue_;
  std::set<SequenceId> blocked_;
  std::map<uint64_t, int> places_;
};

TEST_F(FairQueueTest, NobodyWaits) {
  EXPECT_FALSE(Next());
  queue_.Touch(1);
  EXPECT_EQ(queue_.size(), 0u);
}

TEST_F(FairQueueTest, OneClientsComeInTheirOrder) {
  for (const SequenceId id : {101u, 102u, 103u}) Add(id);
  EXPECT_EQ(Serve(9), (std::vector<SequenceId>{101, 102, 103}));
}

TEST_F(FairQueueTest, ClientsTakeTurns) {
  for (const SequenceId id : {101u, 102u, 103u, 201u, 202u, 301u}) Add(id);
  EXPECT_EQ(Serve(9), (std::vector<SequenceId>{101, 201, 301, 102, 202, 103}));
}

TEST_F(FairQueueTest, WhoHasFewerPlacesIsFirst) {
  for (const SequenceId id : {101u, 201u, 301u}) Add(id);
  places_ = {{1, 2}, {2, 1}, {3, 1}};
  EXPECT_EQ(Next(), 201u);
  places_[2] = 3;
  EXPECT_EQ(Next(), 301u);
  places_.erase(1);
  EXPECT_EQ(Next(), 101u);
}

TEST_F(FairQueueTest, NewOnesDoNotKeepAnotherOneWaiting) {
  Add(101);
  Add(102);
  EXPECT_EQ(Serve(1), (std::vector<SequenceId>{101}));
  // Each comes for the first time, one after the other, and has had nothing yet.
  for (SequenceId id = 201; id < 900; id += 100) {
    Add(id);
    if (id == 201) {
      EXPECT_EQ(Serve(1), (std::vector<SequenceId>{102}));
      Add(103);
    }
  }
  EXPECT_EQ(Serve(2), (std::vector<SequenceId>{201, 103}));
}

TEST_F(FairQueueTest, ThoseThatMayNotRunArePassedOver) {
  for (const SequenceId id : {101u, 102u, 201u}) Add(id);
  blocked_ = {101};
  EXPECT_EQ(Next(), 102u);
  blocked_ = {101, 102};
  EXPECT_EQ(Next(), 201u);
  blocked_ = {101, 102, 201};
  EXPECT_FALSE(Next());
  queue_.Remove(101, 1);
  EXPECT_EQ(queue_.size(), 2u);
}

}  // namespace
}  // namespace perdure::worker
