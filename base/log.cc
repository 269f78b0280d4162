#include "base/log.h"

#include <poll.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <memory>

namespace perdure {
namespace {

std::atomic<LogLevel> current_level{LogLevel::kInfo};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

constexpr std::string_view kNames[] = {"debug", "info", "warning", "error", "off"};

// Control characters in what others sent must not forge log lines or drive a terminal.
std::string Printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", c);
    else
      out += static_cast<char>(c);
  }
  return out;
}

// Whoever reads our standard error may have stopped reading. A lost line is better than a process
// that stands still: the supervisor above all. A pipe that is ready takes a line whole.
bool StderrTakesALine() {
  constexpr int kPatienceMs = 100;
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  return poll(&ready, 1, kPatienceMs) != 0;
}

}  // namespace

void InitLogging(std::string_view component, LogLevel level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(std::string(component), sink);
  logger->set_pattern(fmt::format("%Y-%m-%dT%H:%M:%S.%e%z %-7l {}[{}] %v", component, getpid()));
  logger->flush_on(spdlog::level::debug);
  logger->set_level(spdlog::level::debug);
  spdlog::set_default_logger(logger);
  SetLogLevel(level);
}

void SetLogLevel(LogLevel level) { current_level.store(level); }
LogLevel GetLogLevel() { return current_level.load(); }

bool ParseLogLevel(std::string_view name, LogLevel* level) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) {
      *level = static_cast<LogLevel>(i);
      return true;
    }
  }
  return false;
}

std::string_view LogLevelName(LogLevel level) { return kNames[static_cast<size_t>(level)]; }

void LogLine(LogLevel level, std::string_view text) {
  if (level < GetLogLevel() || !StderrTakesALine()) return;
  spdlog::default_logger_raw()->log(ToSpdlog(level), "{}", Printable(text));
}

}  // namespace perdure
