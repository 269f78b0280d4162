#include <fmt/format.h>
#include <signal.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "cli/demo/scenes.h"
#include "cli/demo/stage.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

// Long enough that its middle is met, and read in half a minute where a model is slow.
constexpr int kAnswerTokens = 240;
constexpr int kKillAtPiece = 80;
// A fast model may have computed all of it before the signal arrives: then it is done again.
constexpr int kAttempts = 5;

Json Question(const std::string& prompt) {
  return {{"messages", Json::array({Json{{"role", "user"}, {"content", prompt}}})},
          {"temperature", 0.8},
          {"seed", 7},
          {"max_tokens", kAnswerTokens},
          {"ignore_eos", true}};
}

// Kills the worker `pid` at one piece, and measures how long the stream stood still after that.
class Killer {
 public:
  explicit Killer(pid_t pid) : pid_(pid) {}

  void OnPiece(std::string_view piece) {
    const int64_t now_us = MonotonicUs();
    if (killed_) silence_us_ = std::max(silence_us_, now_us - last_us_);
    Print(piece);
    if (++pieces_ == kKillAtPiece) {
      killed_ = kill(pid_, SIGKILL) == 0;
      Print(Marked(killed_ ? fmt::format("[kill -9 {}]", pid_)
                           : fmt::format("[kill -9 {}: {}]", pid_, std::strerror(errno))));
    }
    last_us_ = MonotonicUs();
  }
  bool killed() const { return killed_; }
  double silence_ms() const { return static_cast<double>(silence_us_) / 1000; }

 private:
  const pid_t pid_;
  int pieces_ = 0;
  bool killed_ = false;
  int64_t last_us_ = 0, silence_us_ = 0;
};

// The model's entry once nothing runs any more, so that its counters are whole.
Result<Json> SettledReport(const DemoService& service) {
  constexpr int kLooks = 500;
  for (int look = 0;; ++look) {
    ASSIGN_OR_RETURN(Json report, service.ModelReport());
    if ((report.value("state", "") == "ready" && report.value("running", 0) == 0) || look == kLooks)
      return report;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// Counters of `report` are those of the worker that went on, which has done nothing else.
void TellWhatWasKept(const ChatAnswer& answer, const Json& report, const Killer& killer) {
  const int known =
      answer.prompt_tokens + answer.completion_tokens - report.value("tokens_generated", 0);
  // A single token is computed as any next one is.
  const int computed = std::max(1, report.value("tokens_prefilled", 0));
  fmt::print(
      "Its replacement is process {}. Of the {} tokens that the dead one had got to, it found the\n"
      "keys and values of {} in shared memory and computed those of {}. The stream stood still "
      "for\n"
      "{:.0f} ms.\n",
      TextOf(report, "pid"), known, known - computed, computed, killer.silence_ms());
}

}  // namespace

int ShowKilledStream(const DemoService& service, const std::string& prompt) {
  const Json body = Question(prompt);
  Headline("1. An answer outlives the process that computes it");
  fmt::print("With temperature 0.8 and a seed, first undisturbed:\n\n");
  const ChatAnswer first = Ask(service, body, &Print);
  if (!first.problem.empty()) return Failed(first.problem);

  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const Result<Json> before = service.ModelReport();
    if (!before) return Failed(before.error().message);
    if (!(*before)["pid"].is_number()) return Failed("the model has no process");
    Killer killer((*before)["pid"].get<pid_t>());
    fmt::print("The same again, and in the middle its process is killed:\n\n");
    const ChatAnswer second =
        Ask(service, body, [&](std::string_view piece) { killer.OnPiece(piece); });
    if (!second.problem.empty()) return Failed(second.problem);
    if (second.text != first.text)
      return Disproved("The second answer is not the first one. This must not happen.");
    if (!killer.killed()) return Failed("the answer was too short for a kill in its middle");
    const Result<Json> after = SettledReport(service);
    if (!after) return Failed(after.error().message);
    if (after->value("tokens_generated", 0) == 0) {
      fmt::print("The answer was complete before the signal arrived: once more.\n\n");
      continue;
    }
    fmt::print("Both answers are equal, byte for byte ({} bytes, {} tokens).\n", first.text.size(),
               first.completion_tokens);
    TellWhatWasKept(second, *after, killer);
    return protocol::kExitOk;
  }
  return Failed("the model answers too fast to be killed in the middle");
}

}  // namespace perdure::cli
