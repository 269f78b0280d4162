#include "service.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "cli/control_client.h"
#include "cli/http_client.h"
#include "shm/arena_segment.h"
#include "supervisor/supervisor.h"

extern char** environ;

namespace perdure::process_tests {

namespace fs = std::filesystem;

bool Eventually(const std::function<bool()>& condition, int timeout_s) {
  const int64_t deadline_ms = MonotonicMs() + int64_t{timeout_s} * 1000;
  while (!condition()) {
    if (MonotonicMs() > deadline_ms) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

bool Alive(pid_t pid) {
  if (pid <= 0) return false;
  std::ifstream in(fmt::format("/proc/{}/stat", pid));
  std::string text;
  if (!std::getline(in, text)) return false;
  // The state follows the program's name, which stands in parentheses and may hold anything.
  const size_t end = text.rfind(')');
  return end != std::string::npos && end + 2 < text.size() && text[end + 2] != 'Z';
}

namespace {

// Of a process group.
bool AnyAliveIn(pid_t group) {
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    if (getpgid(pid) == group && Alive(pid)) return true;
  }
  return false;
}

}  // namespace

fs::path BuiltinModel() { return fs::path(PERDURE_SOURCE_DIR) / "models" / "nano"; }

Service::Service() {
  std::string pattern = (fs::temp_directory_path() / "perdure-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  folder_ = pattern;
}

Service::~Service() {
  if (pid_ > 0) {
    kill(pid_, SIGCONT);
    kill(pid_, SIGTERM);
    if (!AwaitExit(20)) {
      ADD_FAILURE() << "the service did not end on SIGTERM; its log:\n" << Log();
      kill(pid_, SIGKILL);
      AwaitExit(20);
    }
  }
  if (testing::Test::HasFailure()) fmt::print(stderr, "--- service log ---\n{}\n", Log());
  RemoveSharedMemory();  // a killed service leaves it
  fs::remove_all(folder_);
}

void Service::WriteConfig(const std::string& toml) {
  std::ofstream(folder_ / "perdure.toml") << toml;
  has_config_ = true;
}

void Service::Start(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{programs_ / "perdure", "serve"};
  const auto add = [&](const std::string& flag, const std::string& value) {
    all.push_back(flag);
    all.push_back(value);
  };
  const auto add_default = [&](const std::string& flag, const std::string& value) {
    if (std::find(arguments.begin(), arguments.end(), flag) == arguments.end()) add(flag, value);
  };
  add_default("--log-level", "debug");
  add_default("--state-dir", folder_ / "state");
  add_default("--runtime-dir", folder_ / "run");
  add_default("--port", "0");
  if (has_config_) add("--config", folder_ / "perdure.toml");
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (const std::string& argument : all) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    if (!environment_.contains(text.substr(0, text.find('=')))) variables.push_back(text);
  }
  for (const auto& [name, value] : environment_) variables.push_back(name + "=" + value);
  std::vector<char*> env;
  for (std::string& variable : variables) env.push_back(variable.data());
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string log = folder_ / "log";
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  // A group of its own: a signal to the tests' group is not meant for it.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  ASSERT_EQ(posix_spawn(&pid_, argv[0], &actions, &attributes, argv.data(), env.data()), 0)
      << argv[0];
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
}

void Service::StartReady(int models, const std::vector<std::string>& arguments) {
  ASSERT_NO_FATAL_FAILURE(Start(arguments));
  ASSERT_TRUE(Eventually([&] {
    if (!Alive(pid_)) return true;
    const Json ps = Ps();
    if (!ps.is_object() || ps["supervisor"].value("pid", 0) != pid_) return false;
    int ready = 0;
    for (const Json& model : ps["models"]) ready += model.value("state", "") == "ready";
    url_ = ps["frontend"].value("url", "");
    if (ready < models || url_.empty()) return false;
    const auto response = cli::Perform(cli::HttpRequest{
        .url = url_ + "/ready", .body = {}, .api_key = {}, .timeout_s = 5, .on_data = nullptr});
    return response && response->status == 200;
  })) << Log();
  ASSERT_TRUE(Alive(pid_)) << Log();
}

void Service::Signal(int signal) const {
  if (pid_ > 0) kill(pid_, signal);
}

std::optional<int> Service::AwaitExit(int timeout_s) {
  int status = 0;
  const bool ended = Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; }, timeout_s);
  if (!ended) return std::nullopt;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void Service::KillAll() {
  const pid_t group = pid_;
  if (group <= 0) return;
  kill(-group, SIGKILL);
  AwaitExit();
  // Who was its child is somebody else's now, and no zombie is of interest.
  EXPECT_TRUE(Eventually([&] { return !AnyAliveIn(group); }));
}

void Service::RemoveSharedMemory() const {
  const std::string begin = shm::ArenaName(supervisor::InstanceName(folder_ / "state"), "");
  for (const std::string& name : shm::ListArenas())
    if (name.starts_with(begin)) shm::RemoveArena(name);
}

std::string Service::Log() const {
  std::ifstream in(folder_ / "log");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Json Service::Ps() const {
  auto answer = cli::AskSupervisor(folder_ / "run", "ps");
  return answer ? std::move(*answer) : Json();
}

Json Service::Model(const std::string& name) const {
  const Json ps = Ps();
  if (!ps.is_object()) return {};
  for (const Json& model : ps["models"]) {
    if (model.value("name", "") == name) return model;
  }
  return {};
}

pid_t Service::ModelPid(const std::string& name) const {
  const Json model = Model(name);
  return model.is_object() && model["pid"].is_number() ? model["pid"].get<pid_t>() : -1;
}

pid_t Service::SignalModel(const std::string& name, int signal) const {
  const pid_t pid = ModelPid(name);
  if (pid > 0) kill(pid, signal);  // -1 would mean every process there is
  return pid;
}

pid_t Service::FrontendPid() const {
  const Json ps = Ps();
  return ps.is_object() && ps["frontend"]["pid"].is_number() ? ps["frontend"]["pid"].get<pid_t>()
                                                             : -1;
}

std::string Service::Reload(const std::string& name) const {
  const auto answer = cli::AskSupervisor(folder_ / "run", "reload", name);
  return answer ? "" : answer.error().message;
}

bool Service::AwaitModel(const std::string& name, const std::string& state, int timeout_s) const {
  return Eventually(
      [&] {
        const Json model = Model(name);
        return model.is_object() && model.value("state", "") == state;
      },
      timeout_s);
}

}  // namespace perdure::process_tests
