#include "supervisor/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;

class ServiceManagerTest : public testing::Test {
 protected:
  ServiceManagerTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-notify-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~ServiceManagerTest() override { fs::remove_all(folder_); }

  void Listen(std::string name) {
    variables_["NOTIFY_SOCKET"] = name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (name[0] == '@') name[0] = '\0';
    std::memcpy(address.sun_path, name.data(), name.size());
    socket_.reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
    ASSERT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
              0);
  }
  std::string Heard() {
    char buffer[1000];
    const ssize_t size = recv(socket_.get(), buffer, sizeof buffer, 0);
    return size < 0 ? std::string() : std::string(buffer, static_cast<size_t>(size));
  }
  ServiceManager Manager() {
    return ServiceManager([this](const std::string& name) -> std::optional<std::string> {
      const auto found = variables_.find(name);
      if (found == variables_.end()) return std::nullopt;
      return found->second;
    });
  }

  fs::path folder_;
  std::map<std::string, std::string> variables_;
  UniqueFd socket_;
};

TEST_F(ServiceManagerTest, HearsOfReadinessOnceAndOfChangesOfTheStatus) {
  Listen(folder_ / "socket");
  ServiceManager manager = Manager();
  manager.Tell("loading", false);
  EXPECT_EQ(Heard(), "STATUS=loading\n");
  manager.Tell("loading", false);
  EXPECT_EQ(Heard(), "");
  manager.Tell("serves a", true);
  EXPECT_EQ(Heard(), "READY=1\nSTATUS=serves a\n");
  manager.Tell("serves a", true);
  EXPECT_EQ(Heard(), "");
  manager.Tell("serves a, b", true);
  EXPECT_EQ(Heard(), "STATUS=serves a, b\n");
  manager.TellReloading(12);
  EXPECT_EQ(Heard(), "RELOADING=1\nMONOTONIC_USEC=12\n");
  manager.TellReloaded();
  EXPECT_EQ(Heard(), "READY=1\n");
  manager.TellStopping("finishes answers", 44'000);
  EXPECT_EQ(Heard(), "STOPPING=1\nSTATUS=finishes answers\nEXTEND_TIMEOUT_USEC=44000000\n");
}

TEST_F(ServiceManagerTest, FeedsTheWatchdogTwiceAsOftenAsItBites) {
  Listen("@perdure-test-" + std::to_string(getpid()));
  variables_["WATCHDOG_USEC"] = "10000000";
  ServiceManager manager = Manager();
  manager.OnTime(1'000);
  EXPECT_EQ(Heard(), "WATCHDOG=1\n");
  EXPECT_EQ(manager.deadline_ms(), 6'000);
  manager.OnTime(5'999);
  EXPECT_EQ(Heard(), "");
  manager.OnTime(6'000);
  EXPECT_EQ(Heard(), "WATCHDOG=1\n");
  // Another process is the one that is watched.
  variables_["WATCHDOG_PID"] = "1";
  EXPECT_FALSE(Manager().deadline_ms());
}

TEST_F(ServiceManagerTest, NobodyIsNoError) {
  ServiceManager manager = Manager();
  manager.Tell("ready", true);
  manager.OnTime(1);
  EXPECT_FALSE(manager.deadline_ms());
  for (const std::string& name :
       {std::string("relative"), std::string("/"), std::string(200, '/')}) {
    variables_["NOTIFY_SOCKET"] = name;
    Manager().Tell("ready", true);
  }
  variables_["NOTIFY_SOCKET"] = folder_ / "nobody listens";
  Manager().Tell("ready", true);
}

}  // namespace
}  // namespace perdure::supervisor
