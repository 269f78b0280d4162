// Descriptors and what to do when they are ready: epoll. One thread.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <unordered_map>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

class EventLoop {
 public:
  using Handler = std::function<void(uint32_t events)>;
  using Token = uint64_t;  // 0: none

  static Result<EventLoop> Create();

  // Level-triggered. The loop does not own `fd`: Remove before closing it.
  Result<Token> Add(int fd, uint32_t events, Handler handler);
  void Modify(Token token, uint32_t events);
  // Its handler is not called any more, not even for an event that was already fetched.
  void Remove(Token& token);

  // Waits up to timeout_ms (-1: for ever), then calls the handlers of what is ready.
  void Wait(int timeout_ms);

 private:
  struct Watch {
    int fd;
    uint32_t events;
    Handler handler;
  };
  UniqueFd epoll_;
  Token next_ = 1;
  std::unordered_map<Token, Watch> watches_;
};

}  // namespace perdure::supervisor
