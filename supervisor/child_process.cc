#include "supervisor/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/clock.h"
#include "supervisor/spawn.h"

namespace perdure::supervisor {
namespace {

// A child's line goes to our standard error as it is. Who reads that may have stopped reading: then
// lines are lost, as the supervisor must not stand still. A pipe that is ready takes PIPE_BUF
// bytes.
void PassOn(const std::string& line) {
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return;
  if (write(STDERR_FILENO, line.data(), line.size()) < 0) return;
}

// Reading one child's log must not keep the loop from the others.
constexpr int kOutputReadsPerCall = 16;
// Each takes what the socket's buffer holds.
constexpr int kChannelReadsAtExit = 4;

}  // namespace

ChildProcess::ChildProcess(EventLoop& loop, protocol::Channel channel, shm::StatusBlock status,
                           Callbacks callbacks)
    : loop_(loop),
      channel_(std::move(channel)),
      status_(std::move(status)),
      callbacks_(std::move(callbacks)) {}

Result<std::unique_ptr<ChildProcess>> ChildProcess::Start(
    EventLoop& loop, const std::filesystem::path& program, const std::string& argv0,
    protocol::Heritage heritage, std::vector<int> inherited_fds, Callbacks callbacks) {
  ASSIGN_OR_RETURN(protocol::ChannelPair pair, protocol::MakeChannelPair());
  ASSIGN_OR_RETURN(shm::StatusBlock status, shm::StatusBlock::Create());
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return ErrFromErrno("cannot make a pipe");
  UniqueFd output(pipe_fds[0]), output_end(pipe_fds[1]);
  // Ours alone: the child's end stays blocking.
  if (fcntl(output.get(), F_SETFL, O_NONBLOCK) != 0) return ErrFromErrno("cannot set up a pipe");

  heritage.control_fd = pair.b.get();
  heritage.status_fd = status.fd();
  ASSIGN_OR_RETURN(const int heritage_number, protocol::WriteHeritage(heritage));
  const UniqueFd heritage_fd(heritage_number);
  SpawnRequest request;
  request.program = program;
  request.arguments = {argv0, fmt::format("--heritage={}", heritage_number)};
  request.output_fd = output_end.get();
  request.inherited_fds = std::move(inherited_fds);
  request.inherited_fds.insert(request.inherited_fds.end(),
                               {heritage_number, heritage.control_fd, heritage.status_fd});
  ASSIGN_OR_RETURN(SpawnedProcess process, Spawn(request));

  std::unique_ptr<ChildProcess> child(new ChildProcess(loop, protocol::Channel(std::move(pair.a)),
                                                       std::move(status), std::move(callbacks)));
  child->pid_ = process.pid;
  child->pidfd_ = std::move(process.pidfd);
  child->output_ = std::move(output);
  child->started_ms_ = MonotonicMs();
  ChildProcess* self = child.get();
  // Where watching fails, the destructor kills and reaps.
  ASSIGN_OR_RETURN(
      self->channel_watch_,
      loop.Add(self->channel_.fd(), EPOLLIN, [self](uint32_t events) { self->OnChannel(events); }));
  ASSIGN_OR_RETURN(self->output_watch_,
                   loop.Add(self->output_.get(), EPOLLIN, [self](uint32_t) { self->OnOutput(); }));
  ASSIGN_OR_RETURN(self->exit_watch_,
                   loop.Add(self->pidfd_.get(), EPOLLIN, [self](uint32_t) { self->OnExited(); }));
  return child;
}

ChildProcess::~ChildProcess() {
  loop_.Remove(channel_watch_);
  loop_.Remove(output_watch_);
  loop_.Remove(exit_watch_);
  if (!pidfd_) return;
  // Only where Start failed half-way or the supervisor ends at once: SIGKILL is prompt.
  Kill();
  siginfo_t info{};
  while (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED) != 0 && errno == EINTR) {
  }
}

void ChildProcess::Kill() {
  if (pidfd_) syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

void ChildProcess::UpdateInterest() {
  if (channel_watch_ == 0) return;
  loop_.Modify(channel_watch_, EPOLLIN | (channel_.wants_write() ? uint32_t{EPOLLOUT} : 0u));
}

void ChildProcess::OnChannel(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    channel_.OnWritable();
    UpdateInterest();
    if (!channel_.wants_write()) callbacks_.on_writable();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) ReadChannel();
}

void ChildProcess::ReadChannel() {
  if (channel_watch_ == 0) return;
  protocol::Channel::ReadOutcome outcome = channel_.OnReadable();
  for (protocol::ReceivedFrame& frame : outcome.frames) {
    if (misused_) break;
    callbacks_.on_frame(std::move(frame));
  }
  if (!outcome.closed) return;
  loop_.Remove(channel_watch_);
  if (misused_) return;
  misused_ = outcome.error.has_value();
  callbacks_.on_misuse(outcome.error ? outcome.error->message : std::string());
}

void ChildProcess::DrainOutput() {
  char buffer[16384];
  for (int i = 0; i < kOutputReadsPerCall; ++i) {
    const ssize_t n = read(output_.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    if (n == 0) {
      loop_.Remove(output_watch_);
      return;
    }
    for (const std::string& line : log_.Append({buffer, static_cast<size_t>(n)})) PassOn(line);
  }
}

void ChildProcess::OnOutput() { DrainOutput(); }

void ChildProcess::OnExited() {
  siginfo_t info{};
  if (waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0)
    return;
  Exit exit;
  exit.signaled = info.si_code != CLD_EXITED;
  exit.code = info.si_status;
  loop_.Remove(exit_watch_);
  pidfd_.reset();
  // What it said last still stands in the socket and the pipe.
  // The other end is closed, unless a process that it started holds it: reading ends either way.
  callbacks_.on_misuse = [](const std::string&) {};
  for (int i = 0; i < kChannelReadsAtExit && channel_watch_ != 0; ++i) ReadChannel();
  DrainOutput();
  if (const std::string rest = log_.Finish(); !rest.empty()) PassOn(rest);
  // The owner destroys this object in the call.
  const auto on_exit = callbacks_.on_exit;
  on_exit(exit);
}

}  // namespace perdure::supervisor
