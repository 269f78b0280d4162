#include "protocol/heritage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "protocol/codec.h"

namespace perdure::protocol {
namespace {

constexpr std::string_view kArgument = "--heritage=";

// What is inherited is meant for this process, not for those that it may start.
Status CloseOnExec(int fd, std::string_view what) {
  if (fd < 0) return {};
  const int flags = fcntl(fd, F_GETFD);
  if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) != 0)
    return ErrFromErrno(fmt::format("the heritage's {} (descriptor {}) is unusable", what, fd));
  return {};
}

}  // namespace

Result<int> WriteHeritage(const Heritage& heritage) {
  UniqueFd fd(memfd_create("perdure-heritage", 0));
  if (!fd) return ErrFromErrno("cannot make a memory file for a child's heritage");
  const std::string bytes = Encode(heritage);
  for (std::string_view rest = bytes; !rest.empty();) {
    const ssize_t n = write(fd.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrFromErrno("cannot write a child's heritage");
    rest.remove_prefix(static_cast<size_t>(n));
  }
  return fd.release();
}

Result<Heritage> ReadHeritage(const char* argument) {
  const std::string_view text = argument == nullptr ? std::string_view() : argument;
  int number = -1;
  if (text.starts_with(kArgument)) {
    const char* begin = text.data() + kArgument.size();
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(begin, end, number);
    if (parsed.ec != std::errc() || parsed.ptr != end) number = -1;
  }
  if (number < 0)
    return Err(ErrorCode::invalid_request,
               "this program is started by `perdure serve`, which passes it --heritage=N");
  UniqueFd fd(number);
  std::string bytes;
  char buffer[4096];
  for (;;) {
    const ssize_t n = pread(fd.get(), buffer, sizeof buffer, static_cast<off_t>(bytes.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrFromErrno("cannot read the heritage");
    if (n == 0) break;
    bytes.append(buffer, static_cast<size_t>(n));
    if (bytes.size() > limits::kHeritageBytesMax)
      return Err(ErrorCode::protocol_error, "the heritage is too large");
  }
  auto heritage = Decode<Heritage>(bytes);
  if (!heritage) return ErrWithContext("the heritage", std::move(heritage).error());
  RETURN_IF_ERROR(CloseOnExec(heritage->control_fd, "control channel"));
  RETURN_IF_ERROR(CloseOnExec(heritage->status_fd, "status block"));
  if (heritage->worker) {
    RETURN_IF_ERROR(CloseOnExec(heritage->worker->channel_fd, "channel"));
    if (heritage->worker->arena_fd >= 0)
      RETURN_IF_ERROR(CloseOnExec(heritage->worker->arena_fd, "arena"));
  }
  if (heritage->frontend)
    RETURN_IF_ERROR(CloseOnExec(heritage->frontend->listen_fd, "listening socket"));
  return heritage;
}

void DieWithParent(int supervisor_pid) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) std::signal(signal, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // The parent may have died before the call above: then nobody sends that signal any more.
  if (getppid() != supervisor_pid) _exit(kExitSystem);
}

}  // namespace perdure::protocol
