// A turn and its end: the client is told of the end when the turn is stored, or cannot be.
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

class SnapshotEndTest : public SnapshotTest {
 protected:
  SnapshotEndTest() { Boot(128); }
};

// --- Waiting -----------------------------------------------------------------------------------

TEST_F(SnapshotEndTest, TheEndWaitsForTheCommitAndEventsDoNot) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  EXPECT_EQ(Answer(submit.rid).size(), 40u) << "what was drawn is sent";
  EXPECT_FALSE(HasEnded(submit.rid));
  EXPECT_EQ(generator_->live(), 1u) << "a worker that drains waits for it";
  generator_->TakeAnswers();
  EXPECT_FALSE(HasEnded(submit.rid)) << "nothing is done yet";
  DeliverTurn();
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_TRUE(disk_.HasTurn(submit.rid));
  ExpectNothingHeld();
}

TEST_F(SnapshotEndTest, OthersGoOnMeanwhile) {
  const auto first = Ask(Text(100, 1), 40), second = Ask(Text(100, 2), 80);
  Submit(first);
  Submit(second);
  for (int i = 0; i < 1000 && disk_.turn_jobs() == 0; ++i) generator_->Step();
  const size_t before = Answer(second.rid).size();
  EXPECT_LT(before, 80u);
  Steps();
  EXPECT_EQ(Answer(second.rid).size(), 80u);
  // One that comes now is answered too.
  const auto third = Ask(Text(50, 3), 10);
  Submit(third);
  Steps();
  EXPECT_EQ(Answer(third.rid).size(), 10u);
  EXPECT_FALSE(HasEnded(first.rid));
  Deliver();
  for (const auto rid : {first.rid, second.rid, third.rid}) EXPECT_TRUE(Persisted(rid));
}

TEST_F(SnapshotEndTest, ADiskThatRefusesATurnIsNoErrorOfTheRequest) {
  disk_.fails_turns = true;
  const auto rid = Say(Text(100, 1), 40);
  EXPECT_FALSE(Persisted(rid));
  EXPECT_FALSE(sink_[rid].failed);
  // It is stored later, and nothing is sent of that.
  disk_.fails_turns = false;
  disk_.RetryTurns();
  generator_->TakeAnswers();
  EXPECT_TRUE(disk_.HasTurn(rid));
  // What was stored late is found by its name.
  const Ids history = History(rid);
  Reboot();
  EXPECT_GT(FromDisk(Say(history + Text(20, 2), 10)), 0);
}

TEST_F(SnapshotEndTest, WithoutADiskNothingIsWaitedFor) {
  options_.persistence = nullptr;
  StartWith(64);
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  EXPECT_FALSE(Persisted(submit.rid));
  EXPECT_EQ(disk_.jobs(), 0u);
  EXPECT_FALSE(generator_->HasUpkeep());
}

TEST_F(SnapshotEndTest, EachChoiceEndsWithItsOwnTurn) {
  auto submit = Ask(Text(100, 1), 40);
  submit.request.choices = 3;
  Submit(submit);
  Steps();
  ASSERT_EQ(disk_.turn_jobs(), 3u);
  for (int done = 0; done < 3; ++done) {
    for (int choice = 0; choice < 3; ++choice)
      EXPECT_EQ(HasEnded(submit.rid, disk_.given_turns[static_cast<size_t>(choice)].turn.choice),
                choice < done);
    EXPECT_EQ(generator_->live(), 1u);
    DeliverTurn();
  }
  EXPECT_EQ(generator_->live(), 0u);
  EXPECT_EQ(disk_.conversations.size(), 3u) << "the first answer's, and two branches";
  for (int choice = 0; choice < 3; ++choice) EXPECT_TRUE(Persisted(submit.rid, choice));
}

TEST_F(SnapshotEndTest, ChoicesBeyondThoseRememberedEndAtOnce) {
  auto submit = Ask(Text(40, 1), 5);
  submit.request.choices = limits::kChoicesRemembered + 1;
  Submit(submit);
  Steps();
  EXPECT_EQ(disk_.turn_jobs(), static_cast<size_t>(limits::kChoicesRemembered));
  EXPECT_FALSE(Persisted(submit.rid, limits::kChoicesRemembered));
  EXPECT_FALSE(HasEnded(submit.rid, 0));
  Deliver();
  EXPECT_TRUE(Persisted(submit.rid, 0));
}

TEST_F(SnapshotEndTest, ACancelWhileItWaitsIsTheLastWord) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  generator_->Cancel(submit.rid);
  sink_.closed[submit.rid] = true;
  EXPECT_EQ(generator_->live(), 0u);
  Deliver();
  EXPECT_TRUE(disk_.HasTurn(submit.rid)) << "the answer was whole: it is part of the conversation";
  ExpectNothingHeld();
}

TEST_F(SnapshotEndTest, AFrontendThatIsGoneLeavesNothing) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  generator_->CancelAll();
  sink_.closed[submit.rid] = true;
  Deliver();
  ExpectNothingHeld();
}

