#include "snapshot/backup_stream.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/clock.h"
#include "base/codec.h"
#include "base/limits.h"

namespace perdure::snapshot {
namespace {

// How often a sender looks whether it is to end.
constexpr int kLookMs = 100;

tl::unexpected<Error> Silent() {
  return Err(ErrorCode::io_error, fmt::format("the other end of the backup has done nothing for "
                                              "{} s",
                                              limits::kBackupSilenceMs / 1000));
}

tl::unexpected<Error> Gone() {
  return Err(ErrorCode::worker_lost, "the other end of the backup is gone");
}

Status Receive(int socket, char* to, size_t bytes) {
  while (bytes > 0) {
    pollfd readable{socket, POLLIN, 0};
    const int ready = poll(&readable, 1, limits::kBackupSilenceMs);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return Silent();
    const ssize_t n = recv(socket, to, bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return Gone();
    to += n;
    bytes -= static_cast<size_t>(n);
  }
  return {};
}

}  // namespace

Status SendPart(int socket, const BackupPart& part, const std::atomic<bool>& ends) {
  std::string frame(sizeof(uint32_t), '\0');
  Writer(&frame).Put(part);
  const auto bytes = static_cast<uint32_t>(frame.size() - sizeof(uint32_t));
  std::memcpy(frame.data(), &bytes, sizeof bytes);
  int64_t deadline_ms = MonotonicMs() + limits::kBackupSilenceMs;
  for (std::string_view rest = frame; !rest.empty();) {
    if (ends.load(std::memory_order_relaxed))
      return Err(ErrorCode::shutting_down, "this process ends");
    const ssize_t n = send(socket, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      rest.remove_prefix(static_cast<size_t>(n));
      deadline_ms = MonotonicMs() + limits::kBackupSilenceMs;
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) return Gone();
    if (MonotonicMs() >= deadline_ms) return Silent();
    pollfd writable{socket, POLLOUT, 0};
    poll(&writable, 1, kLookMs);
  }
  return {};
}

Result<BackupPart> ReceivePart(int socket) {
  uint32_t bytes = 0;
  RETURN_IF_ERROR(Receive(socket, reinterpret_cast<char*>(&bytes), sizeof bytes));
  if (bytes > limits::kCopyPartBytesMax)
    return Err(ErrorCode::protocol_error, "a part of the backup is too long");
  std::string payload(bytes, '\0');
  RETURN_IF_ERROR(Receive(socket, payload.data(), payload.size()));
  auto part = DecodeExactly<BackupPart>(payload);
  if (!part || part->version != kBackupStreamVersion)
    return Err(ErrorCode::protocol_error,
               "the service is of another version than this program: stop it, or restart it, and "
               "try again");
  return std::move(*part);
}

}  // namespace perdure::snapshot
