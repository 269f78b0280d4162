// Conversations that are deleted, rewound or too old: what is out of reach at once, what is left of
// them in memory and on the disk, and who waits meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

using protocol::ConversationCommand;
using protocol::ConversationOperation;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr int64_t kDayMs = int64_t{24} * 3600 * 1000;

class GeneratorDeletionTest : public SnapshotTest {
 protected:
  GeneratorDeletionTest() { Boot(256); }

  protocol::RequestId Command(ConversationOperation operation, const std::string& id = "",
                              const std::string& user = "", uint32_t turn = 0) {
    ConversationCommand command;
    command.rid = ++last_rid_;
    command.operation = operation;
    command.id = id;
    command.user = user;
    command.turn = turn;
    command.limit = limits::kConversationsListedMax;
    generator_->Command(command);
    return command.rid;
  }
  protocol::RequestId Delete(const std::string& id) {
    return Command(ConversationOperation::kDelete, id);
  }
  protocol::RequestId DeleteAll(const std::string& user = "") {
    return Command(ConversationOperation::kDeleteAll, "", user);
  }
  // Jobs of the disk one at a time, and what follows from them, without a step.
  void RunDeletions() {
    for (int i = 0; i < 100'000; ++i) {
      if (disk_.jobs() > 0 || disk_.has_answers())
        Deliver();
      else if (generator_->HasUpkeep())
        generator_->Upkeep();
      else
        return;
    }
    ADD_FAILURE() << "it does not come to an end";
  }
  // The answer's text and error code; nothing: it has not come.
  std::optional<std::pair<uint16_t, std::string>> AnswerTo(protocol::RequestId rid) {
    for (const auto& answer : sink_.conversation_answers)
      if (answer.rid == rid) return std::pair(answer.error_code, answer.text);
    return std::nullopt;
  }
  std::vector<std::string> DeletedIds(protocol::RequestId rid) {
    const auto answer = AnswerTo(rid);
    EXPECT_TRUE(answer && answer->first == 0) << (answer ? answer->second : "no answer");
    if (!answer || answer->first != 0) return {};
    const Json json = Json::parse(answer->second);
    EXPECT_EQ(json["count"], json["ids"].size());
    return json["ids"].get<std::vector<std::string>>();
  }
  std::vector<std::string> Listed() {
    const auto rid = Command(ConversationOperation::kList);
    std::vector<std::string> ids;
    const auto answer = AnswerTo(rid);
    EXPECT_TRUE(answer);
    const Json list = Json::parse(answer->second);
    for (const Json& each : list["data"]) ids.push_back(each["id"]);
    return ids;
  }
  protocol::Submit AskFor(const std::string& id, const std::string& user, const Ids& prompt,
                          int answer) {
    protocol::Submit submit = AskIn(id, prompt, answer);
    submit.request.user = user;
    return submit;
  }
  protocol::Submit AskAs(const std::string& tenant, const std::string& id, const Ids& prompt,
                         int answer) {
    protocol::Submit submit = AskIn(id, prompt, answer);
    submit.request.tenant = tenant;
    return submit;
  }
  // Nothing of anything is left.
  void ExpectNothing() {
    EXPECT_THAT(disk_.conversations, IsEmpty());
    EXPECT_THAT(disk_.pages, IsEmpty());
    EXPECT_EQ(Conversations().size(), 0u);
    EXPECT_EQ(store_->used() + store_->hollow(), 0u);
    EXPECT_EQ(store_->referenced(), 0u);
    EXPECT_FALSE(generator_->IsDeleting());
  }
  std::set<uint64_t> StoredPages() const {
    std::set<uint64_t> hashes;
    for (const auto& [hash, page] : disk_.pages) hashes.insert(hash);
    return hashes;
  }
};

// --- One ---------------------------------------------------------------------------------------

