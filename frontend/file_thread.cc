#include "frontend/file_thread.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "base/limits.h"

namespace perdure::frontend {

void FileThread::Run(std::function<void()> work, std::function<void()> done) {
  boost::asio::post(pool_, [this, work = std::move(work), done = std::move(done)]() mutable {
    work();
    // What it holds may belong to the loop alone: it goes there with `done`.
    boost::asio::post(io_, [done = std::move(done)] { done(); });
  });
}

void FileThread::Stop() {
  pool_.stop();
  pool_.join();
}

bool FileThread::Begin() {
  if (files_ >= limits::kFileTransfersMax) return false;
  ++files_;
  return true;
}

}  // namespace perdure::frontend
