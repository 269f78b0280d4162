#include "cli/demo/stage.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "protocol/heritage.h"

namespace perdure::cli {

void Print(std::string_view text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

void Headline(std::string_view text) { Print(fmt::format("\n{}\n\n", Marked(text))); }

std::string Marked(std::string_view text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  return terminal ? fmt::format("\x1b[1m{}\x1b[0m", text) : std::string(text);
}

namespace {

// On a terminal, so that a person sees one thing after the other. Ctrl-C ends it.
void Pause() {
  constexpr int kPauseMs = 1500;
  if (isatty(STDOUT_FILENO) != 0) poll(nullptr, 0, kPauseMs);
}

}  // namespace

ChatAnswer Ask(const DemoService& service, const Json& body,
               const std::function<void(std::string_view piece)>& on_piece) {
  Pause();
  Print(fmt::format("you:   {}\nmodel: ", body["messages"].back()["content"].get<std::string>()));
  const auto keys = AllApiKeys(service.config());
  ChatAnswer answer =
      StreamChat(service.url(), keys.empty() ? std::string() : keys.front(), body, on_piece);
  Print("\n\n");
  return answer;
}

int Failed(std::string_view problem) {
  std::fflush(stdout);
  fmt::print(stderr, "perdure: the demonstration failed: {}\n", problem);
  return protocol::kExitSystem;
}

int Disproved(std::string_view sentence) {
  std::fflush(stdout);
  fmt::print(stderr, "perdure: the demonstration failed: {}\n", sentence);
  return protocol::kExitBug;
}

}  // namespace perdure::cli