TEST_F(GeneratorDeletionTest, OfADeletedConversationNothingIsLeft) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  Say(AskIn("mine", History(first) + Text(5, 2), 4));
  Say(AskIn("mine", First(History(first), 90) + Text(50, 3), 20));  // edited
  ASSERT_GT(disk_.pages.size(), 5u);
  const auto rid = Delete("mine");
  EXPECT_THAT(Listed(), IsEmpty()) << "at once";
  EXPECT_FALSE(AnswerTo(rid));
  RunDeletions();
  EXPECT_THAT(DeletedIds(rid), ElementsAre("mine"));
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, PagesGoBeforeTheirTurns) {
  Say(AskIn("mine", Text(100, 1), 40));
  Delete("mine");
  for (int i = 0; i < 100 && !disk_.conversations.empty(); ++i) {
    // A process that ends here leaves a conversation, or nothing.
    EXPECT_TRUE(disk_.pages.empty() || !disk_.conversations.empty());
    if (disk_.DoPageJob() || disk_.DoTurnJob()) generator_->TakeAnswers();
    if (generator_->HasUpkeep()) generator_->Upkeep();
  }
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, OfOneThatIsNotInMemoryNothingIsLeftEither) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  Say(AskIn("mine", History(first) + Text(60, 2), 40));
  Reboot();
  Delete("mine");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, WhatWasKeptInAnyWayGoes) {
  const std::vector<CacheChoice> types = {Quantized(8), Rotating(96, 5), Chunked(256),
                                          OfType("concatenate_kv"), Quantized(4)};
  Ids history = Text(100, 1);
  for (size_t i = 0; i < types.size(); ++i) {
    const auto rid = Say(AskIn("mine", history + Text(20, static_cast<int>(i)), 30, types[i]));
    history = History(rid);
  }
  Delete("mine");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, PagesOfOtherWeightsAndOtherInstructionsGoToo) {
  Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  const size_t before = disk_.pages.size();
  // The model was exchanged, and its memory is another one's.
  options_.fingerprint = 0xab;
  Reboot();
  const auto second = Say(AskIn("mine", history + Text(20, 2), 20));
  history = History(second);
  options_.numerics = 0xcd;
  Reboot();
  Say(AskIn("mine", history + Text(20, 3), 20));
  EXPECT_GT(disk_.pages.size(), before);
  Delete("mine");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, PagesThatWereSharedWhenTheyWereStoredAreFound) {
  const Ids system = Text(70, 1);
  options_.shared_prefixes = {system};
  Boot(256);
  Say(AskIn("mine", system + Text(60, 2), 20));
  options_.shared_prefixes.clear();
  Reboot();
  Delete("mine");
  RunDeletions();
  EXPECT_EQ(disk_.pages.size(), 2u) << "those that were everybody's";
  // And the other way round.
  disk_.pages.clear();
  Reboot();
  Say(AskIn("mine", system + Text(60, 2), 20));
  options_.shared_prefixes = {system};
  Reboot();
  Delete("mine");
  RunDeletions();
  EXPECT_THAT(disk_.pages, IsEmpty());
}

TEST_F(GeneratorDeletionTest, WhatAnotherConversationNeedsStays) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const Ids history = History(first);
  Say(AskIn("other", history + Text(60, 2), 40));
  Delete("mine");
  RunDeletions();
  EXPECT_EQ(disk_.conversations.size(), 1u);
  Reboot();
  const auto next = AskIn("other", history + Text(60, 2), 10);
  Say(next);
  EXPECT_GE(FromDisk(next.rid), 192);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  Delete("other");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, PagesThatAreBeingWrittenGoToo) {
  const auto submit = AskIn("mine", Text(100, 1), 40);
  Submit(submit);
  Steps();
  DeliverTurn();
  generator_->Upkeep();
  ASSERT_EQ(disk_.page_jobs(), 1u);
  Delete("mine");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, ATurnThatWaitsForTheDiskIsGoneToo) {
  disk_.fails_turns = true;
  Say(AskIn("mine", Text(100, 1), 40));
  const auto rid = Delete("mine");
  RunDeletions();
  EXPECT_THAT(DeletedIds(rid), ElementsAre("mine"));
  disk_.fails_turns = false;
  disk_.RetryTurns();
  generator_->TakeAnswers();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, ATurnWhoseCommitIsUnderWayIsNotListedAgain) {
  const auto submit = AskIn("mine", Text(100, 1), 40);
  Submit(submit);
  Steps();
  ASSERT_EQ(disk_.turn_jobs(), 1u);
  Delete("mine");
  DeliverTurn();
  EXPECT_THAT(Listed(), IsEmpty());
  RunDeletions();
  ExpectNothing();
}

