// Logging to standard error, one line an event: time, level, component[pid], text.
// Thread-safe. Client content (prompts, answers) is never logged above debug level.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

namespace perdure {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// `component` names the process ("supervisor", "frontend", "worker nano"). Call once at start.
void InitLogging(std::string_view component, LogLevel level);
void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();
// False for a name that is not one of debug, info, warning, error, off.
bool ParseLogLevel(std::string_view name, LogLevel* level);
std::string_view LogLevelName(LogLevel level);

void LogLine(LogLevel level, std::string_view text);

template <class... Args>
void LogDebug(fmt::format_string<Args...> format, Args&&... args) {
  if (GetLogLevel() <= LogLevel::kDebug)
    LogLine(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  LogLine(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace perdure
