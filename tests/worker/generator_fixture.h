// The generator over a fake model, and what its tests ask it for.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/limits.h"
#include "engine/kv_view.h"
#include "shm/status.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/recording_sink.h"
#include "tests/worker/test_store.h"
#include "worker/generator.h"

namespace perdure::worker {

inline constexpr int kPage = engine::kPageTokens;

inline int64_t clock_us = 0;

inline protocol::Submit Completion(protocol::RequestId rid, const std::string& prompt,
                                   int max_tokens, uint64_t seed = 1) {
  protocol::Submit submit;
  submit.rid = rid;
  submit.request.kind = protocol::RequestKind::kCompletion;
  submit.request.prompt = prompt;
  submit.request.max_tokens = max_tokens;
  submit.request.seed = seed;
  submit.credit_bytes = limits::kCreditBytes;
  return submit;
}

inline protocol::Submit Chat(protocol::RequestId rid, const std::string& chat_json,
                             int max_tokens) {
  protocol::Submit submit = Completion(rid, "", max_tokens);
  submit.request.kind = protocol::RequestKind::kChat;
  submit.request.chat_json = chat_json;
  return submit;
}

class GeneratorTest : public testing::Test {
 protected:
  GeneratorTest() : status_(shm::StatusBlock::Create().value()) { clock_us = 1'000'000; }

  void Start(PageIndex pages = 256, int sequences = 8, int prefill = 64) {
    StartOver(MakeStore(kFakeKv, pages), sequences, prefill);
  }
  // As a new process would.
  void StartOver(std::unique_ptr<shm::PageStore> store, int sequences = 8, int prefill = 64) {
    generator_.reset();
    fake_ = MakeFakeModel(model_options_);
    if (adapt_model_) adapt_model_(&fake_.model);
    options_.admission.max_context = model_options_.max_context;
    options_.scheduler = {sequences, prefill, limits::kSequencesMax};
    options_.slow_client_timeout_us = 120'000'000;
    options_.now_us = [] { return clock_us; };
    store_ = std::move(store);
    sink_ = RecordingSink();
    generator_ =
        std::make_unique<Generator>(&fake_.model, options_, store_.get(), &*status_, &sink_);
  }
  void Submit(const protocol::Submit& submit) { ASSERT_TRUE(generator_->Submit(submit)); }
  void RunAll() {
    for (int i = 0; i < 100'000 && generator_->HasWork(); ++i) {
      clock_us += 1000;
      generator_->Step();
    }
    EXPECT_FALSE(generator_->HasWork());
  }
  void ExpectFailed(protocol::RequestId rid, ErrorCode code, const std::string& param) {
    ASSERT_TRUE(sink_[rid].failed) << "request " << rid;
    EXPECT_EQ(ErrorCodeFromWire(sink_[rid].failed->error_code), code) << sink_[rid].failed->message;
    EXPECT_EQ(sink_[rid].failed->param, param);
    EXPECT_FALSE(sink_[rid].failed->message.empty());
    EXPECT_EQ(generator_->live(), 0u);
  }

  FakeModelOptions model_options_;
  std::function<void(Model*)> adapt_model_;
  GeneratorOptions options_;  // what StartOver does not set is the test's
  FakeModel fake_;
  shm::StatusBlock status_;
  std::unique_ptr<shm::PageStore> store_;
  RecordingSink sink_;
  std::unique_ptr<Generator> generator_;
};

}  // namespace perdure::worker