// --- While it is answered ------------------------------------------------------------------------

TEST_F(GeneratorDeletionTest, ARequestThatGoesOnWithItLeavesNothing) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const auto submit = AskIn("mine", History(first) + Text(20, 2), 60);
  Submit(submit);
  for (int i = 0; i < 10; ++i) generator_->Step();
  EXPECT_THAT(sink_.forgotten, IsEmpty());
  Delete("mine");
  EXPECT_THAT(sink_.forgotten, ElementsAre(submit.rid)) << "before the answer to the deletion";
  EXPECT_THAT(sink_.conversation_answers, IsEmpty());
  Run();
  EXPECT_EQ(Answer(submit.rid).size(), 60u) << "its client has it all";
  EXPECT_FALSE(Persisted(submit.rid));
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, TheNextWorkerLeavesNothingOfItEither) {
  const auto submit = AskIn("mine", Text(100, 1), 60);
  Submit(submit);
  for (int i = 0; i < 10; ++i) generator_->Step();
  Delete("mine");
  RunDeletions();
  const Ids so_far = Answer(submit.rid);
  ASSERT_FALSE(so_far.empty());
  // As the frontend has it after it was told.
  protocol::Resume resume = Rest(submit, Ticket(submit.rid), so_far);
  resume.request.remembers = false;
  resume.ticket.conversation_id.clear();
  DieWithDisk();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_EQ(Answer(submit.rid).size(), 60u);
  ExpectNothing();
  // Nor of one that it had not accepted.
  auto again = AskIn("mine", Text(100, 1), 20);
  again.request.remembers = false;
  Say(again);
  EXPECT_EQ(Ticket(again.rid).conversation_id, "");
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, ARequestThatWaitsForItToBeReadBeginsWithNothing) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const Ids history = History(first);
  Reboot();
  const auto submit = AskIn("mine", history + Text(20, 2), 10);
  Submit(submit);
  EXPECT_EQ(disk_.turn_jobs(), 1u);
  Delete("mine");
  EXPECT_THAT(sink_.forgotten, ElementsAre(submit.rid));
  Run();
  EXPECT_TRUE(HasEnded(submit.rid));
  EXPECT_EQ(Ticket(submit.rid).conversation_id, "");
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, OneThatIsInMemoryAloneIsDeletedToo) {
  auto secret = AskIn("mine", Text(100, 1), 40);
  secret.request.store = false;
  const Ids history = History(Say(secret));
  auto second = AskIn("mine", history + Text(60, 2), 20);
  second.request.store = false;
  Say(second);
  EXPECT_THAT(disk_.conversations, IsEmpty());
  const auto rid = Delete("mine");
  RunDeletions();
  EXPECT_THAT(DeletedIds(rid), ElementsAre("mine"));
  ExpectNothing();
  // Whose first answer is on its way.
  auto running = AskIn("new", Text(100, 2), 40);
  running.request.store = false;
  Submit(running);
  for (int i = 0; i < 5; ++i) generator_->Step();
  Delete("new");
  Run();
  EXPECT_TRUE(HasEnded(running.rid));
  ExpectNothing();
}

// --- Many --------------------------------------------------------------------------------------

TEST_F(GeneratorDeletionTest, AllMeansThoseInMemoryToo) {
  Say(AskIn("stored", Text(50, 1), 10));
  auto secret = AskIn("secret", Text(50, 2), 10);
  secret.request.store = false;
  Say(secret);
  Say(AskAs("another", "theirs", Text(50, 3), 10));
  const auto running = AskIn("running", Text(50, 4), 30);
  Submit(running);
  generator_->Step();
  const auto rid = DeleteAll();
  Run();
  EXPECT_THAT(DeletedIds(rid), UnorderedElementsAre("stored", "secret", "running"));
  EXPECT_EQ(disk_.conversations.size(), 1u);
  ASSERT_EQ(Conversations().size(), 1u);
  EXPECT_EQ(Conversations()[0]->id, "theirs");
}

