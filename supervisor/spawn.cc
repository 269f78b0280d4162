#include "supervisor/spawn.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "protocol/heritage.h"

namespace perdure::supervisor {
namespace {

void Write(int fd, std::string_view text) {
  if (write(fd, text.data(), text.size()) < 0) return;  // nobody else to tell
}

// Between fork and exec: only async-signal-safe calls.
[[noreturn]] void ExecChild(const SpawnRequest& request, char* const argv[], int null_fd,
                            int parent_pid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent_pid) _exit(protocol::kExitSystem);
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(null_fd, STDIN_FILENO);
  dup2(request.output_fd, STDOUT_FILENO);
  dup2(request.output_fd, STDERR_FILENO);
  // Also what somebody else left open without close-on-exec.
  syscall(SYS_close_range, 3u, ~0u, static_cast<unsigned>(CLOSE_RANGE_CLOEXEC));
  for (const int fd : request.inherited_fds) {
    const int flags = fcntl(fd, F_GETFD);
    if (flags < 0 || fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC) != 0) _exit(protocol::kExitBug);
  }
  execv(request.program.c_str(), argv);
  const char* reason = strerrordesc_np(errno);
  Write(STDERR_FILENO, "cannot start ");
  Write(STDERR_FILENO, request.program.c_str());
  Write(STDERR_FILENO, ": ");
  Write(STDERR_FILENO, reason == nullptr ? "unknown error" : reason);
  Write(STDERR_FILENO, "\n");
  _exit(protocol::kExitSystem);
}

}  // namespace

Result<SpawnedProcess> Spawn(const SpawnRequest& request) {
  UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null_fd) return ErrFromErrno("cannot open /dev/null");
  std::vector<char*> argv;
  for (const std::string& argument : request.arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const int parent_pid = getpid();
  const pid_t pid = fork();
  if (pid < 0) return ErrFromErrno("cannot start a process");
  if (pid == 0) ExecChild(request, argv.data(), null_fd.get(), parent_pid);
  SpawnedProcess process;
  process.pid = pid;
  // Nobody else reaps our children: the number cannot have been given to another process.
  process.pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!process.pidfd) {
    auto error = ErrFromErrno("cannot watch a process");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return error;
  }
  return process;
}

int ReapAdopted(std::span<const int> own) {
  int found = 0;
  for (;;) {
    siginfo_t info{};
    // The kernel names one after the other; an own one in front of the rest is gone at the next
    // look.
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0 ||
        std::ranges::find(own, info.si_pid) != own.end())
      return found;
    waitpid(info.si_pid, nullptr, WNOHANG);
    ++found;
  }
}

}  // namespace perdure::supervisor
