#include "base/listen.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "base/limits.h"

namespace perdure {
namespace {

tl::unexpected<Error> BindError(const std::string& host, int port, int error) {
  const std::string where = host.find(':') == std::string::npos
                                ? fmt::format("{}:{}", host, port)
                                : fmt::format("[{}]:{}", host, port);
  if (error == EADDRINUSE)
    return Err(ErrorCode::io_error,
               fmt::format("cannot listen on {}: another program has that port; choose another "
                           "with --port, or end that program (`ss -ltnp 'sport = :{}'` names it)",
                           where, port));
  if (error == EACCES)
    return Err(ErrorCode::io_error,
               fmt::format("cannot listen on {}: this user may not take ports below 1024; choose "
                           "a higher one with --port",
                           where));
  if (error == EADDRNOTAVAIL)
    return Err(ErrorCode::io_error,
               fmt::format("cannot listen on {}: this machine does not have that address; choose "
                           "another with --host",
                           where));
  return Err(ErrorCode::io_error, fmt::format("cannot listen on {}: {}", where, strerror(error)));
}

// The error's number, or 0.
int BindAndListen(const addrinfo& info, UniqueFd* out) {
  UniqueFd fd(
      socket(info.ai_family, info.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info.ai_protocol));
  if (!fd) return errno;
  const int one = 1, zero = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  // "::" means IPv4 too.
  if (info.ai_family == AF_INET6)
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  if (bind(fd.get(), info.ai_addr, info.ai_addrlen) != 0) return errno;
  if (listen(fd.get(), limits::kListenBacklog) != 0) return errno;
  *out = std::move(fd);
  return 0;
}

}  // namespace

std::string Listener::Url() const {
  if (address.find(':') == std::string::npos) return fmt::format("http://{}:{}", address, port);
  return fmt::format("http://[{}]:{}", address, port);
}

Result<Listener> ListenTcp(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int code = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
      code != 0)
    return Err(ErrorCode::io_error,
               fmt::format("cannot listen on \"{}\": {}", host, gai_strerror(code)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  std::vector<const addrinfo*> addresses;
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) addresses.push_back(a);
  std::stable_sort(addresses.begin(), addresses.end(), [](const addrinfo* a, const addrinfo* b) {
    return a->ai_family == AF_INET && b->ai_family != AF_INET;
  });
  Listener listener;
  int error = EADDRNOTAVAIL;
  for (const addrinfo* address : addresses) {
    error = BindAndListen(*address, &listener.fd);
    if (error == 0) break;
    if (error == EADDRINUSE) break;  // trying another family would only hide it
  }
  if (!listener.fd) return BindError(host, port, error);

  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  char name[NI_MAXHOST], service[NI_MAXSERV];
  if (getsockname(listener.fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    return ErrFromErrno("cannot read the address of the listening socket");
  if (getnameinfo(reinterpret_cast<sockaddr*>(&bound), size, name, sizeof name, service,
                  sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return Err(ErrorCode::io_error, "cannot read the address of the listening socket");
  listener.address = name;
  listener.port = std::stoi(service);
  return listener;
}

Result<UniqueFd> ListenUnix(const std::filesystem::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.native().size() >= sizeof address.sun_path)
    return Err(ErrorCode::io_error,
               fmt::format("the path {} is too long for a socket ({} bytes are allowed): choose a "
                           "shorter --runtime-dir",
                           path.string(), sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.c_str(), path.native().size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return ErrFromErrno("cannot make the control socket");
  unlink(path.c_str());
  const mode_t before = umask(0177);
  const int bound = bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int saved = errno;
  umask(before);
  errno = saved;
  if (bound != 0 || listen(fd.get(), static_cast<int>(limits::kControlConnectionsMax)) != 0)
    return ErrFromErrno(fmt::format("cannot listen on {}", path.string()));
  return fd;
}

}  // namespace perdure
