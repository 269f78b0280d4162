// The command line of `perdure`: parsing and help. No command runs here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/limits.h"
#include "cli/backup/backup.h"
#include "cli/backup/restore.h"
#include "cli/bench/bench.h"

namespace perdure::cli {

enum class Command {
  kServe,
  kPs,
  kReload,
  kStop,
  kPlan,
  kShow,
  kList,
  kBench,
  kDoctor,
  kDemo,
  kInspectArena,
  kCache,
  kConversations,
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

struct ConversationsOptions {
  std::string operation;         // "list", "show", "delete", "fork", …
  std::vector<std::string> ids;  // show, delete, fork, rewind, export
  std::string user, tenant;      // empty: of any
  std::string new_id;            // fork, import
  std::string file = "-";        // export, import: stdout, stdin
  uint32_t turn = 0;             // show, fork, rewind; 0: the last one
  int limit = limits::kConversationsListed;
  bool all = false, yes = false;  // delete
  bool force = false;             // export, save
  bool kv = false;                // export, save: with what was computed
  std::string name;               // save, load, delete-saved
};

struct CommandLine {
  Command command = Command::kServe;
  ConfigFlags flags;
  bool json = false;                // all but serve, reload, stop and demo
  std::string model;                // show, bench, reload, stop, cache, conversations
  std::vector<std::string> models;  // plan
  int context = 4096;               // plan
  std::string arena;                // inspect arena
  CacheOptions cache;
  ConversationsOptions conversations;
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
