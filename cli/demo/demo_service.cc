#include "cli/demo/demo_service.h"

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "cli/control_client.h"
#include "cli/demo/interrupt.h"
#include "cli/http_client.h"
#include "protocol/heritage.h"

extern char** environ;

namespace perdure::cli {
namespace {

// The built-in model loads in well under a second; a model of the user's may take its time.
constexpr int kReadyTimeoutS = 600;

std::vector<std::string> ServeArguments(const ConfigFlags& flags, const Config& config) {
  std::vector<std::string> arguments{"perdure", "serve"};
  const auto add = [&](const char* name, const auto& value) {
    if (value) {
      arguments.emplace_back(name);
      arguments.push_back(fmt::format("{}", *value));
    }
  };
  add("--host", flags.host);
  add("--port", flags.port);
  add("--config", flags.config);
  add("--model-cache-dir", flags.model_cache_dir);
  add("--max-context", flags.max_context);
  add("--state-dir", flags.state_dir);
  add("--runtime-dir", flags.runtime_dir);
  add("--log-level", flags.log_level);
  // Its log would stand in the middle of the answers.
  if (!flags.log_level && config.log_level == LogLevel::kInfo)
    arguments.insert(arguments.end(), {"--log-level", "error"});
  for (const std::string& model : flags.models) {
    arguments.emplace_back("--model");
    arguments.push_back(model);
  }
  if (flags.insecure) arguments.emplace_back("--insecure");
  return arguments;
}

struct Progress {
  std::string url;      // where the service listens; empty while it does not say
  std::string failure;  // why no model will get ready
};

// What the supervisor `server` says of itself. Its pid is compared, as another service may be
// running in the same folder or on the same port.
Progress AskProgress(pid_t server, const Config& config) {
  const Result<Json> ps = AskSupervisor(config.runtime_dir, "ps");
  if (!ps || !ps->contains("supervisor") || !ps->contains("frontend")) return {};
  if ((*ps)["supervisor"].value("pid", 0) != server) return {};
  Progress progress;
  progress.url = (*ps)["frontend"].value("url", "");
  for (const Json& model : (*ps)["models"]) {
    if (model.value("state", "") != "failed") return progress;
    progress.failure = model.value("reason", "the model failed");
  }
  return progress;
}

}  // namespace

DemoService::~DemoService() {
  if (pid_ > 0) Stop();
}

const ModelConfig& DemoService::model() const {
  const auto it = std::find_if(config_.models.begin(), config_.models.end(),
                               [](const ModelConfig& model) { return model.is_default; });
  CHECK(it != config_.models.end());
  return *it;
}

int DemoService::Start(const ConfigFlags& flags) {
  const std::vector<std::string> arguments = ServeArguments(flags, config_);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  if (const int error =
          posix_spawn(&pid_, "/proc/self/exe", nullptr, nullptr, argv.data(), environ)) {
    pid_ = -1;
    fmt::print(stderr, "perdure: cannot start the service: {}\n", strerror(error));
    return protocol::kExitSystem;
  }
  return AwaitReady();
}

int DemoService::AwaitReady() {
  const int64_t deadline_ms = MonotonicMs() + int64_t{kReadyTimeoutS} * 1000;
  for (;;) {
    if (const int code = ChildExit(false); code >= 0) {
      fmt::print(stderr, "perdure: the service ended before it was ready (exit code {})\n", code);
      return code == 0 ? protocol::kExitSystem : code;
    }
    const Progress progress = AskProgress(pid_, config_);
    if (!progress.failure.empty()) {
      fmt::print(stderr, "perdure: no model can be served: {}\n", progress.failure);
      Stop();
      return protocol::kExitBadModel;
    }
    if (!progress.url.empty()) {
      const Result<HttpResponse> ready = Perform(HttpRequest{.url = progress.url + "/ready",
                                                             .body = {},
                                                             .api_key = {},
                                                             .timeout_s = 2,
                                                             .on_data = nullptr});
      if (ready && ready->status == 200) {
        url_ = progress.url;
        return protocol::kExitOk;
      }
    }
    if (Interrupted() || MonotonicMs() > deadline_ms) {
      if (!Interrupted())
        fmt::print(stderr, "perdure: the service was not ready within {} s\n", kReadyTimeoutS);
      Stop();
      return protocol::kExitSystem;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<Json> DemoService::ModelReport() const {
  ASSIGN_OR_RETURN(const Json ps, AskSupervisor(config_.runtime_dir, "ps"));
  if (ps.contains("models")) {
    for (const Json& entry : ps["models"]) {
      if (entry.value("name", "") == model().name) return entry;
    }
  }
  return Err(ErrorCode::io_error, fmt::format("the service knows no model {}", model().name));
}

// -1 while the child runs, or a wait was interrupted; its exit code (128 + signal) once it ended.
int DemoService::ChildExit(bool wait) {
  int status = 0;
  pid_t result = 0;
  do {
    result = waitpid(pid_, &status, wait ? 0 : WNOHANG);
  } while (result < 0 && errno == EINTR && !Interrupted());
  if (result != pid_) return -1;
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int DemoService::Stop() {
  kill(pid_, SIGTERM);
  ForgetInterrupt();
  for (;;) {
    if (const int code = ChildExit(true); code >= 0) return code;
    if (Interrupted()) kill(pid_, SIGTERM);
    ForgetInterrupt();
  }
}

int DemoService::Wait() {
  for (;;) {
    if (const int code = ChildExit(true); code >= 0) return code;
    if (Interrupted()) return Stop();
  }
}

}  // namespace perdure::cli