TEST_F(SnapshotEndTest, ACancelledAnswerIsNoTurn) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  for (int i = 0; i < 10; ++i) generator_->Step();
  generator_->Cancel(submit.rid);
  Run();
  EXPECT_TRUE(disk_.given_turns.empty());
}

TEST_F(SnapshotEndTest, TheEndWaitsForCreditToo) {
  auto submit = Ask(Text(100, 1), 40);
  submit.credit_bytes = 0;
  Submit(submit);
  // Byte by byte: the last event is drawn and not sent.
  for (int i = 0; i < 20'000 && disk_.turn_jobs() == 0; ++i) {
    generator_->Credit(submit.rid, 1);
    clock_us += 1000;
    if (generator_->HasWork()) generator_->Step();
  }
  ASSERT_EQ(disk_.turn_jobs(), 1u);
  Deliver();
  EXPECT_LT(Answer(submit.rid).size(), 40u);
  EXPECT_FALSE(HasEnded(submit.rid)) << "behind its events";
  generator_->Credit(submit.rid, 1 << 20);
  EXPECT_EQ(Answer(submit.rid).size(), 40u);
  EXPECT_TRUE(Persisted(submit.rid));
}

// --- What is stored ----------------------------------------------------------------------------

TEST_F(SnapshotEndTest, ATurnHasAllThatWasSaid) {
  const Json messages = {{{"role", "system"}, {"content", "Be brief."}}, Question("Why?")};
  auto submit = AskChat(messages, 20, Quantized(8));
  submit.request.user = "ada";
  submit.request.tenant = "one";
  now_ms_ += 5000;
  Say(submit);
  ASSERT_EQ(disk_.given_turns.size(), 1u);
  const auto& [owner, turn] = disk_.given_turns[0];
  EXPECT_EQ(owner.user, "ada");
  EXPECT_FALSE(owner.named);
  EXPECT_EQ(owner.id, Ticket(submit.rid).conversation_id);
  EXPECT_EQ(turn.unix_ms, now_ms_);
  EXPECT_EQ(turn.ids, History(submit.rid));
  EXPECT_EQ(turn.prompt_tokens, sink_[submit.rid].accepted->prompt_ids.size());
  EXPECT_EQ(turn.finish, static_cast<uint8_t>(protocol::FinishReason::kLength));
  EXPECT_EQ(turn.schedule, Ticket(submit.rid).cache);
  EXPECT_EQ(turn.fingerprint, options_.fingerprint);
  EXPECT_EQ(turn.numerics, options_.numerics);
  ASSERT_EQ(turn.messages.size(), 3u);
  EXPECT_EQ(Json::parse(turn.messages[0]), messages[0]);
  EXPECT_EQ(Json::parse(turn.messages[1]), messages[1]);
  EXPECT_EQ(Json::parse(turn.messages[2])["content"], sink_[submit.rid].choices[0].text);
  EXPECT_EQ(turn.message_hashes[0], 0u) << "system messages have none of their own";
  EXPECT_NE(turn.message_hashes[1], 0u);
  EXPECT_NE(turn.message_hashes[2], 0u);
  for (size_t i = 0; i < turn.ids.size(); ++i) EXPECT_EQ(turn.drawn[i], i >= turn.prompt_tokens);
}

TEST_F(SnapshotEndTest, WhatIsNotRememberedIsNotStored) {
  options_.conversations.auto_detect = false;
  Boot(64);
  EXPECT_FALSE(Persisted(Say(Text(100, 1), 20)));
  EXPECT_TRUE(Persisted(Say(AskIn("mine", Text(100, 2), 20))));
  EXPECT_EQ(disk_.conversations.size(), 1u);
}

TEST_F(SnapshotEndTest, TurnsOfAConversationAreStoredUnderOneName) {
  Json messages = Json::array({Question(Letters(60, 1))});
  std::string id;
  for (int turn = 1; turn <= 3; ++turn) {
    const auto submit = AskChat(messages, 20);
    Say(submit);
    if (turn == 1) id = Ticket(submit.rid).conversation_id;
    EXPECT_EQ(disk_.given_turns.back().owner.id, id);
    messages = With(Heard(messages, submit.rid), Question(Letters(30, turn + 1)));
  }
  ASSERT_EQ(disk_.conversations.size(), 1u);
  EXPECT_EQ(disk_.conversations.begin()->second.told.turns, 3u);
}

// --- Not to be stored --------------------------------------------------------------------------

TEST_F(SnapshotEndTest, WhatIsNotToBeStoredIsNeverGivenAway) {
  auto submit = Ask(Text(100, 1), 40);
  submit.request.store = false;
  Submit(submit);
  Steps();
  EXPECT_FALSE(Persisted(submit.rid)) << "its end waits for nothing";
  EXPECT_FALSE(generator_->HasUpkeep());
  // Nor in need of memory.
  StartWith(16);
  auto private_one = Ask(Text(100, 1), 40);
  private_one.request.store = false;
  Say(private_one);
  for (int seed = 2; seed < 8; ++seed) {
    auto other = Ask(Text(300, seed), 40);
    other.request.store = false;
    Say(other);
  }
  EXPECT_GT(store_->evicted(), 0u);
  generator_->KeepAll(1000);
  EXPECT_TRUE(disk_.given_turns.empty());
  EXPECT_TRUE(disk_.given_pages.empty());
  EXPECT_TRUE(disk_.touched.empty());
}

