#include "supervisor/event_loop.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/check.h"

namespace perdure::supervisor {

Result<EventLoop> EventLoop::Create() {
  EventLoop loop;
  loop.epoll_.reset(epoll_create1(EPOLL_CLOEXEC));
  if (!loop.epoll_) return ErrFromErrno("cannot make an epoll instance");
  return loop;
}

Result<EventLoop::Token> EventLoop::Add(int fd, uint32_t events, Handler handler) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = next_;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return ErrFromErrno("cannot watch a descriptor");
  watches_.emplace(next_, Watch{fd, events, std::move(handler)});
  return next_++;
}

void EventLoop::Modify(Token token, uint32_t events) {
  const auto it = watches_.find(token);
  if (it == watches_.end() || it->second.events == events) return;
  it->second.events = events;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, it->second.fd, &event) == 0);
}

void EventLoop::Remove(Token& token) {
  const auto it = watches_.find(std::exchange(token, 0));
  if (it == watches_.end()) return;
  CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, it->second.fd, nullptr) == 0);
  watches_.erase(it);
}

void EventLoop::Wait(int timeout_ms) {
  epoll_event events[64];
  const int count = epoll_wait(epoll_.get(), events, 64, timeout_ms);
  CHECK_MSG(count >= 0 || errno == EINTR, std::strerror(errno));
  for (int i = 0; i < count; ++i) {
    const auto it = watches_.find(events[i].data.u64);
    if (it == watches_.end()) continue;  // removed by an earlier handler of this round
    // A copy: the handler may remove its own watch.
    const Handler handler = it->second.handler;
    handler(events[i].events);
  }
}

}  // namespace perdure::supervisor
