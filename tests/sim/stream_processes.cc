#include "tests/sim/stream_processes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>

#include "base/limits.h"
#include "protocol/codec.h"
#include "shm/arena.h"
#include "tests/sim/stream_clients.h"
#include "worker/cache_schedule.h"

namespace perdure::sim {
namespace {

// The arena, with somebody who hears of each store. What memory it has it keeps: the kernel takes
// longer to clear a slab than most workers live here.
class WatchedArena final : public shm::PageMemory {
 public:
  WatchedArena(std::unique_ptr<shm::Arena> arena, std::function<void()> stored)
      : PageMemory(arena->geometry(),
                   arena->address(0, shm::PageFormat::kFloat16) - arena->geometry().slabs_offset,
                   arena->root()),
        arena_(std::move(arena)),
        stored_(std::move(stored)) {}
  bool Grant(uint32_t slab) override { return arena_->Grant(slab); }
  bool GrantDescriptors(uint32_t pages) override { return arena_->GrantDescriptors(pages); }
  uint32_t descriptors_granted() const override { return arena_->descriptors_granted(); }
  void Return(uint32_t) override {}
  bool Adopt(const std::vector<bool>&) override { return true; }
  void Stored() override { stored_(); }

 private:
  const std::unique_ptr<shm::Arena> arena_;
  const std::function<void()> stored_;
};

class WatchedTokenizer final : public worker::FakeTokenizer {
 public:
  WatchedTokenizer(std::function<void(std::string_view)> encoding, std::function<void()> folding)
      : encoding_(std::move(encoding)), folding_(std::move(folding)) {}
  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      std::span<const text::TextRange> literal) const override {
    encoding_(text);
    return FakeTokenizer::Encode(text, literal);
  }
  std::string_view TokenBytes(TokenId id) const override {
    folding_();
    return FakeTokenizer::TokenBytes(id);
  }

 private:
  const std::function<void(std::string_view)> encoding_;
  const std::function<void()> folding_;
};

std::unique_ptr<shm::PageMemory> MemoryOf(const WorkerProcess::Settings& settings,
                                          std::function<void()> stored) {
  const shm::ArenaSpec spec = SpecOf(settings.pages);
  if (settings.arena_fd < 0)
    return shm::MakePrivateMemory(shm::ArenaGeometry::For(spec.shape).value()).value();
  return std::make_unique<WatchedArena>(shm::Arena::Attach(settings.arena_fd, spec).value(),
                                        std::move(stored));
}

worker::GeneratorOptions OptionsOf(const WorkerProcess::Settings& settings) {
  worker::GeneratorOptions options;
  options.admission.max_context = kContext;
  options.scheduler = {settings.sequences, settings.prefill, limits::kSequencesMax};
  options.slow_client_timeout_us = int64_t{1} << 60;
  options.now_us = [] { return int64_t{1}; };
  options.conversations.auto_detect = settings.auto_detect;
  options.conversations.conversations_max = kConversationsMax - 1;
  return options;
}

}  // namespace

shm::ArenaSpec SpecOf(shm::PageIndex pages_budget) {
  shm::ArenaSpec spec;
  for (const shm::PageFormat format : shm::kAllFormats)
    spec.shape.page_bytes[format] = worker::kFakeKv.PageBytes(worker::PrecisionOf(format));
  spec.shape.pages_max = kPagesMax;
  spec.shape.conversations_max = kConversationsMax;
  spec.pages_budget = pages_budget;
  return spec;
}

WorkerProcess::WorkerProcess(const Settings& settings, std::shared_ptr<Channel> channel,
                             const Doom& doom_)
    : doom(doom_),
      settings_(settings),
      channel_(std::move(channel)),
      status_(shm::StatusBlock::Create().value()),
      fake_([this] {
        worker::FakeModelOptions options;
        options.max_context = kContext;
        options.eos_logit = -2.0f;
        options.on_step = [this](std::span<const engine::SequenceStep> sequences) {
          CountDown(&doom.steps);
          for (const engine::SequenceStep& step : sequences) {
            if (std::find(step.tokens.begin(), step.tokens.end(), kPoison) != step.tokens.end())
              Die(true);
          }
        };
        worker::FakeModel fake = worker::MakeFakeModel(options);
        fake.model.tokenizer = std::make_unique<WatchedTokenizer>(
            [this](std::string_view text) {
              if (text.find(kBitterPoison) != std::string_view::npos) Die(true);
            },
            [this] { CountDown(&doom.folds); });
        return fake;
      }()),
      store_(std::make_unique<shm::PageStore>(
          MemoryOf(settings, [this] { CountDown(&doom.stores); }), settings.pages)),
      generator_(&fake_.model, OptionsOf(settings), store_.get(), &*status_, this) {
  // Deaths leave nothing that is not whole.
  EXPECT_EQ(store_->recovery().dropped, 0u);
  SayHello();
}

