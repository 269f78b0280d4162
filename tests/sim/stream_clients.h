// Clients of the stream simulation: what they ask for, and what they have got.
#pragma once

#include <deque>
#include <map>
#include <random>
#include <string>

#include "frontend/dispatcher.h"
#include "protocol/messages.h"

namespace perdure::sim {

// Kills the worker that computes it.
inline constexpr char kPoison = '\x01';
// Kills the worker that tokenizes it.
inline constexpr char kBitterPoison = '\x02';

struct Script {
  protocol::RequestId rid = 0;
  protocol::RequestId first_rid = 0;  // the same, unless its client asks again
  bool poison = false;
  frontend::ParsedRequest request;
};
// A request of a seed. `typed`: it says how its KV is to be kept, perhaps of which conversation it
// is.
Script MakeScript(std::mt19937& random, protocol::RequestId rid, bool poison, bool typed);

// What was received by choice, as choices wait for each other nowhere; -1 has what belongs to all.
using Parts = std::map<int, std::string>;
std::string Joined(const Parts& parts);

class Client final : public frontend::AnswerSink {
 public:
  explicit Client(const Script& script) : script_(script) {}
  void Respond(frontend::HttpResponse response) override;
  void RespondWithFile(frontend::HttpResponse head, UniqueFd) override { Respond(std::move(head)); }
  void BeginStream(frontend::HttpResponse head) override;
  void Stream(std::string more, size_t payload_bytes) override;
  void EndStream() override;
  bool caught_up() const override { return unread.empty(); }

  const Script& script() const { return script_; }
  bool ended() const { return ended_; }
  int status() const { return status_; }
  // Without what is allowed to differ: comments, measured times, how much of the prompt was cached,
  // and the request's number.
  const Parts& parts() const { return parts_; }

  std::deque<size_t> unread;  // payload bytes of what it has not taken yet
  // It hung up, or its frontend died: what it has is a prefix, but there will be no more.
  bool forgiven = false;

 private:
  std::string Comparable(std::string bytes) const;

  const Script script_;
  bool ended_ = false;
  int status_ = 0;
  Parts parts_;
};

}  // namespace perdure::sim
