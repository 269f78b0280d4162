// The processes of the stream simulation, as far as they are not the real ones: a worker around the
// real generator that can be killed anywhere, and the frontend's end of its channel.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "frontend/dispatcher.h"
#include "protocol/frame.h"
#include "protocol/messages.h"
#include "shm/arena.h"
#include "shm/page_store.h"
#include "shm/status.h"
#include "tests/worker/fake_model.h"
#include "worker/generator.h"

namespace perdure::sim {

inline constexpr int kContext = 96;
inline constexpr int kPagesMax = 20;
inline constexpr int kConversationsMax = 8;

// The end of a worker process. Thrown by whatever it was doing: nothing is stored after it.
struct Killed {
  bool counts = false;                         // a crash; else SIGKILL from outside
  std::vector<protocol::RequestId> step_rids;  // in its manifest
};

// How many more of each a worker gets done before it is killed; never for negative ones.
struct Doom {
  int steps = -1;
  int sends = -1;   // of frames; the last one is torn
  int stores = -1;  // to the arena's descriptors
  int folds = -1;   // of tokens
};

// A socketpair: bytes that were sent and have not arrived.
struct Channel {
  std::string to_worker, to_frontend;
  bool worker_gone = false, frontend_gone = false;
};

shm::ArenaSpec SpecOf(shm::PageIndex pages_budget);

class WorkerProcess final : private worker::EventSink {
 public:
  struct Settings {
    uint32_t epoch = 0;
    int sequences = 1, prefill = 1;
    shm::PageIndex pages = kPagesMax;
    int arena_fd = -1;        // none: memory of its own
    bool auto_detect = true;  // conversations
    // Of the credit that each request gets so many bytes are held back, so that it runs out.
    uint32_t credit_withheld = 0;
  };

  // Maps the arena and says Hello; throws Killed.
  WorkerProcess(const Settings& settings, std::shared_ptr<Channel> channel, const Doom& doom);

  // All of these throw Killed.
  void Read(size_t bytes);  // of what waits in the channel
  void TakeNewChannel(std::shared_ptr<Channel> channel);
  bool Work();  // a step, or the scrub; false: there is nothing to do

  const worker::Generator& generator() const { return generator_; }
  const shm::PageStore& store() const { return *store_; }
  size_t pinned() const;  // pages
  const Channel& channel() const { return *channel_; }
  Channel& channel() { return *channel_; }
  bool has_spoken() const { return spoke_; }          // something beyond Hello
  bool is_resuming() const { return resuming_; }      // it is taking a Resume, or was killed in it
  bool is_cancelling() const { return cancelling_; }  // its frontend is gone; likewise
  uint64_t tokens_resumed() const { return tokens_resumed_; }

  Doom doom;
  std::vector<protocol::RequestId> cleared;  // messages to the supervisor

 private:
  template <class T>
  void Queue(const T& message);
  void Send(const protocol::Accepted& message) override { Queue(message); }
  void Send(const protocol::Begun& message) override { Queue(message); }
  void Send(const protocol::Event& message) override { Queue(message); }
  void Send(const protocol::End& message) override { Queue(message); }
  void Send(const protocol::Failed& message) override { Queue(message); }
  void Send(const protocol::CacheAnswer& message) override { Queue(message); }
  void Send(const protocol::ConversationAnswer& message) override { Queue(message); }
  void Send(const protocol::ConversationFile& message, UniqueFd) override { Queue(message); }
  void Send(const protocol::Forgotten& message) override { Queue(message); }
  void Send(const protocol::Cleared& message) override { cleared.push_back(message.rid); }
  void OnFrame(const protocol::Frame& frame);
  uint32_t Reduced(uint32_t credit) const;
  void CountDown(int* left);
  [[noreturn]] void Die(bool counts);
  void SayHello();

  const Settings settings_;
  std::shared_ptr<Channel> channel_;
  shm::StatusBlock status_;
  worker::FakeModel fake_;
  std::unique_ptr<shm::PageStore> store_;
  worker::Generator generator_;
  protocol::FrameReader reader_;
  bool spoke_ = false, resuming_ = false, cancelling_ = false;
  uint64_t tokens_resumed_ = 0;
};

// The frontend's end of a channel; it outlives the worker, whose last bytes are read to their end.
struct Connection final : public frontend::WorkerPort {
  Connection(protocol::ChannelOffer offer_, std::shared_ptr<Channel> channel_)
      : offer(std::move(offer_)), channel(std::move(channel_)) {}
  void Send(std::string frame) override {
    if (!channel->worker_gone) channel->to_worker += frame;
  }
  void SendWithFd(std::string, UniqueFd) override { CHECK_MSG(false, "nobody sends a file"); }
  size_t outbox_bytes() const override { return 0; }

  const protocol::ChannelOffer offer;
  const std::shared_ptr<Channel> channel;
  frontend::WorkerId id = 0;
  protocol::FrameReader reader;
};

// What a frontend must see of the answers on its channels: events numbered 1, 2, …, across all
// workers, and one end.
class EventOrder {
 public:
  void Check(const protocol::Frame& frame);

 private:
  struct Seen {
    uint64_t last_seq = 0;
    bool ended = false;
  };
  std::map<std::pair<protocol::RequestId, int>, Seen> seen_;
};

}  // namespace perdure::sim
