#include "service_fixture.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "shm/arena_segment.h"

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;

std::string ReadAll(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

GetEnv NoEnvironment() {
  return [](const std::string&) { return std::nullopt; };
}

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const int64_t end = MonotonicMs() + 60'000;
  while (MonotonicMs() < end) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

int Count(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TestService::TestService() {
  std::string pattern = (fs::temp_directory_path() / "perdure-test-XXXXXX").string();
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  folder_ = pattern;
  WriteConfig("");
}

TestService::~TestService() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (testing::Test::HasFailure()) {
    constexpr size_t kShown = 20'000;
    const std::string log = Log();
    fmt::print(stderr, "--- service log:\n{}\n",
               log.substr(log.size() - std::min(log.size(), kShown)));
  }
  // It was killed, and nobody follows it.
  const std::string prefix = shm::ArenaName(shm::InstanceName(folder_ / "state"), "");
  for (const std::string& name : shm::ListArenas())
    if (name.starts_with(prefix)) shm_unlink(name.c_str());
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void TestService::SetModel(const std::string& name, const std::string& behaviour) {
  const fs::path dir = folder_ / "models" / name;
  const bool known = fs::exists(dir);
  fs::create_directories(dir);
  std::ofstream(dir / "config.json") << "{}\n";
  std::ofstream(dir / "behaviour") << behaviour << "\n";
  if (!known) models_ += fmt::format("[models.{}]\npath = \"{}\"\n", name, dir.string());
  WriteConfig("");
}

void TestService::WriteConfig(const std::string& text) {
  std::ofstream(folder_ / "new.toml") << text << "\n"
                                      << (text.find("[models") == std::string::npos ? models_ : "");
  fs::rename(folder_ / "new.toml", folder_ / "perdure.toml");
}

void TestService::SetFrontendBehaviour(const std::string& behaviour) {
  std::ofstream(folder_ / "frontend.log.behaviour") << behaviour << "\n";
}

void TestService::CloseLog() {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  unread_log_.reset(fds[0]);
  unread_log_end_.reset(fds[1]);
}

Config TestService::Load(ConfigFlags* flags) const {
  flags->config = (folder_ / "perdure.toml").string();
  flags->runtime_dir = runtime_dir().string();
  flags->state_dir = (folder_ / "state").string();
  flags->port = 0;
  std::vector<std::string> warnings;
  auto config = LoadConfig(*flags, NoEnvironment(), &warnings);
  EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
  return *config;
}

int TestService::RunHere(const fs::path& log, const std::function<void(Timings&)>& adjust,
                         const std::function<void(Config&)>& change) const {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that aborts leaves nothing behind
  const UniqueFd fd(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
  dup2(unread_log_end_ ? unread_log_end_.get() : fd.get(), STDERR_FILENO);
  setenv("FAKE_FRONTEND_LOG", (folder_ / "frontend.log").c_str(), 1);
  ConfigFlags flags;
  Config config = Load(&flags);
  change(config);
  InitLogging("supervisor", LogLevel::kDebug);
  SupervisorOptions options;
  options.program_dir = fs::path(PERDURE_BIN_DIR).parent_path() / "fake_children";
  options.adjust_timings = [&](Timings& timings) {
    timings.health_sample_ms = 50;
    if (adjust) adjust(timings);
  };
  options.env = NoEnvironment();
  return RunSupervisor(config, flags, options);
}

void TestService::Start(std::function<void(Timings&)> adjust) {
  pid_ = fork();
  ASSERT_GE(pid_, 0);
  if (pid_ == 0) _exit(RunHere(folder_ / "service.log", adjust, [](Config&) {}));
  ASSERT_TRUE(Eventually([&] { return Connect().has_value(); }));
}

std::pair<int, std::string> TestService::RunSecond(
    const std::function<void(Config&)>& change) const {
  const fs::path log = folder_ / "second.log";
  const int second = fork();
  if (second == 0) _exit(RunHere(log, {}, change));
  int status = 0;
  waitpid(second, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, ReadAll(log)};
}

void TestService::Signal(int signal) const { kill(pid_, signal); }

std::optional<int> TestService::WaitForExit() {
  int status = 0;
  if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) return std::nullopt;
  pid_ = -1;
  if (!WIFEXITED(status)) return std::nullopt;
  return WEXITSTATUS(status);
}

std::optional<UniqueFd> TestService::Connect() const {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = (runtime_dir() / "control.sock").string();
  std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return std::nullopt;
  return fd;
}

std::string TestService::AskLine(const std::string& line) const {
  const auto fd = Connect();
  if (!fd) return {};
  const std::string request = line + "\n";
  if (send(fd->get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return {};
  std::string answer;
  char buffer[4096];
  while (answer.find('\n') == std::string::npos) {
    const ssize_t n = recv(fd->get(), buffer, sizeof buffer, 0);
    if (n <= 0) return {};
    answer.append(buffer, static_cast<size_t>(n));
  }
  return answer;
}

Json TestService::Ask(const std::string& op) const {
  const auto json =
      ParseJson(AskLine(fmt::format("{{\"op\":\"{}\"}}", op)), "the answer", ErrorCode::internal);
  return json ? *json : Json::object();
}

Json TestService::Model(const std::string& name) const {
  const Json ps = Ps();
  if (ps.contains("models")) {
    for (const Json& model : ps["models"]) {
      if (model["name"] == name) return model;
    }
  }
  return Json::object();
}

bool TestService::ModelIs(const std::string& name, const std::string& state) const {
  return Model(name).value("state", "") == state;
}

std::string TestService::Log() const { return ReadAll(folder_ / "service.log"); }
std::string TestService::FrontendLog() const { return ReadAll(folder_ / "frontend.log"); }

}  // namespace perdure::supervisor
