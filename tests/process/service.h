// A real service for a test: `perdure serve` with folders of its own and a port of the kernel's
// choice, ended with the test whatever happens.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace perdure::process_tests {

// Polls until `condition` holds; false after `timeout_s`. Generous: the machine may be busy.
bool Eventually(const std::function<bool()>& condition, int timeout_s = 60);

// Whether the process exists and is no zombie.
bool Alive(pid_t pid);

std::filesystem::path BuiltinModel();  // models/nano

class Service {
 public:
  // Folders are made; nothing is started.
  Service();
  ~Service();

  // Where the programs are; by default those that are built.
  void SetPrograms(std::filesystem::path folder) { programs_ = std::move(folder); }
  // Written as the service's TOML file; port and folders come from flags.
  void WriteConfig(const std::string& toml);
  // In the environment of what is started from now on.
  void SetEnvironment(const std::string& name, const std::string& value) {
    environment_[name] = value;
  }
  std::filesystem::path folder() const { return folder_; }

  // Starts `perdure serve` with the config, if one was written, and `arguments`.
  void Start(const std::vector<std::string>& arguments = {});
  // Start, then wait for /ready with the given number of models ready.
  void StartReady(int models = 1, const std::vector<std::string>& arguments = {});

  pid_t pid() const { return pid_; }
  const std::string& url() const { return url_; }
  void Signal(int signal) const;
  // The exit code (128 + signal), or nothing after `timeout_s`.
  std::optional<int> AwaitExit(int timeout_s = 60);
  // kill -9 of the supervisor, the frontend and all workers; returns when they are dead.
  void KillAll();
  // As a reboot does; the service is dead.
  void RemoveSharedMemory() const;
  // What it has logged so far.
  std::string Log() const;

  // `perdure ps --json`; null while it does not answer.
  Json Ps() const;
  Json Model(const std::string& name) const;  // of Ps(); null if absent
  pid_t ModelPid(const std::string& name) const;
  pid_t FrontendPid() const;
  // Sends `signal` to the model's worker and returns its pid; -1, and nothing sent, if it has none.
  pid_t SignalModel(const std::string& name, int signal) const;
  // `perdure reload NAME`: empty, or the error.
  std::string Reload(const std::string& name) const;
  bool AwaitModel(const std::string& name, const std::string& state, int timeout_s = 60) const;

 private:
  std::filesystem::path folder_;
  std::filesystem::path programs_ = PERDURE_BIN_DIR;
  // Not what this machine is configured to serve.
  std::map<std::string, std::string> environment_{{"PERDURE_CONFIG", "/dev/null"}};
  bool has_config_ = false;
  pid_t pid_ = -1;
  std::string url_;
};

}  // namespace perdure::process_tests
