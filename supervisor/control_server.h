// The control socket: one JSON object a line, one line back. docs/wire_protocol.md has the answers.
//
// Only the service's own user and root are served. Connections are bounded in number (the oldest
// gives way), in the length of a line and in time; one that does not read its answer gets no other.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "supervisor/event_loop.h"

namespace perdure::supervisor {

class ControlServer {
 public:
  // The answer's line without its newline.
  struct Answer {
    std::string line;
    bool keep_open = false;  // the client waits for the end of the service
  };
  // `fd`: what came with the line, if anything did; the handler may take it.
  using Handler = std::function<Answer(std::string_view line, UniqueFd* fd)>;

  static Result<std::unique_ptr<ControlServer>> Create(EventLoop& loop, UniqueFd listener,
                                                       Handler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  std::optional<int64_t> deadline_ms() const;
  void OnTime(int64_t now_ms);  // closes what has been silent for too long

 private:
  struct Connection {
    UniqueFd fd;
    EventLoop::Token watch = 0;
    int64_t deadline_ms = 0;
    bool keep_open = false;
    std::string in, out;
    UniqueFd passed;  // the newest that came
  };
  using Iterator = std::list<Connection>::iterator;

  ControlServer(EventLoop& loop, UniqueFd listener, Handler handler);
  void OnConnect();
  void OnEvents(Iterator connection, uint32_t events);
  // False when the connection was closed.
  bool Read(Iterator connection);
  bool Write(Iterator connection);
  void AnswerLines(Iterator connection);
  void Close(Iterator connection);

  EventLoop& loop_;
  UniqueFd listener_;
  Handler handler_;
  EventLoop::Token listen_watch_ = 0;
  std::list<Connection> connections_;  // oldest first
};

}  // namespace perdure::supervisor
