// Tells the service manager (systemd, or whoever set NOTIFY_SOCKET) how the service is doing:
// sd_notify(3). Nothing happens where there is none. Not thread-safe.
//
// libsystemd would do the same, with five more libraries in a process that lives for months; the
// protocol, one datagram of lines, is promised to stay.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/config.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

class ServiceManager {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. A socket that cannot be used is a warning
  // in the log.
  explicit ServiceManager(const GetEnv& env);

  // Sent when it differs from the last one; `is_ready` once and for all.
  void Tell(std::string_view status, bool is_ready);
  void TellReloading(int64_t now_us);
  void TellReloaded();
  // The end takes `most_ms` at most: a limit of the manager's that is shorter waits for it.
  void TellStopping(std::string_view status, int64_t most_ms);
  // Shows that the supervisor lives, when that is due.
  void OnTime(int64_t now_ms);
  std::optional<int64_t> deadline_ms() const;

 private:
  void Send(const std::string& lines);

  UniqueFd socket_;
  std::string address_;
  std::string status_;
  bool is_ready_ = false;
  int64_t watchdog_ms_ = 0;  // half of what it may take at most; 0: nobody watches
  int64_t next_watchdog_ms_ = 0;
};

}  // namespace perdure::supervisor
