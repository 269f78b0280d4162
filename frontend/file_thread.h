// What takes a disk: a thread that reads and writes the files that sessions receive and send, so
// that the loop, and with it all other clients, never waits for a disk. Also counts those files.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstddef>
#include <functional>

namespace perdure::frontend {

class FileThread {
 public:
  explicit FileThread(boost::asio::io_context& io) : io_(io) {}
  ~FileThread() { Stop(); }

  // `work` on the thread, after what was given to it before; then `done` on the loop.
  void Run(std::function<void()> work, std::function<void()> done);
  // After the job at hand nothing more is done.
  void Stop();

  // One more file is received or sent; false: there are as many as there may be.
  bool Begin();
  void End() { --files_; }

 private:
  boost::asio::io_context& io_;
  boost::asio::thread_pool pool_{1};
  size_t files_ = 0;
};

}  // namespace perdure::frontend