TEST_F(GeneratorDeletionTest, OfOneUserThoseInMemoryToo) {
  Say(AskFor("a", "anna", Text(50, 1), 10));
  Say(AskFor("b", "bert", Text(50, 2), 10));
  auto secret = AskFor("c", "anna", Text(50, 3), 10);
  secret.request.store = false;
  Say(secret);
  const auto running = AskFor("d", "anna", Text(50, 4), 30);
  Submit(running);
  generator_->Step();
  const auto rid = DeleteAll("anna");
  Run();
  EXPECT_THAT(DeletedIds(rid), UnorderedElementsAre("a", "c", "d"));
  EXPECT_THAT(Listed(), ElementsAre("b"));
  ASSERT_EQ(Conversations().size(), 1u);
}

TEST_F(GeneratorDeletionTest, ManyAreUnreachableAtOnceAndDeletedSomeAtATime) {
  const size_t count = 2 * limits::kDeletionsAtOnce + 10;
  for (size_t i = 0; i < count; ++i) Say(AskIn(std::to_string(i), Text(5, 1), 2));
  ASSERT_EQ(disk_.conversations.size(), count);
  const auto rid = DeleteAll();
  EXPECT_THAT(Listed(), IsEmpty());
  EXPECT_EQ(disk_.conversations.size(), count);
  // A turn that ends meanwhile is stored before all are deleted.
  const auto other = AskAs("another", "theirs", Text(40, 2), 5);
  Submit(other);
  size_t left_when_stored = 0;
  for (int i = 0; i < 10'000 && !AnswerTo(rid); ++i) {
    clock_us += 1000;
    if (generator_->HasWork()) generator_->Step();
    if (generator_->HasUpkeep()) generator_->Upkeep();
    if (disk_.DoTurnJob()) generator_->TakeAnswers();
    if (disk_.DoPageJob()) generator_->TakeAnswers();
    if (left_when_stored == 0 && HasEnded(other.rid)) left_when_stored = disk_.conversations.size();
  }
  EXPECT_GT(left_when_stored, limits::kDeletionsAtOnce);
  EXPECT_EQ(disk_.deleted_at_once, limits::kDeletionsAtOnce);
  EXPECT_EQ(DeletedIds(rid).size(), count);
  Run();
  EXPECT_EQ(disk_.conversations.size(), 1u);
}

TEST_F(GeneratorDeletionTest, AStepForgetsPagesOfSoManyTokensAtMost) {
  Boot(512);
  const Ids begin = Text(900, 1);
  for (int i = 0; i < 3; ++i)
    Say(AskIn("mine", begin + Text(1000, 10 + i), 3));  // branches: a chain each
  // All of them come at once.
  Delete("mine");
  disk_.DoAll();
  generator_->TakeAnswers();
  ASSERT_TRUE(generator_->HasUpkeep());
  static_assert(limits::kChainTokensForgotten > 3 * 1903);
  generator_->Upkeep();
  EXPECT_FALSE(generator_->HasUpkeep()) << "they are few";
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, TurnsAreReadInPortions) {
  disk_.chain_tokens = 150;
  Ids history = Text(20, 1);
  for (int i = 0; i < 12; ++i) history = History(Say(AskIn("mine", history + Text(10, 2 + i), 10)));
  Say(AskIn("other", Text(300, 50), 10));
  const auto rid = DeleteAll();
  RunDeletions();
  EXPECT_THAT(DeletedIds(rid), UnorderedElementsAre("mine", "other"));
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, OneThatCannotBeDeletedKeepsNoOthers) {
  for (const char* id : {"a", "b", "c"}) Say(AskIn(id, Text(50, *id), 10));
  disk_.undeletable.insert({disk_.conversations.begin()->first.first, "b"});
  const auto rid = DeleteAll();
  EXPECT_THAT(Listed(), IsEmpty());
  RunDeletions();
  const auto answer = AnswerTo(rid);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->first, static_cast<uint16_t>(ErrorCode::io_error));
  EXPECT_EQ(answer->second, "1 of 3 conversations could not be deleted: it is damaged");
  EXPECT_EQ(disk_.conversations.size(), 1u);
  EXPECT_THAT(Listed(), ElementsAre("b")) << "it is still there, and can be tried again";
  disk_.undeletable.clear();
  const auto again = DeleteAll();
  RunDeletions();
  EXPECT_THAT(DeletedIds(again), ElementsAre("b"));
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, NothingToDeleteIsAnswered) {
  const auto rid = DeleteAll();
  RunDeletions();
  EXPECT_THAT(DeletedIds(rid), IsEmpty());
  EXPECT_EQ(AnswerTo(Delete("none"))->first, static_cast<uint16_t>(ErrorCode::not_found));
}

