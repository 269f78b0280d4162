// A worker without a model: the first line of <model folder>/behaviour says what it does.
//
//   ready              loads, serves, drains
//   exit N             exits at once
//   panic              a failed CHECK in step 7 of sequences 1 and 2
//   step, then panic   the same after a completed step
//   bad model          says so and exits with 112
//   hang               is ready, and then does nothing any more
//   deaf               is ready, and never reads its control channel
//   stubborn           is ready, and does not stop when told to
//   garbage            sends what is no frame
//   wrong message      sends a frame that only the frontend sends
//   hang up            closes its control channel and lives on
//   noisy              fills its standard error without ever ending a line
//   once X             X the first time, ready ever after

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "protocol/channel.h"
#include "protocol/heritage.h"
#include "shm/status.h"

namespace perdure {
namespace {

using protocol::Channel;

class FakeWorker {
 public:
  FakeWorker(const protocol::Heritage& heritage, shm::StatusBlock status)
      : heritage_(*heritage.worker),
        status_(std::move(status)),
        control_(UniqueFd(heritage.control_fd)) {
    shm::InstallPanicSink(*status_);
    status_->pid = static_cast<uint32_t>(getpid());
    AddFrontend(UniqueFd(heritage_.channel_fd));
  }

  int Run() {
    const std::filesystem::path folder = heritage_.model_dir;
    std::ifstream file(folder / "behaviour");
    std::getline(file, behaviour_);
    if (behaviour_.starts_with("once ")) {
      const std::filesystem::path mark = folder / "ran";
      behaviour_ = std::filesystem::exists(mark) ? "ready" : behaviour_.substr(5);
      std::ofstream(mark) << "yes\n";
    }
    if (behaviour_.starts_with("exit ")) return std::atoi(behaviour_.c_str() + 5);
    status_->phase = static_cast<uint32_t>(shm::Phase::kLoading);
    status_->load_bytes_total = 1000;
    status_->load_bytes_done = 1000;
    if (behaviour_ == "bad model") {
      control_.Send(protocol::LoadFailed{21, "config.json asks for 1e9 layers"});
      return protocol::kExitBadModel;
    }
    if (behaviour_ == "garbage") {
      control_.SendFrame(std::string(64, '\xff'), UniqueFd());
      return Sleep();
    }
    if (behaviour_ == "wrong message") {
      control_.Send(protocol::FrontendReady{});
      return Sleep();
    }
    if (behaviour_ == "hang up") {
      close(control_.fd());
      return Sleep();
    }
    if (behaviour_ == "panic") Panic();
    if (behaviour_ == "step, then panic") {
      shm::BeginStep(*status_, 6, {});
      shm::EndStep(*status_);
      Panic();
    }
    status_->phase = static_cast<uint32_t>(shm::Phase::kIdle);
    protocol::WorkerReady ready;
    ready.max_context = 2048;
    ready.architecture = "fake";
    ready.quantization = "none";
    ready.kv_page_bytes = 4096;
    // Told back to the test.
    ready.parameters = static_cast<int64_t>(heritage_.kv_granted_bytes);
    ready.isa = "scalar";
    status_->kv_bytes_reserved = 10 * 4096;
    status_->kv_bytes_used = 4097;
    control_.Send(ready);
    if (behaviour_ == "hang") return Sleep();
    return Serve();
  }

 private:
  void Panic() {
    const std::vector<uint64_t> rids{1, 2};
    shm::BeginStep(*status_, 7, rids);
    CHECK_MSG(behaviour_.empty(), "as the test told it to");
  }

  int Sleep() {
    for (;;) pause();
  }

  void AddFrontend(UniqueFd fd) {
    frontends_.emplace_back(std::move(fd));
    protocol::Hello hello;
    hello.model = heritage_.model;
    hello.epoch = heritage_.epoch;
    frontends_.back().Send(hello);
  }

  int Serve() {
    if (behaviour_ == "noisy") fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK);
    for (;;) {
      status_->progress.fetch_add(1);
      if (behaviour_ == "noisy") {
        const std::string noise(65536, 'x');
        if (write(STDERR_FILENO, noise.data(), noise.size()) < 0) continue;
      }
      pollfd events{control_.fd(), POLLIN, 0};
      const bool deaf = behaviour_ == "deaf";
      if (poll(&events, deaf ? 0 : 1, 20) <= 0) continue;
      auto outcome = control_.OnReadable();
      for (auto& received : outcome.frames) {
        if (received.frame.type == protocol::MessageType::kNewChannel)
          AddFrontend(std::move(received.fd));
        if (received.frame.type == protocol::MessageType::kDrain && behaviour_ != "stubborn") {
          control_.Send(protocol::Drained{});
          return protocol::kExitOk;
        }
      }
      if (outcome.closed) return protocol::kExitSystem;
    }
  }

  protocol::WorkerHeritage heritage_;
  shm::StatusBlock status_;
  Channel control_;
  std::deque<Channel> frontends_;
  std::string behaviour_;
};

}  // namespace
}  // namespace perdure

int main(int argc, char** argv) {
  using namespace perdure;
  CHECK(argc == 2);
  auto heritage = protocol::ReadHeritage(argv[1]);
  CHECK_MSG(heritage.has_value(), heritage.error().message);
  protocol::DieWithParent(heritage->supervisor_pid);
  CHECK(heritage->worker.has_value());
  auto status = shm::StatusBlock::Attach(heritage->status_fd);
  CHECK_MSG(status.has_value(), status.error().message);
  return FakeWorker(*heritage, std::move(*status)).Run();
}
