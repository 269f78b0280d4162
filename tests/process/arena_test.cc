// Damage to a model's arena, done from outside while its worker runs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "base/unique_fd.h"
#include "cache_command.h"
#include "client.h"
#include "protocol/heritage.h"
#include "service.h"
#include "shm/arena_report.h"
#include "shm/arena_segment.h"
#include "shm/page_memory.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;

// The arena of a service's only model, as somebody sees it who may do anything.
class Intruder {
 public:
  explicit Intruder(pid_t supervisor) {
    const fs::path folder = "/proc/" + std::to_string(supervisor) + "/fd";
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const std::string target = fs::read_symlink(entry.path(), error).string();
      if (target.starts_with("/dev/shm/perdure.") || target.starts_with("/memfd:perdure."))
        fd_.reset(open(entry.path().c_str(), O_RDWR | O_CLOEXEC));
    }
  }
  bool found() const { return static_cast<bool>(fd_); }

  shm::ArenaReport Report() const { return shm::ReadArena(fd_.get()).value(); }
  shm::ArenaGeometry Geometry() const {
    shm::ArenaHeaderShm header;
    Read(0, &header);
    shm::ArenaShape shape;
    std::ranges::copy(header.page_bytes, shape.page_bytes.values.begin());
    shape.pages_max = header.pages_wanted;
    shape.conversations_max = header.conversations_max;
    return shm::ArenaGeometry::For(shape).value();
  }
  std::vector<shm::PageIndex> SealedPages() const {
    std::vector<shm::PageIndex> pages;
    for (shm::PageIndex page = 0; page < Report().pages_read; ++page) {
      uint32_t state = 0;
      Read(Geometry().descriptors_offset + page * sizeof(shm::PageDescriptorShm), &state);
      if (state == static_cast<uint32_t>(shm::PageState::kSealed)) pages.push_back(page);
    }
    return pages;
  }
  uint64_t DataOffset(shm::PageIndex page) const {
    shm::PageDescriptorShm descriptor;
    Read(Geometry().descriptors_offset + page * sizeof descriptor, &descriptor);
    return Geometry().SlotOffset(descriptor.slot.load(), descriptor.format);
  }
  void Flip(uint64_t offset) const {
    uint8_t byte = 0;
    Read(offset, &byte);
    Write(offset, static_cast<uint8_t>(byte ^ 0x10));
  }
  template <class T>
  void Read(uint64_t offset, T* value) const {
    (void)!pread(fd_.get(), static_cast<void*>(value), sizeof *value, static_cast<off_t>(offset));
  }
  template <class T>
  void Write(uint64_t offset, const T& value) const {
    (void)!pwrite(fd_.get(), &value, sizeof value, static_cast<off_t>(offset));
  }

 private:
  UniqueFd fd_;
};

uint64_t CpuTicks(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(in, text);
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  uint64_t user = 0, system = 0;
  fields >> user >> system;
  return user + system;
}

TEST(ArenaTest, DamageToAnIdlePageIsFoundBeforeItIsNeeded) {
  Service service;
  service.StartReady();
  const Json body = ChatBody(std::string(400, 'x') + " What is 2+2?", {{"max_tokens", 40}});
  const std::string expected = Chat(service.url(), body).content();
  const Intruder intruder(service.pid());
  ASSERT_TRUE(intruder.found());
  const auto sealed = intruder.SealedPages();
  ASSERT_GT(sealed.size(), 2u);
  intruder.Flip(intruder.DataOffset(sealed[1]) + 1000);
  const auto damaged = [&] { return service.Model("nano")["arena"].value("damaged", 0); };
  EXPECT_EQ(damaged(), 0);
  const pid_t before = service.SignalModel("nano", SIGKILL);
  ASSERT_GT(before, 0);
  EXPECT_TRUE(Eventually([&] { return damaged() > 0; })) << service.Log();
  EXPECT_NE(service.Log().find("KV page " + std::to_string(sealed[1]) + " ("), std::string::npos)
      << service.Log();
  EXPECT_EQ(Chat(service.url(), body).content(), expected);
  // And then there is nothing left to do: a tenth of the processor would be ten ticks of a second.
  const pid_t worker = service.ModelPid("nano");
  const uint64_t ticks = CpuTicks(worker);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_LE(CpuTicks(worker), ticks + 3);
  EXPECT_EQ(service.Model("nano")["deaths"], 1);
}

TEST(ArenaTest, HealthNamesADamagedPage) {
  Service service;
  service.StartReady();
  const Json body = ChatBody(std::string(400, 'x') + " What is 2+2?", {{"max_tokens", 40}});
  const std::string expected = Chat(service.url(), body).content();
  EXPECT_EQ(CacheJson(service, "health")["healthy"], true);
  const Intruder intruder(service.pid());
  ASSERT_TRUE(intruder.found());
  const auto sealed = intruder.SealedPages();
  ASSERT_GT(sealed.size(), 2u);
  intruder.Flip(intruder.DataOffset(sealed[1]) + 1000);
  const Json health = CacheJson(service, "health", protocol::kExitSystem);
  EXPECT_EQ(health["healthy"], false) << health;
  EXPECT_GT(health["damaged_now"], 0) << health;
  EXPECT_NE(health["issues"].dump().find("page " + std::to_string(sealed[1])), std::string::npos)
      << health;
  // It is gone with what needs it, and computed again.
  EXPECT_EQ(Chat(service.url(), body).content(), expected);
  EXPECT_EQ(CacheJson(service, "health")["damaged_now"], 0);
  EXPECT_EQ(service.Model("nano")["deaths"], 0);
}

