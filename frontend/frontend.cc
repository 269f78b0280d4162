#include "frontend/frontend.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "base/log.h"
#include "frontend/server.h"
#include "shm/status.h"

namespace perdure::frontend {
namespace {

// Terminals and systemd signal the whole group; when this process ends is the supervisor's to say.
void IgnoreGroupSignals() {
  // SIGXFSZ: a file that would grow beyond a limit is an error of its writer.
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGQUIT, SIGPIPE, SIGXFSZ})
    std::signal(signal, SIG_IGN);
}

// Each connection takes a descriptor; the soft limit is often 1,024 only.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) LogWarning("cannot raise the limit of open files");
}

}  // namespace

int RunFrontend(const protocol::Heritage& heritage) {
  LogLevel level = LogLevel::kInfo;
  (void)ParseLogLevel(heritage.log_level, &level);
  InitLogging("frontend", level);
  IgnoreGroupSignals();
  RaiseDescriptorLimit();
  if (!heritage.frontend) {
    LogError("the heritage is not a frontend's");
    return protocol::kExitBug;
  }
  auto status = shm::StatusBlock::Attach(heritage.status_fd);
  if (!status) {
    LogError("{}", status.error().message);
    return protocol::kExitSystem;
  }
  shm::StatusShm& shm = **status;
  shm.pid.store(static_cast<uint32_t>(getpid()), std::memory_order_relaxed);
  shm.phase.store(static_cast<uint32_t>(shm::Phase::kIdle), std::memory_order_relaxed);
  shm::InstallPanicSink(shm);

  Server server(heritage.frontend->settings, std::move(*status));
  if (auto opened =
          server.Open(UniqueFd(heritage.frontend->listen_fd), UniqueFd(heritage.control_fd));
      !opened) {
    LogError("{}", opened.error().message);
    return protocol::kExitSystem;
  }
  server.Run();
  return protocol::kExitOk;
}

}  // namespace perdure::frontend
