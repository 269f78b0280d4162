#include "supervisor/service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "base/log.h"

namespace perdure::supervisor {
namespace {

std::optional<int64_t> NumberOf(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size()) return std::nullopt;
  return number;
}

}  // namespace

ServiceManager::ServiceManager(const GetEnv& env) {
  address_ = env("NOTIFY_SOCKET").value_or("");
  if (address_.empty()) return;
  // A path, or with @ for the NUL a name in the abstract namespace.
  if ((address_[0] != '/' && address_[0] != '@') || address_.size() < 2 ||
      address_.size() >= sizeof(sockaddr_un::sun_path)) {
    LogWarning("NOTIFY_SOCKET is {}, which is no socket's address: nobody is notified", address_);
    address_.clear();
    return;
  }
  socket_.reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket_) LogWarning("the service manager cannot be notified: {}", strerror(errno));
  const auto usec = NumberOf(env("WATCHDOG_USEC"));
  const auto pid = NumberOf(env("WATCHDOG_PID"));
  if (usec && *usec > 0 && (!pid || *pid == getpid()))
    watchdog_ms_ = std::max<int64_t>(1, *usec / 2000);
}

void ServiceManager::Send(const std::string& lines) {
  if (!socket_) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, address_.data(), address_.size());
  if (address_[0] == '@') address.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  // One that is lost is followed by others.
  (void)sendto(socket_.get(), lines.data(), lines.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), size);
}

void ServiceManager::Tell(std::string_view status, bool is_ready) {
  const bool is_first = is_ready && !is_ready_;
  if (status == status_ && !is_first) return;
  status_ = status;
  is_ready_ = is_ready_ || is_ready;
  Send(fmt::format("{}STATUS={}\n", is_first ? "READY=1\n" : "", status_));
}

void ServiceManager::TellReloading(int64_t now_us) {
  Send(fmt::format("RELOADING=1\nMONOTONIC_USEC={}\n", now_us));
}

void ServiceManager::TellReloaded() { Send("READY=1\n"); }

void ServiceManager::TellStopping(std::string_view status, int64_t most_ms) {
  Send(fmt::format("STOPPING=1\nSTATUS={}\nEXTEND_TIMEOUT_USEC={}\n", status, most_ms * 1000));
}

void ServiceManager::OnTime(int64_t now_ms) {
  if (watchdog_ms_ == 0 || now_ms < next_watchdog_ms_) return;
  next_watchdog_ms_ = now_ms + watchdog_ms_;
  Send("WATCHDOG=1\n");
}

std::optional<int64_t> ServiceManager::deadline_ms() const {
  if (watchdog_ms_ == 0 || !socket_) return std::nullopt;
  return next_watchdog_ms_;
}

}  // namespace perdure::supervisor