// --- Rewinding ---------------------------------------------------------------------------------

TEST_F(GeneratorDeletionTest, PagesOfTurnsThatAreRewoundGo) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const std::set<uint64_t> before = StoredPages();
  const auto second = Say(AskIn("mine", History(first) + Text(60, 2), 40));
  Say(AskIn("mine", History(second) + Text(60, 3), 40));
  const auto edited = Say(AskIn("mine", First(History(first), 70) + Text(80, 4), 20));
  ASSERT_TRUE(HasEnded(edited));
  ASSERT_GT(disk_.pages.size(), before.size() + 5);
  disk_.on_manage = [&] {
    EXPECT_THAT(StoredPages(), testing::IsSubsetOf(before)) << "before the turns";
  };
  Command(ConversationOperation::kRewind, "mine", "", 1);
  RunDeletions();
  // The first turn's last page had given way to the second turn's, longer one.
  EXPECT_EQ(StoredPages().size(), before.size() - 1);
  EXPECT_THAT(StoredPages(), testing::IsSubsetOf(before));
  EXPECT_EQ(Conversations().size(), 0u);
  EXPECT_EQ(store_->used() + store_->hollow(), 0u);
}

TEST_F(GeneratorDeletionTest, WhatTheTurnsThatStayNeedStays) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const auto second = Say(AskIn("mine", History(first) + Text(60, 2), 40));
  const std::set<uint64_t> before = StoredPages();
  // It says the same as the second, and less.
  Say(AskIn("mine", First(History(second), 150), 3));
  const Ids history = History(second);
  Command(ConversationOperation::kRewind, "mine", "", 2);
  RunDeletions();
  EXPECT_THAT(before, testing::IsSubsetOf(StoredPages()));
  Reboot();
  const auto next = AskIn("mine", history + Text(20, 5), 10);
  Say(next);
  EXPECT_EQ(FromDisk(next.rid), 239);
}

TEST_F(GeneratorDeletionTest, OneThatIsGoneOnWithIsNotRewound) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const auto running = AskIn("mine", History(first) + Text(20, 2), 30);
  Submit(running);
  generator_->Step();
  const auto rid = Command(ConversationOperation::kRewind, "mine", "", 1);
  ASSERT_TRUE(AnswerTo(rid));
  EXPECT_THAT(AnswerTo(rid)->second, HasSubstr("A request goes on with conversation mine"));
  Run();
  EXPECT_TRUE(Persisted(running.rid));
}

// --- By age ------------------------------------------------------------------------------------

class RetentionTest : public GeneratorDeletionTest {
 protected:
  RetentionTest() {
    options_.conversations.idle_timeout_s = 1'000'000'000;
    options_.retention_ms = 30 * kDayMs;
    Boot(256);
  }
  void LookAfter(int days) {
    now_ms_ += days * kDayMs;
    clock_us += days * kDayMs * 1000 + 2'000'000;
    generator_->Tick();
    RunDeletions();
  }
  void TellTenants(std::vector<protocol::TenantRetention> retentions = {}) {
    generator_->SetTenants({std::move(retentions)});
  }
  std::set<std::string> Stored() const {
    std::set<std::string> ids;
    for (const auto& [name, kept] : disk_.conversations) ids.insert(name.second);
    return ids;
  }
};

TEST_F(RetentionTest, OfOneThatNobodyHasGoneOnWithNothingIsLeft) {
  TellTenants();
  Say(AskIn("mine", Text(100, 1), 40));
  LookAfter(29);
  EXPECT_THAT(Stored(), ElementsAre("mine"));
  LookAfter(2);
  ExpectNothing();
}

