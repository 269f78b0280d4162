// The sockets that a service listens on.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure {

struct Listener {
  UniqueFd fd;
  std::string address;  // numeric, as bound
  int port = 0;         // as bound, also where 0 was asked for
  std::string Url() const;
};

// `host`: an IPv4 or IPv6 address or a name, of which the first address that can be bound is taken,
// IPv4 first. A taken port is an error that names address and port and says what to do.
Result<Listener> ListenTcp(const std::string& host, int port);

// A Unix socket at `path`, mode 0600; a file of that name is replaced, so the caller holds the lock
// of the folder.
Result<UniqueFd> ListenUnix(const std::filesystem::path& path);

}  // namespace perdure
