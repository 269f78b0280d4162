#include "cli/control_client.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/unique_fd.h"

namespace perdure::cli {
namespace {

// The supervisor answers at once or is in trouble that waiting does not mend.
constexpr int kAnswerTimeoutS = 10;

Result<UniqueFd> Connect(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return Err(ErrorCode::io_error,
               fmt::format("the path {} is too long for a socket: choose a shorter --runtime-dir",
                           path.string()));
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return ErrFromErrno("cannot make a socket");
  const timeval timeout{kAnswerTimeoutS, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED)
      return Err(ErrorCode::io_error,
                 fmt::format("no service is running at {}: start one with `perdure serve`, or name "
                             "its folder with --runtime-dir",
                             path.parent_path().string()));
    return ErrFromErrno(fmt::format("cannot reach {}", path.string()));
  }
  return fd;
}

bool Send(int socket, const std::string& text, int passed_fd) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  union {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed_fd >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof passed_fd);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
}

}  // namespace

Result<Json> AskSupervisor(const std::filesystem::path& runtime_dir, std::string_view op,
                           const std::optional<std::string>& model) {
  Json line = {{"op", op}};
  if (model) line["model"] = *model;
  return AskSupervisorWith(runtime_dir, line);
}

Result<Json> AskSupervisorWith(const std::filesystem::path& runtime_dir, const Json& line,
                               int passed_fd) {
  ASSIGN_OR_RETURN(UniqueFd fd, Connect(runtime_dir / "control.sock"));
  const std::string request = DumpJson(line) + "\n";
  if (!Send(fd.get(), request, passed_fd)) return ErrFromErrno("cannot ask the supervisor");
  std::string answer;
  while (answer.find('\n') == std::string::npos) {
    char buffer[65536];
    const ssize_t n = recv(fd.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      return Err(ErrorCode::io_error,
                 fmt::format("the supervisor did not answer within {} s", kAnswerTimeoutS));
    if (n < 0) return ErrFromErrno("cannot read the supervisor's answer");
    if (n == 0) return Err(ErrorCode::io_error, "the supervisor closed the connection");
    answer.append(buffer, static_cast<size_t>(n));
    if (answer.size() > limits::kControlAnswerBytesMax)
      return Err(ErrorCode::io_error, "the supervisor's answer is too long");
  }
  answer.erase(answer.find('\n'));
  ASSIGN_OR_RETURN(Json json, ParseJson(answer, "the supervisor's answer", ErrorCode::io_error));
  if (json.is_object() && json.contains("error") && json["error"].is_string())
    return Err(ErrorCode::io_error, json["error"].get<std::string>());
  return json;
}

}  // namespace perdure::cli
