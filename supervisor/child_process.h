// One running child: its process, control channel, status block and log. A shell without decisions:
// it tells its owner what happened.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/channel.h"
#include "protocol/heritage.h"
#include "shm/status.h"
#include "supervisor/event_loop.h"
#include "supervisor/log_tail.h"

namespace perdure::supervisor {

class ChildProcess {
 public:
  struct Exit {
    bool signaled = false;
    int code = 0;
  };
  // Called from the event loop. OnExit is the last call, after all frames and log lines.
  struct Callbacks {
    std::function<void(protocol::ReceivedFrame)> on_frame;
    std::function<void(const std::string& reason)> on_misuse;  // malformed frames, channel closed
    std::function<void()> on_writable;                         // the outbox has emptied
    std::function<void(Exit)> on_exit;
  };

  // Starts `program`; control_fd and status_fd of `heritage` are filled in. `inherited_fds` are the
  // other descriptors that the heritage names; they stay the caller's.
  static Result<std::unique_ptr<ChildProcess>> Start(
      EventLoop& loop, const std::filesystem::path& program, const std::string& argv0,
      protocol::Heritage heritage, std::vector<int> inherited_fds, Callbacks callbacks);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  int pid() const { return pid_; }
  int64_t started_ms() const { return started_ms_; }
  const shm::StatusShm& status() const { return *status_; }
  const std::deque<std::string>& log_lines() const { return log_.lines(); }

  // Nothing may be sent while something waits to be sent: so a child that does not read holds no
  // more than one message here, and the owner sends the newest state once it reads again.
  bool can_send() const { return !channel_.wants_write(); }
  template <class T>
  void Send(const T& message, UniqueFd fd = UniqueFd()) {
    channel_.Send(message, std::move(fd));
    UpdateInterest();
  }
  void Kill();

 private:
  ChildProcess(EventLoop& loop, protocol::Channel channel, shm::StatusBlock status,
               Callbacks callbacks);
  void UpdateInterest();
  void OnChannel(uint32_t events);
  void OnOutput();
  void OnExited();
  void ReadChannel();
  void DrainOutput();

  EventLoop& loop_;
  protocol::Channel channel_;
  shm::StatusBlock status_;
  Callbacks callbacks_;
  int pid_ = -1;
  UniqueFd pidfd_;
  UniqueFd output_;
  LogTail log_;
  int64_t started_ms_ = 0;
  bool misused_ = false;
  EventLoop::Token channel_watch_ = 0, output_watch_ = 0, exit_watch_ = 0;
};

}  // namespace perdure::supervisor
