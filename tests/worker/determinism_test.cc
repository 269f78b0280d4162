// The contract of docs/determinism.md with the real engine: the same tokens and the same bits of
// logprobs, alone or in company, in chunks of any size, on any number of threads, after losing all
// pages and starting again.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "engine/kv_view.h"
#include "shm/status.h"
#include "tests/engine/synth_model.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/recording_sink.h"
#include "tests/worker/test_store.h"
#include "worker/generator.h"

namespace perdure::worker {
namespace {

constexpr int kRequests = 8;
constexpr int kAnswer = 48;

struct Schedule {
  int threads;
  int sequences;
  int prefill;
  PageIndex pages;
  bool twice = false;  // all requests once more, beside what they left in the cache
};

struct Answer {
  std::vector<TokenId> ids;
  std::vector<uint32_t> logprob_bits;
  std::vector<std::vector<std::string>> told;  // to the client, by choice
  bool operator==(const Answer&) const = default;
};

// Every way of keeping KV, by the number of a request: alone, in company, mixed and switched.
CacheChoice CacheNumber(int k) {
  CacheChoice cache;
  switch (k) {
    case 1:
      cache.settings.type = "chunked_kv";
      cache.settings.chunk_size = 64;
      break;
    case 2:
      cache.settings.type = "quantized_kv";
      break;
    case 3:
      cache.settings.type = "quantized_kv";
      cache.settings.compression_ratio = 0.25f;
      break;
    case 4:
      cache.settings.type = "concatenate_kv";
      break;
    case 5:
      cache.settings.type = "rotating_kv";
      cache.settings.max_size = 77;
      cache.settings.keep = 5;
      break;
    case 6:
      // Codes from the first whole page after position 40 on; few positions from 101 on; all again.
      cache.settings.type = "kv";
      cache.then.resize(3);
      cache.then[0].at = 40;
      cache.then[0].settings.type = "quantized_kv";
      cache.then[1].at = 101;
      cache.then[1].settings.type = "rotating_kv";
      cache.then[1].settings.max_size = 80;
      cache.then[1].settings.keep = 3;
      cache.then[2].at = 150;
      cache.then[2].settings.type = "kv";
      break;
    case 7:
      // Rotating in 8 bits, in rows.
      cache.settings.type = "rotating_kv";
      cache.settings.max_size = 100;
      cache.settings.keep = 33;
      cache.settings.bits = 8;
      cache.settings.chunk_size = 32;
      break;
  }
  return cache;
}

bool IsRotating(int k) { return k >= 5; }

// Every way of sampling at once: request k differs from its neighbours in settings and length.
protocol::Submit RequestNumber(int k, int vocab) {
  protocol::Submit submit;
  submit.rid = static_cast<protocol::RequestId>(k + 1);
  protocol::GenerationRequest& request = submit.request;
  request.kind = protocol::RequestKind::kCompletion;
  request.prompt_ids = engine::SynthTokens(static_cast<uint64_t>(k), 5 + k * 23, vocab);
  request.max_tokens = kAnswer;
  request.ignore_eos = true;
  request.seed = 1000 + static_cast<uint64_t>(k);
  request.sampling.temperature = k % 4 == 0 ? 0.0f : 0.7f + 0.1f * static_cast<float>(k);
  if (k % 2 == 1) request.sampling.top_p = 0.9f;
  if (k % 3 == 1) request.sampling.top_k = 40;
  if (k % 3 == 2) request.sampling.min_p = 0.02f;
  if (k % 4 == 1) request.sampling.repetition_penalty = 1.2f;
  if (k % 4 == 2) request.sampling.frequency_penalty = 0.5f;
  if (k % 4 == 3) request.sampling.presence_penalty = 0.5f;
  request.top_logprobs = std::min(20, 3 * k);
  request.cache = CacheNumber(k);
  if (k == 1) request.choices = 2;  // its prompt fills no page that they would share
  submit.credit_bytes = 4 * limits::kCreditBytes;
  return submit;
}

// Models, the worker's parts around them, and what they sent.
struct Running {
  Model model;
  std::unique_ptr<shm::PageStore> store;
  shm::StatusBlock status = shm::StatusBlock::Create().value();
  RecordingSink sink;
  std::unique_ptr<Generator> generator;

  std::vector<std::vector<std::string>> Told(protocol::RequestId rid) {
    std::vector<std::vector<std::string>> told;
    for (const auto& [index, choice] : sink[rid].choices) told.push_back(BitsOf(choice.logprobs));
    return told;
  }
};

class DeterminismTest : public testing::TestWithParam<engine::SynthSpec> {
 protected:
  DeterminismTest() { engine::WriteSynthModel(GetParam(), dir_.path()); }

