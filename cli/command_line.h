// The command line of `perdure`: parsing and help. No command runs here.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"

namespace perdure::cli {

enum class Command { kServe, kPs, kReload, kShow, kList, kDemo };

struct DemoOptions {
  std::string prompt = "Hello! What can you do?";
  bool once = false;  // stop the server after the answer
};

struct CommandLine {
  Command command = Command::kServe;
  ConfigFlags flags;
  bool json = false;  // ps, show, list
  std::string model;  // show
  DemoOptions demo;
};

struct ParsedCommandLine {
  std::optional<CommandLine> command_line;  // absent: exit now with exit_code
  int exit_code = 0;
};

// Help, version and usage errors are printed here; usage errors give kExitUsage.
ParsedCommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace perdure::cli
