#include "cli/demo.h"

#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "cli/control_client.h"
#include "cli/http_client.h"
#include "cli/ps.h"
#include "cli/sse_reader.h"
#include "protocol/heritage.h"

extern char** environ;

namespace perdure::cli {
namespace {

// The built-in model loads in well under a second; a model of the user's may take its time.
constexpr int kReadyTimeoutS = 600;

volatile sig_atomic_t interrupted = 0;
void OnSignal(int) { interrupted = 1; }

std::vector<std::string> ServeArguments(const ConfigFlags& flags) {
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
  for (const std::string& model : flags.models) {
    arguments.emplace_back("--model");
    arguments.push_back(model);
  }
  if (flags.insecure) arguments.emplace_back("--insecure");
  return arguments;
}

// -1 while the child runs; its exit code (128 + signal) once it ended.
int ChildExit(pid_t pid, bool wait) {
  int status = 0;
  pid_t result = 0;
  do {
    result = waitpid(pid, &status, wait ? 0 : WNOHANG);
  } while (result < 0 && errno == EINTR && !interrupted);
  if (result != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int StopChild(pid_t pid) {
  kill(pid, SIGTERM);
  interrupted = 0;
  int code = -1;
  while (code < 0) {
    code = ChildExit(pid, true);
    if (interrupted) kill(pid, SIGTERM);  // a second Ctrl-C: the service ends at once
    interrupted = 0;
  }
  return code;
}

// Prints the pieces of a chat stream as they come; keeps its end for the summary.
class StreamPrinter {
 public:
  bool OnBytes(std::string_view bytes) {
    reader_.Append(bytes, [this](std::string_view data) { OnData(data); });
    return !interrupted;
  }
  bool done() const { return done_; }
  const std::string& error() const { return error_; }
  const Json& timings() const { return timings_; }
  const Json& usage() const { return usage_; }

 private:
  void OnData(std::string_view data) {
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    const Result<Json> chunk = ParseJson(data, "a chunk", ErrorCode::protocol_error);
    if (!chunk) {
      error_ = chunk.error().message;
      return;
    }
    if (chunk->contains("error")) {
      error_ = (*chunk)["error"].value("message", "unknown error");
      return;
    }
    if (chunk->contains("timings")) timings_ = (*chunk)["timings"];
    if (chunk->contains("usage") && !(*chunk)["usage"].is_null()) usage_ = (*chunk)["usage"];
    if (!chunk->contains("choices")) return;
    for (const Json& choice : (*chunk)["choices"]) {
      if (!choice.contains("delta")) continue;
      const Json& delta = choice["delta"];
      if (delta.contains("content") && delta["content"].is_string()) {
        fmt::print("{}", delta["content"].get<std::string>());
        std::fflush(stdout);
      }
    }
  }

  SseReader reader_;
  bool done_ = false;
  std::string error_;
  Json timings_, usage_;
};

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

struct Readiness {
  std::string url;    // empty: not ready
  int exit_code = 0;  // to end with, if not ready
};

Readiness AwaitReady(pid_t server, const Config& config) {
  const int64_t deadline_ms = MonotonicMs() + int64_t{kReadyTimeoutS} * 1000;
  for (;;) {
    if (const int code = ChildExit(server, false); code >= 0) {
      fmt::print(stderr, "perdure: the service ended before it was ready (exit code {})\n", code);
      return {{}, code == 0 ? protocol::kExitSystem : code};
    }
    const Progress progress = AskProgress(server, config);
    if (!progress.failure.empty()) {
      fmt::print(stderr, "perdure: no model can be served: {}\n", progress.failure);
      StopChild(server);
      return {{}, protocol::kExitBadModel};
    }
    if (!progress.url.empty()) {
      const Result<HttpResponse> ready = Perform(HttpRequest{.url = progress.url + "/ready",
                                                             .body = {},
                                                             .api_key = {},
                                                             .timeout_s = 2,
                                                             .on_data = nullptr});
      if (ready && ready->status == 200) return {progress.url, 0};
    }
    if (interrupted || MonotonicMs() > deadline_ms) {
      if (!interrupted)
        fmt::print(stderr, "perdure: the service was not ready within {} s\n", kReadyTimeoutS);
      StopChild(server);
      return {{}, protocol::kExitSystem};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

int ShowAnswer(const Config& config, const std::string& url, const DemoOptions& options) {
  Json body{{"messages", Json::array({Json{{"role", "user"}, {"content", options.prompt}}})},
            {"stream", true},
            {"stream_options", Json{{"include_usage", true}}},
            {"temperature", 0}};
  fmt::print(
      "\n$ curl -N {}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{}'\n\n",
      url, DumpJson(body));
  fmt::print("you:   {}\nmodel: ", options.prompt);
  std::fflush(stdout);
  StreamPrinter printer;
  const Result<HttpResponse> response = Perform(
      HttpRequest{.url = url + "/v1/chat/completions",
                  .body = DumpJson(body),
                  .api_key = config.api_keys.empty() ? std::string() : config.api_keys.front(),
                  .timeout_s = 0,
                  .on_data = [&](std::string_view bytes) { return printer.OnBytes(bytes); }});
  fmt::print("\n\n");
  std::string problem = printer.error();
  if (!response)
    problem = response.error().message;
  else if (response->status != 200)
    problem = fmt::format("HTTP {}: {}", response->status, response->body);
  else if (problem.empty() && !printer.done())
    problem = "the stream ended without [DONE]";
  if (!problem.empty()) {
    fmt::print(stderr, "perdure: the demonstration failed: {}\n", problem);
    return protocol::kExitSystem;
  }
  if (printer.usage().is_object() && printer.timings().is_object())
    fmt::print(
        "({} prompt tokens in {:.0f} ms, {} answer tokens in {:.0f} ms)\n\n",
        printer.usage().value("prompt_tokens", 0), printer.timings().value("prefill_ms", 0.0),
        printer.usage().value("completion_tokens", 0), printer.timings().value("decode_ms", 0.0));
  std::fflush(stdout);
  return protocol::kExitOk;
}

}  // namespace

int RunDemo(const Config& config, const ConfigFlags& flags, const DemoOptions& options) {
  struct sigaction action {};
  action.sa_handler = OnSignal;  // no SA_RESTART: a wait must notice
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);

  const std::vector<std::string> arguments = ServeArguments(flags);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t server = -1;
  if (const int error =
          posix_spawn(&server, "/proc/self/exe", nullptr, nullptr, argv.data(), environ)) {
    fmt::print(stderr, "perdure: cannot start the service: {}\n", strerror(error));
    return protocol::kExitSystem;
  }

  const Readiness readiness = AwaitReady(server, config);
  if (readiness.url.empty()) return readiness.exit_code;
  const std::string& url = readiness.url;
  const int code = ShowAnswer(config, url, options);
  if (code == protocol::kExitOk) {
    fmt::print("$ perdure ps\n");
    RunPs(config.runtime_dir, false);
    std::fflush(stdout);
  }
  if (code != protocol::kExitOk || options.once) {
    StopChild(server);
    return code;
  }
  fmt::print("\nThe service goes on at {}; any OpenAI client can use {}/v1. Ctrl-C ends it.\n", url,
             url);
  std::fflush(stdout);
  for (;;) {
    if (const int exit_code = ChildExit(server, true); exit_code >= 0) return exit_code;
    if (interrupted) return StopChild(server);
  }
}

}  // namespace perdure::cli