  std::unique_ptr<Running> Start(const Schedule& schedule) {
    auto running = std::make_unique<Running>();
    running->model = std::move(MakeFakeModel().model);  // for its tokenizer alone
    engine::EngineOptions engine_options;
    engine_options.threads = schedule.threads;
    auto engine = engine::Engine::Load(dir_.path(), engine_options);
    EXPECT_TRUE(engine) << engine.error().message;
    if (!engine) return nullptr;
    running->model.engine = std::move(*engine);
    CollectEosIds(&running->model);

    GeneratorOptions options;
    options.admission.max_context = 1024;
    options.scheduler = {schedule.sequences, schedule.prefill, limits::kSequencesMax};
    options.slow_client_timeout_us = 1'000'000'000;
    options.now_us = &MonotonicUs;
    running->store = MakeStore(running->model.engine->info().kv, schedule.pages);
    FillWithNan(running->store.get());
    running->generator = std::make_unique<Generator>(&running->model, options, running->store.get(),
                                                     &*running->status, &running->sink);
    return running;
  }

  // `prefilled`: tokens that were computed more than one at a time.
  std::vector<Answer> Run(const Schedule& schedule, uint64_t* prefilled) {
    const std::unique_ptr<Running> running = Start(schedule);
    if (!running) return {};
    Generator& generator = *running->generator;
    RecordingSink& sink = running->sink;
    for (int k = 0; k < kRequests; ++k) {
      const auto submit = RequestNumber(k, GetParam().vocab);
      EXPECT_TRUE(generator.Submit(submit));
    }
    while (generator.HasWork()) generator.Step();
    if (schedule.twice) {
      // What the first ones left in the cache is where these begin.
      for (int k = 0; k < kRequests; ++k) {
        auto submit = RequestNumber(k, GetParam().vocab);
        submit.rid += kRequests;
        EXPECT_TRUE(generator.Submit(submit));
      }
      while (generator.HasWork()) generator.Step();
      for (int k = 0; k < kRequests; ++k) {
        const protocol::RequestId rid = static_cast<protocol::RequestId>(k + 1);
        const auto first = generator.answer(rid, 0), second = generator.answer(rid + kRequests, 0);
        EXPECT_TRUE(first && second && std::ranges::equal(first->ids, second->ids) &&
                    std::ranges::equal(first->logprobs, second->logprobs));
        EXPECT_EQ(running->Told(rid), running->Told(rid + kRequests));
        const auto& usage = sink[rid + kRequests].choices[0].end->usage;
        // What has rotated is gone, and with it what would be needed to go on in the middle.
        if (!IsRotating(k)) {
          EXPECT_EQ(usage.from_arena, usage.prompt_tokens - 1) << k;
        } else {
          EXPECT_GT(usage.from_arena, 0) << k;
        }
      }
      return {};
    }
    *prefilled = running->status->tokens_prefilled.load();

    std::vector<Answer> answers;
    for (int k = 0; k < kRequests; ++k) {
      const auto view = generator.answer(static_cast<protocol::RequestId>(k + 1), 0);
      EXPECT_TRUE(view);
      if (!view) return {};
      Answer& answer = answers.emplace_back();
      answer.ids.assign(view->ids.begin(), view->ids.end());
      for (float logprob : view->logprobs)
        answer.logprob_bits.push_back(std::bit_cast<uint32_t>(logprob));
      EXPECT_EQ(answer.ids, sink[static_cast<protocol::RequestId>(k + 1)].choices[0].ids);
      EXPECT_EQ(answer.ids.size(), static_cast<size_t>(kAnswer));
      answer.told = running->Told(static_cast<protocol::RequestId>(k + 1));
      EXPECT_EQ(answer.told.size(), k == 1 ? 2u : 1u);
      EXPECT_EQ(answer.told[0].size(), static_cast<size_t>(kAnswer));
    }
    return answers;
  }