TEST_F(RetentionTest, ATenantMayHaveItsOwn) {
  TellTenants({{"short", 7}, {"long", 365}});
  Say(AskAs("short", "s", Text(100, 1), 10));
  Say(AskAs("long", "l", Text(100, 1), 10));
  Say(AskAs("other", "o", Text(100, 1), 10));
  LookAfter(6);
  EXPECT_THAT(Stored(), UnorderedElementsAre("s", "l", "o"));
  LookAfter(2);
  EXPECT_THAT(Stored(), UnorderedElementsAre("l", "o"));
  LookAfter(23);
  EXPECT_THAT(Stored(), ElementsAre("l"));
  LookAfter(300);
  EXPECT_THAT(Stored(), ElementsAre("l"));
  // A change holds at once.
  TellTenants({{"long", 100}});
  LookAfter(0);
  ExpectNothing();
}

TEST_F(RetentionTest, NothingIsTooOldBeforeItIsKnownWhoseItIs) {
  Say(AskAs("long", "l", Text(100, 1), 10));
  LookAfter(40);
  EXPECT_THAT(Stored(), ElementsAre("l"));
  TellTenants({{"long", 365}});
  LookAfter(1);
  EXPECT_THAT(Stored(), ElementsAre("l"));
}

TEST_F(RetentionTest, OneThatIsInMemoryAloneGoesToo) {
  TellTenants();
  auto secret = AskIn("mine", Text(100, 1), 40);
  secret.request.store = false;
  const Ids history = History(Say(secret));
  LookAfter(29);
  EXPECT_EQ(Conversations().size(), 1u);
  LookAfter(2);
  ExpectNothing();
  const auto next = AskIn("mine", history + Text(10, 2), 5);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 0) << "not even what it said is found";
}

TEST_F(RetentionTest, OneThatIsGoneOnWithJustNowStays) {
  TellTenants();
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  now_ms_ += 31 * kDayMs;
  const auto running = AskIn("mine", History(first) + Text(20, 2), 30);
  Submit(running);
  clock_us += 31 * kDayMs * 1000;
  generator_->Tick();
  Run();
  EXPECT_TRUE(Persisted(running.rid));
  EXPECT_THAT(sink_.forgotten, IsEmpty());
  EXPECT_EQ(disk_.conversations.begin()->second.turns.size(), 2u);
}

// --- A file of pages that was begun anew
// -----------------------------------------------------------

TEST_F(GeneratorDeletionTest, AFileOfPagesThatWasOpenedAgainIsKnownAsItIs) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const Ids history = History(first);
  Say(AskIn("other", Text(100, 2), 40));
  const auto all = disk_.pages;
  ASSERT_EQ(all.size(), 10u);
  // One was lost; one is there that it did not know of.
  auto found = all;
  found.erase(found.begin());
  disk_.Reopen(found);
  Run();
  EXPECT_EQ(StoredPages().size(), 10u) << "what is in memory is stored again";
  // All were lost, and what was to be read is computed.
  Reboot();
  disk_.Reopen({});
  generator_->TakeAnswers();
  const auto next = AskIn("mine", history + Text(20, 3), 10);
  Say(next);
  EXPECT_EQ(FromDisk(next.rid), 0);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  disk_.Reopen(all);
  generator_->TakeAnswers();
  Delete("mine");
  Delete("other");
  RunDeletions();
  ExpectNothing();
}

TEST_F(GeneratorDeletionTest, WhatIsBeingErasedDoesNotComeBackWithTheFile) {
  Say(AskIn("mine", Text(100, 1), 40));
  const auto all = disk_.pages;
  Delete("mine");
  ASSERT_TRUE(disk_.DoTurnJob());
  generator_->TakeAnswers();
  generator_->Upkeep();
  ASSERT_EQ(disk_.page_jobs(), 1u) << "they are about to be erased";
  disk_.Reopen(all);
  generator_->TakeAnswers();
  RunDeletions();
  ExpectNothing();
}

}  // namespace
}  // namespace perdure::worker
