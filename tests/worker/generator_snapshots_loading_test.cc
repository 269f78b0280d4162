// Requests whose conversation or pages are being read from the disk, and what may happen to them
// meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

// A machine that has begun anew, and a conversation on its disk.
class SnapshotLoadingTest : public SnapshotTest {
 protected:
  void Prepare(PageIndex pages = 256, const CacheChoice& cache = {}) {
    generator_.reset();
    disk_ = MemoryPersistence();
    Boot(256);
    history_ = History(Say(AskIn("mine", Text(100, 1), 40, cache)));
    pages_ = pages;
    Reboot();
    disk_.given_turns.clear();
    disk_.given_pages.clear();
  }
  protocol::Submit Next(int seed = 2) { return AskIn("mine", history_ + Text(20, seed), 20); }

  // Up to the reading of its pages; so many of them are read.
  void LoadPages(const protocol::Submit& submit, size_t read) {
    Submit(submit);
    DeliverTurn();
    ASSERT_EQ(disk_.page_jobs(), 5u);
    for (size_t i = 0; i < read; ++i) DeliverPage();
  }
  Ids history_;
};

// --- Order -------------------------------------------------------------------------------------

TEST_F(SnapshotLoadingTest, NothingIsSentBeforeTheConversationIsRead) {
  Prepare();
  const auto next = Next();
  Submit(next);
  EXPECT_FALSE(sink_[next.rid].accepted);
  EXPECT_EQ(generator_->live(), 1u) << "a worker that drains waits for it";
  EXPECT_FALSE(generator_->HasWork());
  DeliverTurn();
  EXPECT_TRUE(sink_[next.rid].accepted);
  EXPECT_FALSE(generator_->HasWork()) << "its pages are read first";
  EXPECT_EQ(generator_->live(), 1u);
  while (disk_.page_jobs() > 0) DeliverPage();
  EXPECT_TRUE(generator_->HasWork());
  Run();
  EXPECT_EQ(FromDisk(next.rid), 139);
}

TEST_F(SnapshotLoadingTest, OthersAreComputedMeanwhile) {
  Prepare();
  const auto next = Next();
  LoadPages(next, 2);
  const auto other = Ask(Text(100, 9), 30);
  Submit(other);
  Steps();
  EXPECT_EQ(Answer(other.rid), Cold(other));
  EXPECT_TRUE(Answer(next.rid).empty());
  Run();
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotLoadingTest, TheSameRequestIdTwiceIsAFaultWhileItIsRead) {
  Prepare();
  const auto next = Next();
  Submit(next);
  EXPECT_FALSE(generator_->Submit(next));
  auto resume = Rest(next, {}, {});
  EXPECT_FALSE(generator_->Resume(resume));
  Run();
  EXPECT_TRUE(HasEnded(next.rid));
}

TEST_F(SnapshotLoadingTest, SeveralAtOnceGoOnWithTheSameConversation) {
  Prepare();
  const auto one = Next(2), two = Next(3), three = Next(4);
  for (const auto& submit : {one, two, three}) Submit(submit);
  Run();
  for (const auto& submit : {one, two, three}) {
    EXPECT_EQ(Answer(submit.rid), Cold(submit));
    EXPECT_LE(UsageOf(submit.rid).computed, 21 + kPage);
    EXPECT_TRUE(Persisted(submit.rid));
  }
  EXPECT_EQ(disk_.conversations.begin()->second.turns.size(), 4u);
  ExpectNothingHeld();
}

TEST_F(SnapshotLoadingTest, OfSeveralAtOnceThatAreRecognisedTheLaterOnesBranchOff) {
  Boot(256);
  const Json messages = Json::array({Question(Letters(100, 1))});
  const auto first = AskChat(messages, 40);
  Say(first);
  const Json heard = Heard(messages, first.rid);
  const std::string id = Ticket(first.rid).conversation_id;
  Reboot();
  const auto one = AskChat(With(heard, Question("And?")), 20);
  const auto other = AskChat(With(heard, Question("Why?")), 20);
  Submit(one);
  Submit(other);
  Run();
  EXPECT_EQ(Ticket(one.rid).conversation_id, id);
  EXPECT_NE(Ticket(other.rid).conversation_id, id);
  for (const auto& submit : {one, other}) EXPECT_EQ(Answer(submit.rid), Cold(submit));
  EXPECT_EQ(disk_.conversations.size(), 2u);
}

