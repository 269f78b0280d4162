// The command line of `perdure`: parsing and help. No command runs here.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "cli/backup/backup.h"
#include "cli/backup/restore.h"
#include "cli/bench/bench.h"

namespace perdure::cli {

enum class Command {
  kServe,
  kPs,
  kReload,
  kShow,
  kList,
  kBench,
  kDoctor,
  kDemo,
  kInspectArena,
  kCache,
  kBackup,
  kRestore,
};

struct DemoOptions {
  std::string prompt = "Tell me a story.";
  bool once = false;  // stop the service after the scenes
};

struct CacheOptions {
  std::string operation;  // "stats", "optimize", "clear", "health", "recommend", "monitor"
  bool unused_only = false;
  int seconds = 60;
};

struct CommandLine {
  Command command = Command::kServe;
  ConfigFlags flags;
  bool json = false;  // ps, show, list, bench, doctor, inspect, cache, backup, restore
  std::string model;  // show, bench, reload, cache
  std::string arena;  // inspect arena
  CacheOptions cache;
  BackupOptions backup;
  RestoreOptions restore;
  DemoOptions demo;
  BenchOptions bench;
};

struct ParsedCommandLine {
  std::optional<CommandLine> command_line;  // absent: exit now with exit_code
  int exit_code = 0;
};

// Help, version and usage errors are printed here; usage errors give kExitUsage.
ParsedCommandLine ParseCommandLine(int argc, const char* const* argv);

}  // namespace perdure::cli