  // All requests go on in a new process after their first `taken` tokens; what follows is told.
  void Resume(const Schedule& schedule, size_t taken, const std::vector<Answer>& expected) {
    const std::unique_ptr<Running> whole = Start(schedule), rest = Start(schedule);
    ASSERT_TRUE(whole && rest);
    for (int k = 0; k < kRequests; ++k)
      ASSERT_TRUE(whole->generator->Submit(RequestNumber(k, GetParam().vocab)));
    while (whole->generator->HasWork()) whole->generator->Step();
    for (int k = 0; k < kRequests; ++k) {
      const auto submit = RequestNumber(k, GetParam().vocab);
      protocol::Resume resume;
      resume.rid = submit.rid;
      resume.request = submit.request;
      resume.prompt_ids = *submit.request.prompt_ids;
      resume.ticket = whole->sink[submit.rid].accepted->ticket;
      resume.credit_bytes = submit.credit_bytes;
      rest->sink[submit.rid].accepted.emplace();
      for (const auto& [index, choice] : whole->sink[submit.rid].choices) {
        protocol::ChoiceSoFar so_far;
        so_far.last_seq = taken;
        so_far.token_ids.assign(choice.ids.begin(),
                                choice.ids.begin() + static_cast<ptrdiff_t>(taken));
        RecordedChoice& recorded = rest->sink[submit.rid].choices[index];
        recorded.last_seq = taken;
        recorded.ids = so_far.token_ids;
        resume.choices.push_back(std::move(so_far));
      }
      ASSERT_TRUE(rest->generator->Resume(resume));
    }
    while (rest->generator->HasWork()) rest->generator->Step();
    for (int k = 0; k < kRequests; ++k) {
      const protocol::RequestId rid = static_cast<protocol::RequestId>(k + 1);
      EXPECT_EQ(rest->sink[rid].choices[0].ids, expected[static_cast<size_t>(k)].ids);
      auto told = expected[static_cast<size_t>(k)].told;
      for (auto& choice : told)
        choice.erase(choice.begin(), choice.begin() + static_cast<ptrdiff_t>(taken));
      EXPECT_EQ(rest->Told(rid), told) << "request " << rid;
    }
  }

  // Every page is NaN as binary16 throughout: what was never computed shows where it is read.
  static void FillWithNan(shm::PageStore* store) {
    for (const shm::PageFormat format : shm::kAllFormats) {
      std::vector<PageIndex> pages;
      while (const auto page = store->Allocate(format)) pages.push_back(*page);
      for (PageIndex page : pages) {
        std::memset(store->address(page), 0xFF, store->page_bytes(format));
        store->Release(page);
      }
    }
  }

  engine::TempDir dir_;
};

TEST_P(DeterminismTest, EqualBitsUnderEverySchedule) {
  uint64_t prefilled = 0;
  const std::vector<Answer> expected = Run({1, 1, 64, 256}, &prefilled);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kRequests));
  EXPECT_NE(expected[1].ids, expected[2].ids);
  bool lost_pages = false;
  for (const int threads : {1, 2}) {
    for (const int prefill : {16, 64, 256}) {
      // At their ends the nine need 40 pages together, the longest one 7 of them.
      uint64_t with_enough = 0;
      for (const PageIndex pages : {256u, 14u, 8u}) {
        SCOPED_TRACE(testing::Message() << threads << " threads, " << prefill << " tokens a step, "
                                        << pages << " pages");
        EXPECT_EQ(Run({threads, 8, prefill, pages}, &prefilled), expected);
        if (pages == 256) with_enough = prefilled;
        lost_pages = lost_pages || prefilled > with_enough;
      }
    }
  }
  EXPECT_TRUE(lost_pages) << "the case of lost pages was not reached";
}

TEST_P(DeterminismTest, EqualBitsFromTheCache) {
  uint64_t prefilled = 0;
  for (const int prefill : {16, 256}) Run({2, 8, prefill, 256, true}, &prefilled);
}

TEST_P(DeterminismTest, EqualBitsAfterADeath) {
  uint64_t prefilled = 0;
  const std::vector<Answer> expected = Run({1, 1, 64, 256}, &prefilled);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kRequests));
  for (const size_t taken : {0u, 1u, 31u, 47u}) {
    SCOPED_TRACE(testing::Message() << "after " << taken << " tokens");
    Resume({2, 8, 64, 256}, taken, expected);
  }
}

TEST_P(DeterminismTest, AnotherSeedIsAnotherAnswer) {
  uint64_t prefilled = 0;
  const std::vector<Answer> answers = Run({1, 8, 64, 256}, &prefilled);
  ASSERT_EQ(answers.size(), static_cast<size_t>(kRequests));
  for (size_t k = 1; k < answers.size(); ++k) EXPECT_NE(answers[k].ids, answers[k - 1].ids);
}

engine::SynthSpec Plain() {
  engine::SynthSpec spec;
  spec.logit_std = 2.0;
  return spec;
}

engine::SynthSpec Quantized() {
  engine::SynthSpec spec;
  spec.model_type = "qwen2";
  spec.hidden = 128;
  spec.head_dim = 32;
  spec.feed_forward = 192;
  spec.bits = 4;
  spec.tied = false;
  spec.logit_std = 2.0;
  return spec;
}

INSTANTIATE_TEST_SUITE_P(Models, DeterminismTest, testing::Values(Plain(), Quantized()),
                         [](const auto& info) {
                           return info.param.model_type +
                                  (info.param.bits == 0 ? "_bf16" : "_4bit");
                         });

}  // namespace
}  // namespace perdure::worker