void WorkerProcess::SayHello() {
  Queue(protocol::Hello{"m", settings_.epoch, kContext, settings_.sequences});
  spoke_ = false;
}

void WorkerProcess::Die(bool counts) {
  throw Killed{counts, shm::ReadLastWords(*status_).step_rids};
}

void WorkerProcess::CountDown(int* left) {
  if (*left >= 0 && (*left)-- == 0) Die(false);
}

template <class T>
void WorkerProcess::Queue(const T& message) {
  std::string frame = protocol::MakeFrame(message);
  const bool dies = doom.sends == 0;
  // The frame was being written: any part of it may have left.
  if (dies) frame.resize(frame.size() / 2);
  if (!channel_->frontend_gone) channel_->to_frontend += frame;
  CountDown(&doom.sends);
  spoke_ = true;
}

void WorkerProcess::Read(size_t bytes) {
  std::string& waiting = channel_->to_worker;
  reader_.Append(std::string_view(waiting).substr(0, bytes));
  waiting.erase(0, bytes);
  while (const auto frame = reader_.Next().value()) OnFrame(*frame);
}

uint32_t WorkerProcess::Reduced(uint32_t credit) const {
  return credit - std::min(credit, settings_.credit_withheld);
}

void WorkerProcess::OnFrame(const protocol::Frame& frame) {
  switch (frame.type) {
    case protocol::MessageType::kSubmit: {
      auto submit = *protocol::Decode<protocol::Submit>(frame.payload);
      submit.credit_bytes = Reduced(submit.credit_bytes);
      EXPECT_TRUE(generator_.Submit(submit));
      break;
    }
    case protocol::MessageType::kResume: {
      auto resume = *protocol::Decode<protocol::Resume>(frame.payload);
      resume.credit_bytes = Reduced(resume.credit_bytes);
      for (const auto& choice : resume.choices) tokens_resumed_ += choice.token_ids.size();
      resuming_ = true;
      EXPECT_TRUE(generator_.Resume(resume));
      resuming_ = false;
      break;
    }
    case protocol::MessageType::kCancel:
      generator_.Cancel(protocol::Decode<protocol::Cancel>(frame.payload)->rid);
      break;
    case protocol::MessageType::kRelease:
      generator_.Release(protocol::Decode<protocol::Release>(frame.payload)->rid);
      break;
    case protocol::MessageType::kCredit: {
      const auto credit = *protocol::Decode<protocol::Credit>(frame.payload);
      generator_.Credit(credit.rid, credit.bytes);
      break;
    }
    case protocol::MessageType::kTenantSettings:
      generator_.SetTenants(*protocol::Decode<protocol::TenantSettings>(frame.payload));
      break;
    default:
      ADD_FAILURE() << "a frame that frontends do not send";
  }
}

// As WorkerLoop does it.
void WorkerProcess::TakeNewChannel(std::shared_ptr<Channel> channel) {
  channel_->worker_gone = true;
  channel_ = std::move(channel);
  reader_ = {};
  cancelling_ = true;
  generator_.CancelAll();
  cancelling_ = false;
  EXPECT_EQ(generator_.live(), 0u);
  EXPECT_EQ(store_->referenced(), pinned());
  SayHello();
}

size_t WorkerProcess::pinned() const {
  std::set<shm::PageIndex> pages;
  for (const auto& conversation : generator_.conversations().all())
    pages.insert(conversation->pinned.begin(), conversation->pinned.end());
  return pages.size();
}

bool WorkerProcess::Work() {
  if (generator_.HasWork())
    generator_.Step();
  else if (generator_.NeedsScrub())
    generator_.Scrub();
  else
    return false;
  EXPECT_EQ(store_->damaged(), 0u);
  return true;
}

void EventOrder::Check(const protocol::Frame& frame) {
  if (frame.type == protocol::MessageType::kEvent) {
    const auto event = *protocol::Decode<protocol::Event>(frame.payload);
    Seen& seen = seen_[{event.rid, event.choice}];
    EXPECT_FALSE(seen.ended) << "request " << event.rid << ": an event after the end";
    EXPECT_EQ(event.seq, seen.last_seq + 1) << "request " << event.rid;
    seen.last_seq = event.seq;
  } else if (frame.type == protocol::MessageType::kEnd) {
    const auto end = *protocol::Decode<protocol::End>(frame.payload);
    Seen& seen = seen_[{end.rid, end.choice}];
    EXPECT_FALSE(seen.ended) << "request " << end.rid << ": a second end";
    seen.ended = true;
  }
}

}  // namespace perdure::sim
