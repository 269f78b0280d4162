// A supervisor in a process of its own, with fake children (tests/fake_child), in a folder of its
// own.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/unique_fd.h"
#include "supervisor/supervisor.h"

namespace perdure::supervisor {

class TestService {
 public:
  TestService();
  ~TestService();  // ends whatever still runs
  TestService(const TestService&) = delete;
  TestService& operator=(const TestService&) = delete;

  // A model's folder whose worker behaves so.
  void SetModel(const std::string& name, const std::string& behaviour);
  // The config's text; [models.NAME] with the path of each SetModel is added.
  void WriteConfig(const std::string& text);
  // From Start on its standard error is a pipe that nobody reads.
  void CloseLog();
  void SetFrontendBehaviour(const std::string& behaviour);

  void Start(std::function<void(Timings&)> adjust = {});
  int pid() const { return pid_; }
  void Signal(int signal) const;
  // The exit code once it has ended.
  std::optional<int> WaitForExit();

  std::optional<UniqueFd> Connect() const;
  std::string AskLine(const std::string& line) const;  // empty when nobody answers
  Json Ask(const std::string& op) const;
  Json Ps() const { return Ask("ps"); }
  Json Model(const std::string& name) const;
  bool ModelIs(const std::string& name, const std::string& state) const;

  // What the service has written to its standard error, and the fake frontend to its log.
  std::string Log() const;
  std::string FrontendLog() const;

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path runtime_dir() const { return folder_ / "run"; }

  // Runs in a child of its own: what a second supervisor on the same folder says.
  std::pair<int, std::string> RunSecond(const std::function<void(Config&)>& change) const;

 private:
  Config Load(ConfigFlags* flags) const;
  int RunHere(const std::filesystem::path& log, const std::function<void(Timings&)>& adjust,
              const std::function<void(Config&)>& change) const;

  std::filesystem::path folder_;
  std::string models_;
  int pid_ = -1;
  UniqueFd unread_log_, unread_log_end_;
};

// Waits up to a minute, by looking again and again.
[[nodiscard]] bool Eventually(const std::function<bool()>& condition);
// How often `part` stands in `text`.
int Count(const std::string& text, const std::string& part);

}  // namespace perdure::supervisor
