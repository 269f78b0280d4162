// perdure-supervisor: what `perdure serve` becomes. A program of its own, as it lives for months
// and needs nothing of what the other commands do.

#include <fmt/format.h>

#include <cstdio>

#include "base/config.h"
#include "base/log.h"
#include "cli/command_line.h"
#include "protocol/heritage.h"
#include "supervisor/supervisor.h"

int main(int argc, char** argv) {
  const auto parsed = perdure::cli::ParseCommandLine(argc, argv);
  if (!parsed.command_line) return parsed.exit_code;
  if (parsed.command_line->command != perdure::cli::Command::kServe) {
    fmt::print(stderr, "perdure-supervisor: is started by `perdure serve`, not by hand\n");
    return perdure::protocol::kExitUsage;
  }
  const perdure::ConfigFlags& flags = parsed.command_line->flags;
  std::vector<std::string> warnings;
  const auto config = perdure::LoadConfig(flags, perdure::ProcessEnvironment(), &warnings);
  if (!config) {
    fmt::print(stderr, "perdure: {}\n", config.error().message);
    return perdure::protocol::kExitUsage;
  }
  perdure::InitLogging("supervisor", config->log_level);
  for (const std::string& warning : warnings) perdure::LogWarning("{}", warning);
  return perdure::supervisor::RunSupervisor(*config, flags);
}
