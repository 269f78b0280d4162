#include "worker/generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/worker/generator_fixture.h"

namespace perdure::worker {
namespace {

TEST_F(GeneratorTest, AnswersWithTheModelsTokens) {
  Start();
  protocol::Submit submit = Completion(7, "hello", 20);
  submit.request.sampling.temperature = 0.0f;
  Submit(submit);
  ASSERT_TRUE(sink_[7].accepted);
  EXPECT_EQ(sink_[7].accepted->prompt_ids, (std::vector<TokenId>{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_EQ(sink_[7].accepted->ticket.cache, CacheSchedule());
  RunAll();
  std::vector<TokenId> tokens = {'h', 'e', 'l', 'l', 'o'};
  for (int i = 0; i < 20; ++i) tokens.push_back(fake_.engine->Greedy(tokens));
  const RecordedChoice& answer = sink_[7].choices[0];
  EXPECT_EQ(answer.ids, std::vector<TokenId>(tokens.begin() + 5, tokens.end()));
  EXPECT_EQ(answer.text, std::string(answer.ids.begin(), answer.ids.end()));
  ASSERT_TRUE(answer.end);
  EXPECT_EQ(answer.end->reason, protocol::FinishReason::kLength);
  EXPECT_EQ(answer.end->seq, 21u);
  EXPECT_EQ(answer.end->usage.prompt_tokens, 5);
  EXPECT_EQ(answer.end->usage.completion_tokens, 20);
  EXPECT_FALSE(answer.end->persisted);
  EXPECT_EQ(generator_->live(), 0u);
  EXPECT_EQ(store_->referenced(), 0u);
}

TEST_F(GeneratorTest, MeasuresQueuePrefillAndDecode) {
  Start(256, 8, 16);
  Submit(Completion(1, std::string(40, 'x'), 5));
  clock_us += 5000;
  RunAll();  // 1 ms before each step: three of prefill, four more of decoding
  const protocol::Usage usage = sink_[1].choices[0].end->usage;
  EXPECT_EQ(usage.queue_us, 6000);
  EXPECT_EQ(usage.prefill_us, 2000);
  EXPECT_EQ(usage.decode_us, 4000);
  EXPECT_EQ(usage.computed, 40);
}

TEST_F(GeneratorTest, RendersChatsWithInputMarked) {
  Start();
  Submit(Chat(1, R"({"messages":[{"role":"user","content":"a<end>"}]})", 1));
  const std::vector<TokenId> expected = {258, 'a', '<', 'e', 'n', 'd', '>', 259};
  ASSERT_TRUE(sink_[1].accepted);
  EXPECT_EQ(sink_[1].accepted->prompt_ids, expected);
  // A raw prompt's special tokens are special.
  Submit(Completion(2, "a<end>", 1));
  EXPECT_EQ(sink_[2].accepted->prompt_ids, (std::vector<TokenId>{'a', 259}));
}

TEST_F(GeneratorTest, PutsTheModelsPrefixBeforeRawPromptsOnly) {
  model_options_.prefix = {256};
  Start();
  const std::vector<TokenId> expected = {256, 'a'};
  Submit(Completion(1, "a", 1));
  EXPECT_EQ(sink_[1].accepted->prompt_ids, expected);
  // Once, not twice.
  Submit(Completion(2, "<bos>a", 1));
  EXPECT_EQ(sink_[2].accepted->prompt_ids, expected);
  // A text may be empty then.
  Submit(Completion(3, "", 1));
  ASSERT_TRUE(sink_[3].accepted);
  EXPECT_EQ(sink_[3].accepted->prompt_ids, std::vector<TokenId>{256});
  Submit(Chat(4, R"({"messages":[{"role":"user","content":"a"}]})", 1));
  EXPECT_EQ(sink_[4].accepted->prompt_ids, (std::vector<TokenId>{258, 'a', 259}));
  protocol::Submit ids = Completion(5, "", 1);
  ids.request.prompt_ids = {{'a'}};
  Submit(ids);
  EXPECT_EQ(sink_[5].accepted->prompt_ids, std::vector<TokenId>{'a'});
}

TEST_F(GeneratorTest, AChatsAnswerIsATextOfItsOwn) {
  model_options_.first_mark = "^";
  Start();
  Submit(Chat(1, R"({"messages":[{"role":"user","content":"a"}]})", 5));
  Submit(Completion(2, "a", 5));
  RunAll();
  EXPECT_EQ(sink_[1].choices[0].text.find('^'), 0u);
  EXPECT_EQ(sink_[1].choices[0].text.rfind('^'), 0u);
  EXPECT_EQ(sink_[2].choices[0].text.find('^'), std::string::npos);
}

TEST_F(GeneratorTest, AnEndTokenEndsUnlessIgnored) {
  model_options_.eos_logit = 10.0f;
  Start();
  Submit(Completion(1, "hello", 50));
  RunAll();
  const RecordedChoice& answer = sink_[1].choices[0];
  EXPECT_EQ(answer.end->reason, protocol::FinishReason::kStop);
  EXPECT_EQ(answer.ids.back(), model_options_.eos);
  EXPECT_LT(answer.ids.size(), 50u);
  EXPECT_EQ(answer.text.size(), answer.ids.size() - 1);
  protocol::Submit submit = Completion(2, "hello", 50);
  submit.request.ignore_eos = true;
  Submit(submit);
  RunAll();
  EXPECT_EQ(sink_[2].choices[0].ids.size(), 50u);
  EXPECT_EQ(sink_[2].choices[0].end->reason, protocol::FinishReason::kLength);
}

TEST_F(GeneratorTest, TheContextIsALengthLimit) {
  model_options_.max_context = 100;
  Start();
  protocol::Submit submit = Completion(1, std::string(90, 'x'), 50);
  Submit(submit);
  submit = Completion(2, std::string(99, 'x'), 0);
  submit.request.max_tokens.reset();
  Submit(submit);
  RunAll();
  EXPECT_EQ(sink_[1].choices[0].ids.size(), 10u);
  EXPECT_EQ(sink_[1].choices[0].end->reason, protocol::FinishReason::kLength);
  EXPECT_EQ(sink_[2].choices[0].ids.size(), 1u);
}

TEST_F(GeneratorTest, RefusesBadRequests) {
  model_options_.max_context = 100;
  Start();
  Submit(Completion(1, "", 5));
  ExpectFailed(1, ErrorCode::invalid_request, "prompt");
  Submit(Completion(2, std::string(100, 'x'), 5));
  ExpectFailed(2, ErrorCode::context_length_exceeded, "prompt");
  EXPECT_NE(sink_[2].failed->message.find("100"), std::string::npos);
  Submit(Chat(3, R"({"messages":[{"role":"user","content":"!"}]})", 5));
  ExpectFailed(3, ErrorCode::bad_template, "");
  Submit(Chat(4, R"({"messages":[]})", 5));
  ExpectFailed(4, ErrorCode::invalid_request, "messages");
  Submit(Completion(5, "x", -1));
  ExpectFailed(5, ErrorCode::invalid_request, "max_tokens");
  protocol::Submit submit = Completion(6, "x", 5);
  submit.request.sampling.logit_bias = {{260, 1.0f}};
  Submit(submit);
  ExpectFailed(6, ErrorCode::invalid_request, "logit_bias");
  for (TokenId id : {-1, 260}) {
    submit = Completion(static_cast<protocol::RequestId>(1000 + id), "", 5);
    submit.request.prompt_ids = std::vector<TokenId>{'a', id};
    Submit(submit);
    ExpectFailed(submit.rid, ErrorCode::invalid_request, "prompt");
  }
  submit = Completion(7, "x", 5);
  submit.request.choices = 1'000'000'000;
  Submit(submit);
  ExpectFailed(7, ErrorCode::invalid_request, "n");
  submit = Completion(21, "x", 5);
  submit.request.top_logprobs = limits::kTopLogprobsMax + 1;
  Submit(submit);
  ExpectFailed(21, ErrorCode::invalid_request, "top_logprobs");
  submit = Completion(20, "x", 5);
  submit.request.stop = {"fine", ""};
  Submit(submit);
  ExpectFailed(20, ErrorCode::invalid_request, "stop");
  submit = Completion(8, "x", 5);
  submit.request.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  Submit(submit);
  ExpectFailed(8, ErrorCode::invalid_request, "temperature");
  fake_.model.chat.templates.clear();
  Submit(Chat(9, R"({"messages":[{"role":"user","content":"x"}]})", 5));
  ExpectFailed(9, ErrorCode::unsupported, "messages");
  EXPECT_FALSE(generator_->HasWork());
  EXPECT_EQ(status_->manifest_step.load(), 0u);
}

TEST_F(GeneratorTest, RefusesMoreTokensOfAllChoicesThanCanGoOn) {
  model_options_.max_context = 1 << 20;
  Start(1 << 16);
  protocol::Submit submit = Completion(1, "x", 100'000);
  submit.request.choices = 42;
  Submit(submit);
  ExpectFailed(1, ErrorCode::invalid_request, "n");
  EXPECT_NE(sink_[1].failed->message.find("lower n or max_tokens"), std::string::npos);
  submit.rid = 2;
  submit.request.choices = 41;
  Submit(submit);
  EXPECT_TRUE(sink_[2].accepted);
  generator_->Cancel(2);
  submit.rid = 3;
  submit.request.max_tokens.reset();
  submit.request.choices = 1;
  Submit(submit);
  EXPECT_TRUE(sink_[3].accepted);
}

TEST_F(GeneratorTest, ARequestIdInUseIsAProtocolError) {
  Start();
  Submit(Completion(1, "x", 5));
  const Status again = generator_->Submit(Completion(1, "x", 5));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::protocol_error);
}

TEST_F(GeneratorTest, BoundsTheRequestsItHolds) {
  Start();
  for (size_t i = 0; i < limits::kWorkerRequestsMax; ++i) Submit(Completion(i + 1, "x", 5));
  Submit(Completion(1'000'000, "x", 5));
  ASSERT_TRUE(sink_[1'000'000].failed);
  EXPECT_EQ(ErrorCodeFromWire(sink_[1'000'000].failed->error_code), ErrorCode::overloaded);
  RunAll();
  EXPECT_TRUE(sink_[1].choices[0].end);
  EXPECT_TRUE(sink_[limits::kWorkerRequestsMax].choices[0].end);
}

TEST_F(GeneratorTest, PlacesAreSharedBetweenClients) {
  Start(256, 1);
  for (protocol::RequestId rid = 1; rid <= 5; ++rid) {
    protocol::Submit submit = Completion(rid, "x", 5);
    submit.request.ignore_eos = true;
    submit.request.client = rid == 5 ? 2 : 1;
    Submit(submit);
  }
  for (int i = 0; i < 1'000 && !sink_[5].choices[0].end; ++i) generator_->Step();
  ASSERT_TRUE(sink_[5].choices[0].end);
  EXPECT_TRUE(sink_[1].choices[0].end) << "what runs goes on";
  EXPECT_FALSE(sink_[2].choices[0].end);
  RunAll();
  EXPECT_TRUE(sink_[4].choices[0].end);
}

TEST_F(GeneratorTest, EchoPrecedesTheAnswerInPieces) {
  model_options_.max_context = 100'000;
  Start(4000, 8, 4096);
  // Characters of three bytes, so that pieces have to be cut between them.
  std::string prompt;
  for (int i = 0; i < 12'000; ++i) prompt += "\xE2\x82\xAC";
  protocol::Submit submit = Completion(1, prompt, 3);
  submit.request.echo = true;
  Submit(submit);
  RunAll();
  const RecordedChoice& answer = sink_[1].choices[0];
  EXPECT_EQ(answer.text.substr(0, prompt.size()), prompt);
  EXPECT_EQ(answer.text.size(), prompt.size() + 3);
  EXPECT_EQ(answer.ids.size(), 3u);
  EXPECT_EQ(answer.last_seq, 3u + 3u);
  submit = Completion(2, "", 0);
  submit.request.echo = true;
  submit.request.prompt_ids = std::vector<TokenId>{'o', 'k', 0xE2};
  Submit(submit);
  EXPECT_EQ(sink_[2].choices[0].text, "ok\xEF\xBF\xBD");
  ASSERT_TRUE(sink_[2].choices[0].end);
  EXPECT_EQ(sink_[2].choices[0].end->reason, protocol::FinishReason::kLength);
  EXPECT_FALSE(generator_->HasWork());
}

TEST_F(GeneratorTest, NeverSendsMoreThanTheCredit) {
  Start();
  protocol::Submit submit = Completion(1, "hello", 50);
  submit.credit_bytes = 150;
  Submit(submit);
  Submit(Completion(2, "hello", 50));
  RunAll();
  EXPECT_LE(sink_[1].choices[0].payload_bytes, 150u);
  EXPECT_GT(sink_[1].choices[0].payload_bytes, 100u);
  EXPECT_FALSE(sink_[1].choices[0].end);
  EXPECT_TRUE(sink_[2].choices[0].end) << "somebody else's slow client stopped this one";
  EXPECT_GT(store_->referenced(), 0u);
  size_t allowed = 150;
  for (int i = 0; i < 100 && !sink_[1].choices[0].end; ++i) {
    generator_->Credit(1, 60);
    allowed += 60;
    RunAll();
    EXPECT_LE(sink_[1].choices[0].payload_bytes, allowed);
  }
  EXPECT_EQ(sink_[1].choices[0].ids, sink_[2].choices[0].ids);
  EXPECT_TRUE(sink_[1].choices[0].end);
}

TEST_F(GeneratorTest, GivesUpClientsThatNeverRead) {
  Start();
  protocol::Submit submit = Completion(1, "hello", 50);
  submit.credit_bytes = 0;
  Submit(submit);
  RunAll();
  generator_->FailSlowClients();
  EXPECT_FALSE(sink_[1].failed);
  clock_us += 121'000'000;
  generator_->FailSlowClients();
  ExpectFailed(1, ErrorCode::slow_client, "");
  EXPECT_EQ(store_->referenced(), 0u);
}

TEST_F(GeneratorTest, CancelStopsAtOnceAndFreesPages) {
  Start();
  Submit(Completion(1, "hello", 100));
  Submit(Completion(2, "hello", 10));
  for (int i = 0; i < 5; ++i) generator_->Step();
  generator_->Cancel(1);
  sink_.closed[1] = true;
  RunAll();
  EXPECT_TRUE(sink_[2].choices[0].end);
  EXPECT_EQ(store_->referenced(), 0u);
  generator_->Cancel(1);
  generator_->Release(99);
  generator_->Credit(99, 5);
  // The id is free again.
  Submit(Completion(3, "x", 1));
  generator_->CancelAll();
  EXPECT_EQ(generator_->live(), 0u);
  EXPECT_FALSE(generator_->HasWork());
}

TEST_F(GeneratorTest, KeepsEndedAnswersUntilReleasedWithinABound) {
  Start();
  const size_t more = limits::kWorkerEndedMax + 10;
  for (size_t rid = 1; rid <= more; ++rid) {
    Submit(Completion(rid, "x", 1));
    RunAll();
  }
  EXPECT_FALSE(generator_->answer(1, 0));
  ASSERT_TRUE(generator_->answer(more, 0));
  EXPECT_EQ(generator_->answer(more, 0)->ids.size(), 1u);
  generator_->Release(more);
  EXPECT_FALSE(generator_->answer(more, 0));
}

TEST_F(GeneratorTest, NamesItsSuspectsWhileItComputes) {
  std::vector<std::vector<uint64_t>> manifests;
  model_options_.on_step = [&](std::span<const engine::SequenceStep>) {
    const shm::LastWords words = shm::ReadLastWords(*status_);
    EXPECT_EQ(words.step, manifests.size() + 1);
    manifests.push_back(words.step_rids);
  };
  Start(256, 2);
  Submit(Completion(11, "a", 2));
  Submit(Completion(12, "b", 2));
  Submit(Completion(13, "c", 1));
  RunAll();
  EXPECT_EQ(manifests, (std::vector<std::vector<uint64_t>>{{11, 12}, {11, 12}, {13}}));
  EXPECT_EQ(status_->manifest_step.load(), 0u);
  EXPECT_EQ(status_->steps_completed.load(), 3u);
  EXPECT_EQ(status_->tokens_generated.load(), 5u);
  EXPECT_EQ(status_->sequences_running.load(), 0u);
}

TEST_F(GeneratorTest, WhatCannotFitFailsAndHurtsNobody) {
  model_options_.max_context = 100 * kPage;
  Start(4, 4, 1000);
  Submit(Completion(1, std::string(static_cast<size_t>(5 * kPage), 'x'), 5));
  Submit(Completion(2, "hello", 5));
  Submit(Completion(3, std::string(static_cast<size_t>(3 * kPage), 'x'), 3 * kPage));
  RunAll();
  // A prompt for which there will never be memory is too long; an answer is cut.
  ASSERT_TRUE(sink_[1].failed);
  EXPECT_EQ(ErrorCodeFromWire(sink_[1].failed->error_code), ErrorCode::context_length_exceeded);
  EXPECT_NE(sink_[1].failed->message.find("128 tokens (bounded by the memory"), std::string::npos);
  EXPECT_TRUE(sink_[2].choices[0].end);
  ASSERT_TRUE(sink_[3].choices[0].end);
  EXPECT_EQ(sink_[3].choices[0].end->reason, protocol::FinishReason::kLength);
  EXPECT_EQ(sink_[3].choices[0].ids.size(), 1u * kPage);
  EXPECT_EQ(generator_->live(), 0u);
  EXPECT_EQ(store_->referenced(), 0u);
}

TEST_F(GeneratorTest, DrainingRefusesTheNewAndFailsTheLate) {
  Start();
  Submit(Completion(1, "hello", 100));
  generator_->StopAdmitting();
  Submit(Completion(2, "hello", 5));
  ASSERT_TRUE(sink_[2].failed);
  EXPECT_EQ(ErrorCodeFromWire(sink_[2].failed->error_code), ErrorCode::shutting_down);
  generator_->Step();
  generator_->FailAll(Error{ErrorCode::shutting_down, "late", {}, 0});
  ExpectFailed(1, ErrorCode::shutting_down, "");
}

// The same eight requests alone, together, in chunks of any size and with pages for only a part.
TEST_F(GeneratorTest, TokensDoNotDependOnCompany) {
  struct Schedule {
    PageIndex pages;
    int sequences;
    int prefill;
  };
  std::vector<std::vector<TokenId>> expected;
  std::vector<std::vector<float>> logprobs;
  for (const Schedule& setup :
       {Schedule{256, 1, 1000}, Schedule{256, 8, 1000}, Schedule{256, 8, 16}, Schedule{256, 3, 7},
        Schedule{12, 8, 64}, Schedule{8, 2, 5}}) {
    SCOPED_TRACE(testing::Message() << setup.pages << " pages, " << setup.sequences << " together, "
                                    << setup.prefill << " a step");
    Start(setup.pages, setup.sequences, setup.prefill);
    for (protocol::RequestId rid = 1; rid <= 8; ++rid)
      Submit(Completion(rid, std::string(rid * 17, static_cast<char>('a' + rid)), 70, rid));
    RunAll();
    for (protocol::RequestId rid = 1; rid <= 8; ++rid) {
      const auto answer = generator_->answer(rid, 0);
      ASSERT_TRUE(answer);
      const std::vector<TokenId> ids(answer->ids.begin(), answer->ids.end());
      const std::vector<float> probs(answer->logprobs.begin(), answer->logprobs.end());
      EXPECT_EQ(ids, sink_[rid].choices[0].ids);
      if (expected.size() < rid) {
        expected.push_back(ids);
        logprobs.push_back(probs);
        EXPECT_EQ(ids.size(), 70u);
        continue;
      }
      EXPECT_EQ(ids, expected[rid - 1]);
      EXPECT_EQ(std::memcmp(probs.data(), logprobs[rid - 1].data(), probs.size() * sizeof(float)),
                0);
    }
  }
}

TEST_F(GeneratorTest, AContinuationComputesOnlyWhatIsNew) {
  size_t computed = 0;
  model_options_.on_step = [&](std::span<const engine::SequenceStep> sequences) {
    for (const engine::SequenceStep& step : sequences) computed += step.tokens.size();
  };
  Start();
  const std::string prompt(3 * kPage + 7, 'p');
  Submit(Completion(1, prompt, 2 * kPage));
  RunAll();
  EXPECT_EQ(sink_[1].choices[0].end->usage.from_arena, 0);
  // The same again: all but the last token, whose logits are wanted, and the same answer.
  computed = 0;
  Submit(Completion(2, prompt, 2 * kPage));
  RunAll();
  EXPECT_EQ(sink_[2].choices[0].end->usage.from_arena, 3 * kPage + 6);
  EXPECT_EQ(sink_[2].choices[0].end->usage.computed, 1);
  EXPECT_EQ(sink_[2].choices[0].ids, sink_[1].choices[0].ids);
  EXPECT_EQ(computed, 1 + 2u * kPage - 1);
  // The answer is part of the next prompt.
  protocol::Submit next = Completion(3, "", 5);
  std::vector<TokenId> ids(prompt.begin(), prompt.end());
  ids.insert(ids.end(), sink_[1].choices[0].ids.begin(), sink_[1].choices[0].ids.end());
  next.request.prompt_ids = ids;
  Submit(next);
  RunAll();
  EXPECT_EQ(sink_[3].choices[0].end->usage.from_arena, 5 * kPage + 6);
  // A prompt of whole pages: of the last one all but a token.
  Submit(Completion(4, prompt.substr(0, 3 * kPage), 1));
  RunAll();
  EXPECT_EQ(sink_[4].choices[0].end->usage.from_arena, 3 * kPage - 1);
}

TEST_F(GeneratorTest, TheCacheGivesWayToWhatRuns) {
  Start(6, 4, 64);
  for (protocol::RequestId rid = 1; rid <= 20; ++rid) {
    Submit(Completion(rid, std::string(4 * kPage, static_cast<char>('a' + rid)), 2));
    RunAll();
    ASSERT_TRUE(sink_[rid].choices[0].end);
    EXPECT_LE(store_->used(), 6u);
  }
  EXPECT_EQ(store_->referenced(), 0u);
  EXPECT_GE(store_->cached(), 4u);
}

}  // namespace
}  // namespace perdure::worker