TEST_F(SnapshotEndTest, WhatIsNotToBeStoredIsNotGivenAwayByASuccessorEither) {
  auto submit = Ask(Text(100, 1), 40);
  submit.request.store = false;
  Say(submit);
  DieWithDisk();
  ASSERT_EQ(Conversations().size(), 1u) << "it is remembered";
  Run();
  EXPECT_FALSE(generator_->HasUpkeep());
  // One that runs at the death, too.
  auto running = Ask(Text(100, 2), 40);
  running.request.store = false;
  Submit(running);
  for (int i = 0; i < 20; ++i) generator_->Step();
  const auto resume = Rest(running, Ticket(running.rid), Answer(running.rid));
  DieWithDisk();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_FALSE(Persisted(running.rid));
  generator_->KeepAll(1000);
  EXPECT_TRUE(disk_.given_turns.empty());
  EXPECT_TRUE(disk_.given_pages.empty());
}

TEST_F(SnapshotEndTest, ATurnThatIsNotToBeStoredLeavesTheStoredOnesAsTheyAre) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  EXPECT_TRUE(Persisted(first));
  const size_t turns = disk_.given_turns.size(), pages = disk_.given_pages.size();
  auto second = AskIn("mine", History(first) + Text(60, 2), 40);
  second.request.store = false;
  Say(second);
  EXPECT_FALSE(Persisted(second.rid));
  EXPECT_EQ(disk_.given_turns.size(), turns);
  EXPECT_EQ(disk_.given_pages.size(), pages);
  const Ids history = History(second.rid);
  Reboot();
  const auto third = AskIn("mine", history + Text(20, 3), 10);
  Say(third);
  EXPECT_EQ(FromDisk(third.rid), 139) << "what was stored";
  EXPECT_EQ(Answer(third.rid), Cold(third));
}

// --- Deaths ------------------------------------------------------------------------------------

TEST_F(SnapshotEndTest, AWorkerThatDiesBetweenCommitAndEndCommitsOnce) {
  const auto submit = AskIn("mine", Text(100, 1), 40);
  Submit(submit);
  Steps();
  const auto resume = Rest(submit, Ticket(submit.rid), Answer(submit.rid));
  DieWithDisk(1);
  EXPECT_TRUE(disk_.HasTurn(submit.rid));
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Steps();
  EXPECT_FALSE(HasEnded(submit.rid));
  Deliver();
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_EQ(computed_, 0u);
  EXPECT_EQ(disk_.conversations.size(), 1u);
  EXPECT_EQ(disk_.conversations.begin()->second.turns.size(), 1u);
}

TEST_F(SnapshotEndTest, AWorkerThatDiesBeforeTheCommitLeavesItToTheNextOne) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  const auto resume = Rest(submit, Ticket(submit.rid), Answer(submit.rid));
  DieWithDisk(0);
  EXPECT_FALSE(disk_.HasTurn(submit.rid));
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_EQ(disk_.given_turns.back().turn.ids, History(submit.rid));
  EXPECT_EQ(disk_.given_turns.back().owner.id, resume.ticket.conversation_id);
}

TEST_F(SnapshotEndTest, AResumedTurnIsPartOfItsConversationThoughMemoryIsLost) {
  const Json messages = Json::array({Question(Letters(60, 1))});
  const auto first = AskChat(messages, 30);
  Say(first);
  auto second = AskChat(With(Heard(messages, first.rid), Question("And?")), 30);
  const std::string id = Ticket(first.rid).conversation_id;
  Submit(second);
  for (int i = 0; i < 20; ++i) generator_->Step();
  EXPECT_EQ(Ticket(second.rid).conversation_id, id);
  second.request.prompt_ids = sink_[second.rid].accepted->prompt_ids;
  const auto resume = Rest(second, Ticket(second.rid), Answer(second.rid));
  Reboot();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_TRUE(Persisted(second.rid));
  EXPECT_EQ(disk_.given_turns.back().owner.id, id) << "as its ticket says";
  EXPECT_EQ(disk_.conversations.size(), 1u);
}

TEST_F(SnapshotEndTest, NothingIsReadForAnAnswerThatIsWhole) {
  const auto submit = AskIn("mine", Text(100, 1), 40);
  Submit(submit);
  Run();
  const auto resume = Rest(submit, Ticket(submit.rid), Answer(submit.rid));
  Reboot();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_EQ(computed_, 0u);
  EXPECT_TRUE(disk_.fetched_pages.empty());
  ExpectNothingHeld();
}

}  // namespace
}  // namespace perdure::worker