TEST(ArenaTest, OfAModelThatIsNoLongerConfiguredIsRemoved) {
  Service service;
  const std::string source = "source = \"" + BuiltinModel().string() + "\"\n";
  const std::string gone = "gone" + std::to_string(getpid());
  service.WriteConfig("[models.stays]\n" + source + "[models." + gone + "]\n" + source);
  service.StartReady(2);
  const auto exists = [&] {
    const auto names = shm::ListArenas();
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return name.ends_with("." + gone); });
  };
  if (!exists()) GTEST_SKIP() << "/dev/shm has no room for arenas";
  service.Signal(SIGKILL);
  ASSERT_TRUE(service.AwaitExit());
  EXPECT_TRUE(exists());
  // Its workers are about to end.
  const auto orphaned = [&] {
    const auto orphans = shm::ListOrphanedArenas();
    return std::any_of(orphans.begin(), orphans.end(),
                       [&](const auto& orphan) { return orphan.name.ends_with("." + gone); });
  };
  ASSERT_TRUE(Eventually(orphaned));
  service.WriteConfig("[models.stays]\n" + source);
  service.StartReady();
  EXPECT_FALSE(exists()) << service.Log();
}

// What is computed meanwhile may be anything. But no process ends of it, and what was not in use is
// never wrong.
TEST(ArenaTest, NoDamageUnderLoadEndsAWorker) {
  constexpr int kRounds = 5, kClients = 4, kFlips = 400;
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Service service;
  service.StartReady();
  const auto body = [](int kind) {
    return LongChatBody(80 + 40 * kind, {{"seed", kind}, {"temperature", kind % 2 * 0.8}});
  };
  const auto idle_body = [](int kind) {
    return ChatBody(std::string(200, static_cast<char>('a' + kind)) + " What is 2+2?",
                    {{"ignore_eos", true}, {"max_tokens", 100}});
  };
  std::vector<std::string> expected;
  for (int kind = 0; kind < kClients; ++kind)
    expected.push_back(Chat(service.url(), idle_body(kind)).content());
  const Intruder intruder(service.pid());
  ASSERT_TRUE(intruder.found());
  const shm::ArenaGeometry geometry = intruder.Geometry();

  std::atomic<bool> stop{false};
  std::atomic<int> answers{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      while (!stop) {
        Stream stream(service.url(), body(client));
        stream.Join();
        EXPECT_TRUE(stream.done())
            << stream.status() << ' ' << stream.error_code() << ' ' << stream.transport_error();
        ++answers;
      }
    });
  }
  const uint64_t descriptors = 40 * sizeof(shm::PageDescriptorShm);
  const uint64_t some_slabs = 40 * geometry.page_bytes[shm::PageFormat::kFloat16];
  for (int round = 1; round <= kRounds; ++round) {
    const int answers_wanted = answers + kClients;
    for (int flip = 0; flip < kFlips || answers < answers_wanted; ++flip) {
      switch (random() % 5) {
        case 0:
          intruder.Flip(random() % sizeof(shm::ArenaHeaderShm));
          break;
        case 1:
          intruder.Write(geometry.descriptors_offset + random() % descriptors, random());
          break;
        case 2:
          intruder.Flip(geometry.slabs_offset + random() % some_slabs);
          break;
        case 4:
          intruder.Write(geometry.conversations_offset +
                             random() % (geometry.descriptors_offset -
                                         geometry.conversations_offset - sizeof(uint64_t)),
                         random());
          break;
        case 3: {  // NaN and infinity
          const std::array<uint16_t, 4> values{0x7E00, 0x7C00, 0xFC00, 0xFFFF};
          intruder.Write(geometry.slabs_offset + random() % (some_slabs / 8 - 1) * 8, values);
          break;
        }
      }
      const shm::ArenaReport report = intruder.Report();
      EXPECT_LE(report.pages_read, limits::kArenaDescriptorsMax);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (HasFailure()) break;
    }
    const Json model = service.Model("nano");
    EXPECT_EQ(model["deaths"], round - 1) << model["last_death"];
    ASSERT_GT(service.SignalModel("nano", SIGKILL), 0);
    ASSERT_TRUE(Eventually([&] { return service.Model("nano").value("deaths", 0) == round; }));
    ASSERT_TRUE(service.AwaitModel("nano", "ready"));
  }
  stop = true;
  for (std::thread& client : clients) client.join();
  // One more worker, which nobody disturbs.
  ASSERT_GT(service.SignalModel("nano", SIGKILL), 0);
  for (int kind = 0; kind < kClients; ++kind)
    EXPECT_EQ(Chat(service.url(), idle_body(kind)).content(), expected[static_cast<size_t>(kind)]);
  const Json model = service.Model("nano");
  for (const Json& death : model["recent_deaths"]) EXPECT_EQ(death["class"], "external") << death;
}

}  // namespace
}  // namespace perdure::process_tests