TEST_F(SnapshotLoadingTest, AnsweredInAnyOrderAllEndRight) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    SCOPED_TRACE(round);
    Prepare();
    std::vector<protocol::Submit> asked;
    for (int seed = 2; seed < 6; ++seed) asked.push_back(Next(seed));
    for (const auto& submit : asked) {
      Submit(submit);
      if (random() % 2 == 0 && disk_.DoAny(random)) generator_->TakeAnswers();
    }
    while (disk_.DoAny(random)) {
      generator_->TakeAnswers();
      if (random() % 2 == 0 && generator_->HasWork()) generator_->Step();
    }
    Run();
    for (const auto& submit : asked) EXPECT_EQ(Answer(submit.rid), Cold(submit));
    ExpectNothingHeld();
  }
}

// --- Ends from outside -------------------------------------------------------------------------

enum class Stage { kConversation, kPages, kSomePages, kLastPage };
enum class How { kCancel, kFrontendGone, kFailAll };

class SnapshotGivenUpTest : public SnapshotLoadingTest,
                            public testing::WithParamInterface<std::tuple<Stage, How>> {};

TEST_P(SnapshotGivenUpTest, LeavesNeitherReferenceNorClaim) {
  const auto [stage, how] = GetParam();
  Prepare();
  const auto next = Next();
  if (stage == Stage::kConversation) {
    Submit(next);
  } else {
    LoadPages(next, stage == Stage::kPages ? 0 : stage == Stage::kSomePages ? 2 : 4);
  }
  ASSERT_EQ(generator_->live(), 1u);
  if (how == How::kCancel) {
    generator_->Cancel(next.rid);
  } else if (how == How::kFrontendGone) {
    generator_->CancelAll();
  } else {
    generator_->FailAll(Error{ErrorCode::shutting_down, "it ends", {}, 0});
    ASSERT_TRUE(sink_[next.rid].failed);
  }
  sink_.closed[next.rid] = true;
  EXPECT_EQ(generator_->live(), 0u);
  EXPECT_EQ(store_->referenced(), disk_.page_jobs()) << "those that are being written to";
  EXPECT_EQ(Running(), 0);
  EXPECT_EQ(store_->hollow(), 0u) << "the way to pages that were not read";
  // What is answered now is nobody's.
  Deliver();
  EXPECT_EQ(store_->referenced(), 0u);
  // The conversation is as it was.
  last_rid_ = next.rid;
  const auto again = Next();
  Say(again);
  EXPECT_EQ(UsageOf(again.rid).computed, 21);
  EXPECT_EQ(Answer(again.rid), Cold(again));
  EXPECT_EQ(disk_.conversations.begin()->second.turns.size(), 2u);
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(All, SnapshotGivenUpTest,
                         testing::Combine(testing::Values(Stage::kConversation, Stage::kPages,
                                                          Stage::kSomePages, Stage::kLastPage),
                                          testing::Values(How::kCancel, How::kFrontendGone,
                                                          How::kFailAll)));

TEST_F(SnapshotLoadingTest, AnIdStartsAnewWhereItWasGivenUp) {
  Prepare();
  auto next = Next();
  LoadPages(next, 1);
  generator_->Cancel(next.rid);
  // The same id again, for something else: what was read for the old one is not its.
  auto other = Ask(Text(60, 5), 10);
  other.rid = next.rid;
  sink_ = RecordingSink();
  Submit(other);
  Run();
  EXPECT_EQ(Answer(other.rid), Cold(other));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, ADrainingWorkerFinishesWhatIsRead) {
  Prepare();
  const auto next = Next();
  Submit(next);
  generator_->StopAdmitting();
  Run();
  EXPECT_FALSE(sink_[next.rid].failed);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  EXPECT_EQ(generator_->live(), 0u);
}

TEST_F(SnapshotLoadingTest, AWorkerThatDiesWhileItReadsLeavesItToTheNextOne) {
  Prepare();
  const auto next = Next();
  LoadPages(next, 3);
  const auto resume = Rest(next, Ticket(next.rid), {});
  DieWithDisk();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_EQ(Answer(next.rid), Cold(next, resume.ticket.cache));
  EXPECT_LE(UsageOf(next.rid).computed, 21 + kPage);
  EXPECT_TRUE(Persisted(next.rid));
  ExpectNothingLeft();
}

// --- What cannot be read -----------------------------------------------------------------------

TEST_F(SnapshotLoadingTest, AConversationThatCannotBeReadBeginsAnew) {
  Prepare();
  disk_.loses_turns = true;
  const auto next = Next();
  Say(next);
  EXPECT_EQ(Ticket(next.rid).conversation_id, "mine") << "it is the client's name";
  EXPECT_EQ(Answer(next.rid), Cold(next));
  EXPECT_TRUE(Persisted(next.rid));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, AConversationWhosePagesHadNotComeWhenTheWorkerDiedIsReadAgain) {
  Prepare();
  LoadPages(Next(), 0);
  DieWithDisk();
  disk_.fetched_turns.clear();
  const auto again = Next();
  Say(again);
  EXPECT_THAT(disk_.fetched_turns, testing::ElementsAre("mine"))
      << "memory knows its name, and not what was said";
  EXPECT_EQ(UsageOf(again.rid).computed, 21);
  EXPECT_EQ(Answer(again.rid), Cold(again));
}

TEST_F(SnapshotLoadingTest, APageThatCannotBeReadIsComputed) {
  for (size_t lost = 0; lost < 5; ++lost) {
    SCOPED_TRACE(testing::Message() << "page " << lost);
    Prepare();
    size_t at = 0;
    disk_.on_fetch = [&](PageFetched* answer) {
      if (at++ == lost) answer->is_read = false;
    };
    const auto next = Next();
    Say(next);
    disk_.on_fetch = nullptr;
    EXPECT_EQ(FromDisk(next.rid), std::min<int>(139, static_cast<int>(lost) * kPage));
    EXPECT_EQ(Answer(next.rid), Cold(next));
    // It is stored again.
    const Ids history = History(next.rid);
    Reboot();
    const auto after = AskIn("mine", history + Text(20, 3), 20);
    Say(after);
    EXPECT_EQ(UsageOf(after.rid).computed, 21);
    ExpectNothingLeft();
  }
}

TEST_F(SnapshotLoadingTest, APageOfAWrongSizeIsComputedAndStoredAgain) {
  for (const int more : {-1, 1, 4096}) {
    SCOPED_TRACE(more);
    Prepare();
    for (auto& [hash, page] : disk_.pages) {
      if (page.page.position != 1) continue;
      page.data.resize(static_cast<size_t>(static_cast<int>(page.data.size()) + more));
      page.page.data_bytes = static_cast<uint32_t>(page.data.size());
    }
    Reboot();
    const auto next = Next();
    Say(next);
    EXPECT_EQ(FromDisk(next.rid), kPage);
    EXPECT_EQ(Answer(next.rid), Cold(next));
    EXPECT_TRUE(std::ranges::any_of(disk_.given_pages, [](const auto& page) {
      return page.position == 1;
    })) << "or it would be of no use for ever";
    ExpectNothingLeft();
  }
}

TEST_F(SnapshotLoadingTest, ADiskWithoutPagesIsNoError) {
  Prepare();
  disk_.on_fetch = [](PageFetched* answer) { answer->is_read = false; };
  const auto next = Next();
  Say(next);
  EXPECT_EQ(FromDisk(next.rid), 0);
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotLoadingTest, WhatIsReadMeanwhileByAnotherIsNotPutInTwice) {
  Prepare();
  const auto one = Next(2), other = Next(3);
  Submit(one);
  Submit(other);
  DeliverTurn();
  DeliverTurn();
  EXPECT_EQ(disk_.page_jobs(), 10u);
  while (disk_.page_jobs() > 0) DeliverPage();
  EXPECT_EQ(store_->used(), 5u);
  Run();
  for (const auto& submit : {one, other}) EXPECT_EQ(Answer(submit.rid), Cold(submit));
  ExpectNothingLeft();
}

// --- Little memory -----------------------------------------------------------------------------

TEST_F(SnapshotLoadingTest, WhereMemoryIsInUseTheRequestEndsRightAllTheSame) {
  Prepare(8);
  // Takes all of memory while the pages come.
  const auto large = Ask(Text(7 * kPage, 9), 20);
  const auto next = Next();
  Submit(next);
  Submit(large);
  for (int i = 0; i < 5; ++i) generator_->Step();
  Deliver();
  Run();
  EXPECT_FALSE(sink_[next.rid].failed);
  EXPECT_FALSE(sink_[large.rid].failed);
  EXPECT_EQ(Answer(large.rid), Cold(large));
  EXPECT_EQ(Answer(next.rid), Cold(next));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, WhatMemoryHasAlreadyStaysWhileTheRestIsRead) {
  Prepare(8);
  // Pages 0 and 1 are in memory, and older than others, which fill it.
  Say(AskIn("other", First(history_, 70), 5));
  Say(Ask(Text(5 * kPage - 10, 9), 8));
  disk_.fetched_pages.clear();
  const auto next = Next();
  Say(next);
  EXPECT_EQ(UsageOf(next.rid).computed, 21) << "what is missing is read, and nothing lost for it";
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotLoadingTest, MemoryIsAskedForWherePagesNeedMoreThanWasGranted) {
  size_t asked = 0;
  options_.grow_kv = [&] {
    ++asked;
    const uint64_t before = store_->limit_bytes();
    store_->SetLimit(before + 100);  // so little that more is asked for
    return store_->limit_bytes() > before;
  };
  Boot(256);
  const Ids history = History(Say(AskIn("mine", Text(32 * kPage, 1), 40)));
  Reboot();
  ASSERT_LT(store_->SetLimit(1), 32 * store_->page_bytes(shm::PageFormat::kFloat16));
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_GT(asked, 0u);
  EXPECT_GE(FromDisk(next.rid), 33 * kPage) << "but for what fills no page";
  EXPECT_EQ(Answer(next.rid), Cold(next));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, WhoNeedsMemoryThatIsBeingFilledWaitsForTheDisk) {
  Prepare(8);
  const auto next = Next(), other = Ask(Text(6 * kPage, 9), 8);
  LoadPages(next, 0);
  Submit(other);
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(generator_->HasWork());
    generator_->Step();
  }
  EXPECT_FALSE(HasEnded(other.rid)) << "neither refused nor done";
  Run();
  EXPECT_EQ(Answer(other.rid), Cold(other));
  EXPECT_EQ(Answer(next.rid), Cold(next));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, WhoGivesUpWhileItsPagesAreReadLeavesNothing) {
  Prepare(8);
  const auto next = Next(), other = Ask(Text(6 * kPage, 9), 8);
  LoadPages(next, 2);
  generator_->Cancel(next.rid);
  Say(other);
  EXPECT_EQ(Answer(other.rid), Cold(other));
  ExpectNothingLeft();
}

TEST_F(SnapshotLoadingTest, ManyConversationsInLittleMemoryEndRight) {
  Boot(256);
  std::vector<Ids> histories;
  for (int i = 0; i < 6; ++i)
    histories.push_back(History(Say(AskIn(std::to_string(i), Text(100, i), 40))));
  pages_ = 12;
  Reboot();
  std::vector<protocol::Submit> asked;
  for (int i = 0; i < 6; ++i)
    asked.push_back(AskIn(std::to_string(i), histories[static_cast<size_t>(i)] + Text(20, 9), 20));
  for (const auto& submit : asked) Submit(submit);
  Run();
  for (const auto& submit : asked) {
    ASSERT_TRUE(HasEnded(submit.rid));
    EXPECT_EQ(Answer(submit.rid), Cold(submit));
  }
  ExpectNothingLeft();
}

}  // namespace
}  // namespace perdure::worker
