// A frontend without HTTP: it writes what it is told into the file $FAKE_FRONTEND_LOG, a line each:
//
//   start N             its process
//   roster a=ready,b=loading draining=0
//   offer MODEL EPOCH
//   hello MODEL EPOCH   as it came through an offered channel
//   gone MODEL EPOCH    end of that channel
//   settings KEYS       number of API keys
//   drain SECONDS
//
// The file $FAKE_FRONTEND_LOG.behaviour may say "deaf" (reads nothing), "exit N", or "reject MODEL
// EPOCH" (says of that worker, once it has said hello, that it broke the protocol).

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <list>
#include <string>

#include "base/check.h"
#include "protocol/channel.h"
#include "protocol/heritage.h"
#include "shm/status.h"

namespace perdure {
namespace {

using protocol::Channel;
using protocol::MessageType;

class FakeFrontend {
 public:
  FakeFrontend(const protocol::Heritage& heritage, shm::StatusBlock status, std::string log)
      : status_(std::move(status)), control_(UniqueFd(heritage.control_fd)), log_(std::move(log)) {}

  int Run() {
    std::ifstream file(log_ + ".behaviour");
    std::getline(file, behaviour_);
    Log(fmt::format("start {}", getpid()));
    if (behaviour_.starts_with("exit ")) return std::atoi(behaviour_.c_str() + 5);
    status_->phase = static_cast<uint32_t>(shm::Phase::kIdle);
    control_.Send(protocol::FrontendReady{});
    for (;;) {
      status_->progress.fetch_add(1);
      std::vector<pollfd> events;
      if (behaviour_ != "deaf") events.push_back({control_.fd(), POLLIN, 0});
      for (const Worker& w : workers_) events.push_back({w.channel.fd(), POLLIN, 0});
      if (poll(events.data(), events.size(), 20) <= 0) continue;
      ReadWorkers();
      if (behaviour_ != "deaf" && ReadControl()) return protocol::kExitOk;
    }
  }

 private:
  struct Worker {
    std::string name;
    Channel channel;
  };

  void Log(const std::string& line) {
    const UniqueFd fd(open(log_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    const std::string text = line + "\n";
    CHECK(write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }

  void ReadWorkers() {
    for (auto it = workers_.begin(); it != workers_.end();) {
      auto outcome = it->channel.OnReadable();
      for (const auto& received : outcome.frames) {
        const auto hello = protocol::Decode<protocol::Hello>(received.frame.payload);
        CHECK(hello.has_value());
        Log(fmt::format("hello {} {}", hello->model, hello->epoch));
        if (behaviour_ == fmt::format("reject {} {}", hello->model, hello->epoch))
          control_.Send(protocol::ChannelBroken{hello->model, hello->epoch, "nonsense"});
      }
      if (outcome.closed) Log("gone " + it->name);
      it = outcome.closed ? workers_.erase(it) : std::next(it);
    }
  }

  // True when it is time to go.
  bool ReadControl() {
    auto outcome = control_.OnReadable();
    for (auto& received : outcome.frames) {
      const std::string& payload = received.frame.payload;
      switch (received.frame.type) {
        case MessageType::kRoster: {
          const auto roster = protocol::Decode<protocol::Roster>(payload);
          CHECK(roster.has_value());
          std::string models;
          for (const auto& m : roster->models)
            models += fmt::format("{}{}={}", models.empty() ? "" : ",", m.name,
                                  protocol::ModelStateName(m.state));
          Log(fmt::format("roster {} draining={:d}", models, roster->draining));
          break;
        }
        case MessageType::kChannelOffer: {
          const auto offer = protocol::Decode<protocol::ChannelOffer>(payload);
          CHECK(offer.has_value());
          const std::string name = fmt::format("{} {}", offer->model, offer->epoch);
          Log("offer " + name);
          workers_.push_back({name, Channel(std::move(received.fd))});
          break;
        }
        case MessageType::kFrontendSettings: {
          const auto settings = protocol::Decode<protocol::FrontendSettings>(payload);
          CHECK(settings.has_value());
          Log(fmt::format("settings {}", settings->api_keys.size()));
          break;
        }
        case MessageType::kDrain: {
          const auto drain = protocol::Decode<protocol::Drain>(payload);
          CHECK(drain.has_value());
          Log(fmt::format("drain {}", drain->timeout_s));
          control_.Send(protocol::Drained{});
          return true;
        }
        default:
          CHECK_MSG(false, "a message that no frontend gets");
      }
    }
    return outcome.closed;
  }

  shm::StatusBlock status_;
  Channel control_;
  std::string log_;
  std::string behaviour_;
  std::list<Worker> workers_;
};

}  // namespace
}  // namespace perdure

int main(int argc, char** argv) {
  using namespace perdure;
  CHECK(argc == 2);
  auto heritage = protocol::ReadHeritage(argv[1]);
  CHECK_MSG(heritage.has_value(), heritage.error().message);
  protocol::DieWithParent(heritage->supervisor_pid);
  CHECK(heritage->frontend.has_value());
  auto status = shm::StatusBlock::Attach(heritage->status_fd);
  CHECK_MSG(status.has_value(), status.error().message);
  const char* log = std::getenv("FAKE_FRONTEND_LOG");
  CHECK(log != nullptr);
  return FakeFrontend(*heritage, std::move(*status), log).Run();
}
