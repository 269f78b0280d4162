// The two ends of a call that a frontend passes on to a worker: whom it answers, and whom it asks.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "frontend/answer_sink.h"
#include "frontend/worker_port.h"
#include "protocol/codec.h"
#include "protocol/frame.h"

namespace perdure::frontend {

class WholeAnswerSink : public AnswerSink {
 public:
  void Respond(HttpResponse response) override { responses.push_back(std::move(response)); }
  void RespondWithFile(HttpResponse head, UniqueFd file) override {
    responses.push_back(std::move(head));
    files.push_back(std::move(file));
  }
  void BeginStream(HttpResponse) override { ADD_FAILURE() << "these answers come in one piece"; }
  void Stream(std::string, size_t) override { ADD_FAILURE(); }
  void EndStream() override { ADD_FAILURE(); }
  bool caught_up() const override { return true; }

  std::vector<HttpResponse> responses;
  std::vector<UniqueFd> files;
};

template <class Command>
class CommandPort final : public WorkerPort {
 public:
  void Send(std::string bytes) override {
    reader_.Append(bytes);
    while (auto frame = *reader_.Next()) {
      EXPECT_EQ(frame->type, Command::kType);
      commands.push_back(*protocol::Decode<Command>(frame->payload));
    }
  }
  void SendWithFd(std::string, UniqueFd) override { ADD_FAILURE() << "nobody expects a file"; }
  size_t outbox_bytes() const override { return 0; }

  std::vector<Command> commands;

 private:
  protocol::FrameReader reader_;
};

}  // namespace perdure::frontend
