// Conversations of two tenants on a worker that dies, with memory or without, and a disk that
// answers late, in any order between its threads, and fails at times: whatever happens, an answer
// is that of a generator without cache and disk, and what was said to be stored is.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/log.h"
#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

using protocol::RequestId;

CacheChoice CacheOfKind(int kind) {
  switch (kind) {
    case 0:
      return Quantized(8);
    case 1:
      return Rotating(69, 5);
    case 2:
      return Chunked(64);
    case 3:
      return OfType("concatenate_kv");
    case 4: {
      CacheChoice cache = OfType("kv");
      cache.then = {{40, Quantized(4).settings}, {100, Rotating(70, 0).settings}};
      return cache;
    }
    default:
      return {};
  }
}

class SnapshotSimulationTest : public SnapshotTest {
 protected:
  struct Talk {
    std::string tenant, id;
    CacheChoice cache;
    Ids history;
    bool stores = true;
  };
  struct Live {
    protocol::Submit submit;
    size_t talk = 0;
    size_t last_seq = 0;
  };

  void Simulate(uint32_t seed) {
    random_.seed(seed);
    disk_ = MemoryPersistence();
    live_.clear();
    persisted_.clear();
    options_.conversations.conversations_max = Pick(2, 8);
    options_.conversations.idle_timeout_s = Pick(0, 3) == 0 ? 20 : 3600;
    options_.stored_bytes_max =
        Pick(0, 3) == 0 ? uint64_t{60'000} * static_cast<uint64_t>(Pick(1, 4)) : uint64_t{1} << 30;
    Boot(static_cast<PageIndex>(Pick(20, 40)), 12);
    MakeTalks();
    for (int i = 0; i < 250 && !HasFailure(); ++i) Act();
    disk_.fails_turns = disk_.fails_pages = disk_.loses_turns = false;
    disk_.on_fetch = nullptr;
    disk_.RetryTurns();
    Run();
    NoteEnds();
    if (HasFailure()) return;
    EXPECT_TRUE(live_.empty());
    generator_->KeepAll(10'000);
    for (const auto& [rid, choice] : persisted_) EXPECT_TRUE(disk_.HasTurn(rid, choice));
    ExpectNothingLeft();
  }

  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool OneIn(int n) { return Pick(1, n) == 1; }

  void MakeTalks() {
    talks_.clear();
    for (int i = 0; i < 5; ++i) {
      Talk talk;
      talk.tenant = i % 2 == 0 ? "one" : "two";
      if (!OneIn(4)) talk.id = "talk " + std::to_string(i / 2);
      talk.cache = CacheOfKind(Pick(0, 7));
      // Tenants may begin with the same words.
      talk.history = Text(static_cast<size_t>(Pick(1, 120)), i / 2);
      talk.stores = !OneIn(6);
      talks_.push_back(talk);
    }
  }

  void Act() {
    const int what = Pick(0, 99);
    clock_us += Pick(0, 2000);
    if (what < 10) {
      if (live_.size() < 6) AskSomething();
    } else if (what < 55) {
      if (generator_->HasWork()) generator_->Step();
    } else if (what < 75) {
      if (disk_.DoAny(random_) && !OneIn(5)) generator_->TakeAnswers();
    } else if (what < 80) {
      generator_->TakeAnswers();
    } else if (what < 90) {
      if (generator_->HasUpkeep()) generator_->Upkeep();
    } else if (what < 92) {
      GiveUpOne();
    } else if (what < 94) {
      clock_us += 8'000'000;
      now_ms_ += 8'000;
      generator_->Tick();
    } else if (what < 96) {
      disk_.fails_turns = OneIn(3);
      disk_.fails_pages = OneIn(3);
      disk_.loses_turns = OneIn(6);
      disk_.on_fetch = nullptr;
      if (OneIn(3))
        disk_.on_fetch = [this](PageFetched* answer) {
          if (OneIn(3)) answer->is_read = false;
        };
      if (!disk_.fails_turns) disk_.RetryTurns();
    } else if (what < 98) {
      for (int i = Pick(1, 60); i > 0 && generator_->HasWork(); --i) generator_->Step();
    } else {
      DieAndGoOn();
    }
    NoteEnds();
  }

  void AskSomething() {
    const size_t at = static_cast<size_t>(Pick(0, static_cast<int>(talks_.size()) - 1));
    Talk& talk = talks_[at];
    Ids prompt = talk.history;
    if (prompt.size() > 450) talk.history = prompt = Text(30, Pick(0, 20));
    // Now and then what was said is edited.
    if (OneIn(8)) prompt.resize(static_cast<size_t>(Pick(1, static_cast<int>(prompt.size()))));
    prompt = prompt + Text(static_cast<size_t>(Pick(1, 40)), Pick(0, 3));
    auto submit = Ask(prompt, Pick(1, 50), talk.cache);
    if (OneIn(3)) submit.request.cache = {};
    submit.request.tenant = talk.tenant;
    submit.request.conversation_id = talk.id;
    submit.request.store = talk.stores;
    if (OneIn(6)) submit.request.choices = 2;
    Live& live = live_[submit.rid];
    live.submit = submit;
    live.talk = at;
    EXPECT_TRUE(generator_->Submit(submit));
  }

  RequestId AnyRid() {
    auto it = live_.begin();
    std::advance(it, Pick(0, static_cast<int>(live_.size()) - 1));
    return it->first;
  }

  void GiveUpOne() {
    if (live_.empty()) return;
    if (OneIn(4)) {
      generator_->CancelAll();
      for (const auto& [rid, live] : live_) sink_.closed[rid] = true;
      live_.clear();
      return;
    }
    const RequestId rid = AnyRid();
    generator_->Cancel(rid);
    sink_.closed[rid] = true;
    live_.erase(rid);
  }

  // The frontend goes on with the next worker, as far as it has heard.
  void DieAndGoOn() {
    const RecordingSink before = sink_;
    const size_t turns = static_cast<size_t>(Pick(0, 3)), pages = static_cast<size_t>(Pick(0, 3));
    // What fails at the death was not kept for a retry: it is lost with the worker.
    if (OneIn(2)) {
      DieWithDisk(turns, pages);
    } else {
      generator_.reset();
      disk_.Crash(turns, pages);
      Boot(pages_, 12);
    }
    for (const auto& [rid, live] : live_) {
      const auto told = before.requests.find(rid);
      if (told == before.requests.end() || !told->second.accepted) {
        EXPECT_TRUE(generator_->Submit(live.submit));
        continue;
      }
      RecordedRequest heard = told->second;
      protocol::Resume resume;
      resume.rid = rid;
      resume.request = live.submit.request;
      resume.prompt_ids = heard.accepted->prompt_ids;
      resume.ticket = heard.accepted->ticket;
      resume.credit_bytes = live.submit.credit_bytes;
      resume.choices.resize(static_cast<size_t>(live.submit.request.choices));
      for (size_t i = 0; i < resume.choices.size(); ++i) {
        RecordedChoice& choice = heard.choices[static_cast<int>(i)];
        protocol::ChoiceSoFar& so_far = resume.choices[i];
        so_far.last_seq = choice.last_seq;
        so_far.token_ids = choice.ids;
        so_far.ended = choice.end.has_value();
        so_far.from_arena = choice.from_arena;
        if (choice.end) so_far.last_seq = choice.end->seq;
      }
      sink_.requests[rid] = heard;
      EXPECT_TRUE(generator_->Resume(resume));
    }
  }

  void NoteEnds() {
    std::vector<RequestId> done;
    for (const auto& [rid, live] : live_) {
      RecordedRequest& request = sink_[rid];
      ASSERT_FALSE(request.failed) << request.failed->message;
      int ended = 0;
      for (const auto& [index, choice] : request.choices) ended += choice.end ? 1 : 0;
      if (ended == live.submit.request.choices) done.push_back(rid);
    }
    for (const RequestId rid : done) {
      Check(live_.at(rid));
      generator_->Release(rid);
      sink_.closed[rid] = true;
      live_.erase(rid);
      ++ended_;
    }
  }

  void Check(const Live& live) {
    const RequestId rid = live.submit.rid;
    for (int index = 0; index < live.submit.request.choices; ++index) {
      const RecordedChoice& choice = sink_[rid].choices[index];
      auto alone = live.submit;
      alone.request.prompt_ids = sink_[rid].accepted->prompt_ids;
      EXPECT_EQ(*alone.request.prompt_ids, *live.submit.request.prompt_ids);
      if (index == 0) {
        alone.request.choices = 1;
        EXPECT_EQ(choice.ids, Cold(alone, Ticket(rid).cache)) << "request " << rid;
      }
      from_disk_ += static_cast<uint64_t>(choice.end->usage.from_snapshot);
      if (choice.end->persisted) {
        EXPECT_TRUE(live.submit.request.store);
        EXPECT_TRUE(disk_.HasTurn(rid, static_cast<uint32_t>(index))) << "request " << rid;
        persisted_.emplace_back(rid, static_cast<uint32_t>(index));
        ++stored_;
      }
    }
    if (!live.submit.request.store) {
      EXPECT_FALSE(disk_.HasTurn(rid));
    }
    talks_[live.talk].history = History(rid, 0);
  }

  std::mt19937 random_;
  std::vector<Talk> talks_;
  std::map<RequestId, Live> live_;
  std::vector<std::pair<RequestId, uint32_t>> persisted_;
  int ended_ = 0, stored_ = 0;
  uint64_t from_disk_ = 0;
};

TEST_F(SnapshotSimulationTest, WhateverHappensAnswersAreThoseGivenAlone) {
  const LogLevel level = GetLogLevel();
  SetLogLevel(LogLevel::kError);  // deaths are many
  for (uint32_t seed = 1; seed <= 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulate(seed);
  }
  SetLogLevel(level);
  // Or this would show nothing.
  EXPECT_GT(ended_, 1500);
  EXPECT_GT(stored_, 500);
  EXPECT_GT(from_disk_, 5000u);
}

}  // namespace
}  // namespace perdure::worker
