// Which conversation a request goes on with, and which are forgotten.
#include "worker/conversations.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"
#include "tests/worker/conversations_fixture.h"

namespace perdure::worker {
namespace {

using Names = std::vector<std::string>;

// --- Who goes on -------------------------------------------------------------------------------

TEST_F(ConversationTableTest, APromptThatRepeatsEnoughIsRecognised) {
  const Ids turn = Row(100, 'A');
  const std::string id = Begin(turn);
  EXPECT_EQ(id, "new1");
  Recognition found = Recognize(turn + Row(20, 'x'));
  EXPECT_EQ(found.id, id);
  EXPECT_DOUBLE_EQ(found.similarity, 1.0);
  EXPECT_EQ(found.position, 100u);
  found = Recognize(First(turn, 80) + Ids{'!', '?'});
  EXPECT_EQ(found.id, id);
  EXPECT_NEAR(found.similarity, 0.8, 1e-9);
  EXPECT_EQ(found.position, 80u);
  found = Recognize(First(turn, 79) + Ids{'!', '?'});
  EXPECT_EQ(found.id, "");
  EXPECT_FALSE(found.schedule);
}

TEST_F(ConversationTableTest, TheThresholdIsASetting) {
  settings_.detection_threshold = 0.5f;
  Open();
  const Ids turn = Row(100, 'A');
  Begin(turn);
  EXPECT_NE(Recognize(First(turn, 50) + Ids{'!'}).id, "");
  EXPECT_EQ(Recognize(First(turn, 49) + Ids{'!'}).id, "");
}

TEST_F(ConversationTableTest, ChatsAreRecognisedByTheirMessages) {
  Turn turn = TurnOf(Row(100, 'A'));
  turn.messages = {11, 12, 13, 14, 15};
  const std::string id = table_->Commit(std::move(turn));
  // What the tokens are does not matter: a template may show old messages otherwise.
  EXPECT_EQ(RecognizeMessages({11, 12, 13, 14, 15, 16}).id, id);
  EXPECT_EQ(RecognizeMessages({11, 12, 13, 14, 99, 98}).id, id);
  EXPECT_EQ(RecognizeMessages({11, 12, 13, 99, 98, 97}).id, "");
  EXPECT_EQ(RecognizeMessages({99}, Row(100, 'A')).id, "");
  EXPECT_EQ(Recognize(Row(100, 'A')).id, "") << "plain text is no chat";
}

TEST_F(ConversationTableTest, TheOneWithMostInCommonGoesOn) {
  const Ids beginning = Row(90, 'A');
  const std::string one = Begin(beginning + Ids{'1', '1', '1', '1'});
  const std::string two = Begin(beginning + Ids{'2', '2', '2', '2'});
  EXPECT_EQ(Recognize(beginning + Ids{'1', '1', '1', '1', '5'}).id, one);
  EXPECT_EQ(Recognize(beginning + Ids{'2', '2', '2', '2', '5'}).id, two);
}

TEST_F(ConversationTableTest, AClientsNameIsFoundByThatNameAlone) {
  const Ids turn = Row(100, 'A');
  EXPECT_EQ(BeginNamed("mine", turn), "mine");
  EXPECT_EQ(Recognize(turn + Ids{'5'}).id, "");
  EXPECT_EQ(Recognize(turn + Ids{'5'}, "other").id, "");
  const Recognition found = Recognize(turn + Ids{'5'}, "mine");
  EXPECT_EQ(found.id, "mine");
  EXPECT_EQ(found.position, 100u);
  // Whatever has become of its history.
  const Recognition edited = Recognize(Ids{'!', '?'}, "mine");
  EXPECT_EQ(edited.id, "mine");
  EXPECT_EQ(edited.position, 0u);
  // Its tokens are known all the same.
  EXPECT_EQ(Recognize(turn).drawn, std::vector<bool>(100));
}

TEST_F(ConversationTableTest, ANameGoesBeforeWhatTheTokensSay) {
  const Ids turn = Row(100, 'A');
  const std::string detected = Begin(turn);
  EXPECT_EQ(Recognize(turn + Ids{'5'}, "mine").id, "") << "the client begins one of its own";
  EXPECT_EQ(Recognize(Ids{'5'}, detected).id, detected) << "an id that was handed out is a name";
}

TEST_F(ConversationTableTest, ABranchGetsAnIdOfItsOwn) {
  const Ids turn = Row(100, 'A');
  const std::string id = Begin(turn);
  const Recognition one = Recognize(turn + Ids{'1'});
  ASSERT_EQ(one.id, id);
  table_->Begin(kOwner, id);
  const Recognition other = Recognize(turn + Ids{'2'});
  EXPECT_EQ(other.id, "") << "it goes on already";
  EXPECT_EQ(Recognize(turn + Ids{'2'}, id).id, id) << "but its name counts";
  EXPECT_EQ(GoOn(one, turn + Row(40, '1')), id);
  table_->End(kOwner, id);
  const std::string branch = GoOn(other, turn + Row(40, '2'));
  EXPECT_EQ(branch, "new3");
  EXPECT_EQ(table_->all().size(), 2u);
  EXPECT_EQ(Recognize(turn + Row(40, '1') + Ids{'!'}).id, id);
  EXPECT_EQ(Recognize(turn + Row(40, '2') + Ids{'!'}).id, branch);
  EXPECT_EQ(table_->Get(kOwner, id)->turns, 2u);
  EXPECT_EQ(table_->Get(kOwner, branch)->turns, 1u);
}

TEST_F(ConversationTableTest, OneThatBeganLaterEndsForThoseThatBeganWithIt) {
  EXPECT_FALSE(table_->Begin(kOwner, "mine")) << "there is none yet";
  BeginNamed("mine", Row(100, 'A'));
  EXPECT_TRUE(table_->Begin(kOwner, "mine"));
  EXPECT_EQ(table_->Get(kOwner, "mine")->running, 1);
  table_->End(kOwner, "mine");
  EXPECT_EQ(table_->Get(kOwner, "mine")->running, 0);
}

TEST_F(ConversationTableTest, AnIdThatWasHandedOutBecomesItsClients) {
  const Ids turn = Row(100, 'A');
  const std::string id = Begin(turn);
  EXPECT_EQ(BeginNamed(id, turn + Row(40, '1')), id);
  EXPECT_EQ(Recognize(turn + Row(40, '1') + Ids{'!'}).id, "");
  EXPECT_EQ(Recognize(turn, id).id, id);
  EXPECT_EQ(GoOn(Recognize(turn, id), turn + Row(50, '1')), id);
  EXPECT_TRUE(table_->Get(kOwner, id)->named) << "whoever goes on with it";
}

TEST_F(ConversationTableTest, OfTwoThatAClientNamesAlikeTheLaterOneCounts) {
  const Ids turn = Row(100, 'A');
  BeginNamed("mine", turn);
  EXPECT_EQ(BeginNamed("mine", turn + Row(40, '1')), "mine");
  EXPECT_EQ(BeginNamed("mine", turn + Row(40, '2')), "mine");
  EXPECT_EQ(Known(), Names{"mine"});
  EXPECT_EQ(table_->Get(kOwner, "mine")->ids, turn + Row(40, '2'));
}

TEST_F(ConversationTableTest, AnEditedHistoryGoesOnFromTheEdit) {
  const Ids turn = Row(100, 'A');
  const std::string id = Begin(turn);
  Ids edited = turn;
  edited[90] = '!';
  const Recognition found = Recognize(edited);
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(found.position, 90u);
  EXPECT_EQ(GoOn(found, edited + Ids{'5'}), id);
  EXPECT_EQ(table_->Get(kOwner, id)->ids, edited + Ids{'5'});
}

TEST_F(ConversationTableTest, OwnersDoNotSeeEachOthers) {
  const Ids turn = Row(100, 'A');
  const std::string id = table_->Commit(TurnOf(turn, kOwner, 0));
  EXPECT_EQ(Recognize(turn, "", 8).id, "");
  EXPECT_EQ(Recognize(turn, "", 8).drawn, std::vector<bool>(100, false));
  EXPECT_EQ(Recognize(turn, id, 8).id, "") << "nor whoever knows the id";
  EXPECT_EQ(table_->DrawnOf(8, turn), std::vector<bool>(100, false));
  EXPECT_EQ(table_->DrawnOf(kOwner, turn), std::vector<bool>(100, true));
  BeginNamed("same", turn);
  BeginNamed("same", Row(60, 'B'), 8);
  EXPECT_EQ(table_->Get(kOwner, "same")->ids, turn);
  EXPECT_EQ(table_->Get(8, "same")->ids, Row(60, 'B'));
}

// --- What was drawn ----------------------------------------------------------------------------

TEST_F(ConversationTableTest, AnAnswerInOtherTokensIsPutBackAsItWasDrawn) {
  const Ids question = Row(40, 'A');
  const Ids answer = {'f', 'o', 'u', 'r', ' ', 'e', 'g', 'g', 's'};
  const std::string id = table_->Commit(TurnOf(question + answer, kOwner, 40));
  using P = PairTokenizer;
  Ids ids = question + Ids{P::Pair('f', 'o'), P::Pair('u', 'r'), ' ',
                           P::Pair('e', 'g'), P::Pair('g', 's'), '.',
                           P::Pair('f', 'o')};
  RecognitionRequest request;
  request.owner = kOwner;
  const Recognition found = table_->Recognize(request, &ids);
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(ids, question + answer + (Ids{'.', P::Pair('f', 'o')}));
  EXPECT_EQ(found.spliced, 8u) << "all but the blank, which is as it was";
  EXPECT_EQ(found.position, 49u);
  std::vector<bool> drawn(51);
  std::fill(drawn.begin() + 40, drawn.begin() + 49, true);
  EXPECT_EQ(found.drawn, drawn);
  EXPECT_EQ(table_->DrawnOf(kOwner, ids), drawn);
}

TEST_F(ConversationTableTest, WhatTheClientSaidStaysAsItIsTokenizedNow) {
  const Ids turn = Row(40, 'A') + Ids{'f', 'o', 'u', 'r'};
  Begin(turn);  // nothing of it was drawn
  Ids ids = Row(40, 'A') + Ids{PairTokenizer::Pair('f', 'o'), PairTokenizer::Pair('u', 'r')};
  const Ids before = ids;
  RecognitionRequest request;
  request.owner = kOwner;
  const Recognition found = table_->Recognize(request, &ids);
  EXPECT_EQ(ids, before);
  EXPECT_EQ(found.spliced, 0u);
  EXPECT_EQ(found.position, 40u);
}

// --- Settings ----------------------------------------------------------------------------------

TEST_F(ConversationTableTest, DisabledItRemembersNothing) {
  settings_.enabled = false;
  Open();
  const Ids turn = Row(100, 'A');
  EXPECT_EQ(Begin(turn), "");
  EXPECT_EQ(BeginNamed("mine", turn), "");
  EXPECT_EQ(Known(), Names());
  EXPECT_EQ(Recognize(turn, "mine").id, "");
}

TEST_F(ConversationTableTest, WithoutDetectionOnlyNamedOnesAreRemembered) {
  settings_.auto_detect = false;
  Open();
  const Ids turn = Row(100, 'A');
  EXPECT_EQ(Begin(turn), "");
  EXPECT_EQ(Known(), Names());
  EXPECT_EQ(BeginNamed("mine", turn), "mine");
  EXPECT_EQ(Recognize(turn).id, "");
  EXPECT_EQ(Recognize(turn, "mine").id, "mine");
}

// --- Forgetting --------------------------------------------------------------------------------

TEST_F(ConversationTableTest, AnIdleOneIsForgottenWithItsPages) {
  settings_.idle_timeout_s = 60;
  Open();
  const Ids turn = Row(100, 'A');
  Begin(turn);
  EXPECT_GT(store_->cached(), 0u);
  now_ms_ += 60'000;
  table_->Expire();
  EXPECT_EQ(table_->all().size(), 1u);
  now_ms_ += 1;
  table_->Expire();
  EXPECT_EQ(table_->all().size(), 0u);
  EXPECT_EQ(table_->totals().expired, 1u);
  EXPECT_EQ(store_->cached(), 0u);
  EXPECT_EQ(Recognize(turn).id, "");
  Die();
  EXPECT_EQ(table_->all().size(), 0u);
}

TEST_F(ConversationTableTest, PagesThatAnotherOneHasAreNotForgotten) {
  settings_.idle_timeout_s = 60;
  Open();
  const Ids beginning = Row(64, 'A');
  Begin(beginning + Row(33, '1'));
  now_ms_ += 50'000;
  Begin(beginning + Row(33, '2'));
  EXPECT_EQ(store_->cached(), 4u);
  now_ms_ += 20'000;
  table_->Expire();
  EXPECT_EQ(Known(), Names{"new2"});
  EXPECT_EQ(store_->cached(), 3u);
}

TEST_F(ConversationTableTest, ARunningOneIsNotIdle) {
  settings_.idle_timeout_s = 60;
  Open();
  const std::string id = Begin(Row(100, 'A'));
  table_->Begin(kOwner, id);
  table_->Begin(kOwner, id);
  now_ms_ += 1'000'000;
  table_->Expire();
  EXPECT_EQ(Known(), Names{id});
  table_->End(kOwner, id);
  EXPECT_FALSE(table_->ForgetOldest());
  EXPECT_EQ(table_->Clear(), 0u);
  EXPECT_EQ(Known(), Names{id});
  table_->End(kOwner, id);
  now_ms_ += 60'000;
  table_->Expire();
  EXPECT_EQ(Known(), Names{id}) << "idle since its end";
  now_ms_ += 1;
  table_->Expire();
  EXPECT_EQ(Known(), Names());
}

TEST_F(ConversationTableTest, OneTooManyDisplacesTheOldestThatIsIdle) {
  settings_.conversations_max = 3;
  Open();
  for (TokenId first : {'A', 'B', 'C'}) {
    Begin(Row(40, first));
    now_ms_ += 1000;
  }
  table_->Begin(kOwner, "new1");
  Begin(Row(40, 'D'));
  EXPECT_EQ(Known(), (Names{"new1", "new3", "new4"}));
  table_->End(kOwner, "new1");  // used just now
  now_ms_ += 1000;
  Begin(Row(40, 'E'));
  EXPECT_EQ(Known(), (Names{"new1", "new4", "new5"}));
  EXPECT_EQ(table_->totals().displaced, 2u);
  EXPECT_EQ(store_->cached(), 10u) << "their pages stay as long as there is room";
}

TEST_F(ConversationTableTest, ANewOneIsNotDisplacedByItself) {
  settings_.conversations_max = 1;
  Open();
  Begin(Row(40, 'A'));
  now_ms_ -= 5000;  // the clock was set back
  Begin(Row(40, 'B'));
  EXPECT_EQ(Known(), Names{"new2"});
}

TEST_F(ConversationTableTest, RecordsThatRunOutDisplaceTheOldest) {
  Open(3);
  for (TokenId first : {'A', 'B', 'C', 'D', 'E'}) {
    Begin(Row(40, first));
    now_ms_ += 1000;
  }
  EXPECT_EQ(Known(), (Names{"new3", "new4", "new5"}));
  Die();
  EXPECT_EQ(Known(), (Names{"new3", "new4", "new5"}));
}

}  // namespace
}  // namespace perdure::worker
