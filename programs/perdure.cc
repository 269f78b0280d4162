// perdure: the command line; `perdure serve` becomes the supervisor.

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/config.h"
#include "cli/bench/bench.h"
#include "cli/cache.h"
#include "cli/command_line.h"
#include "cli/conversations.h"
#include "cli/demo/demo.h"
#include "cli/doctor.h"
#include "cli/inspect.h"
#include "cli/list.h"
#include "cli/plan.h"
#include "cli/ps.h"
#include "cli/show.h"
#include "protocol/heritage.h"

namespace {

using perdure::cli::Command;

int RunBackupOrRestore(const perdure::cli::CommandLine& line, const perdure::GetEnv& env) {
  const auto fail = [](const perdure::Error& error, const char* flag) {
    fmt::print(stderr, "perdure: {} (or name the service's folder with {})\n", error.message, flag);
    return perdure::protocol::kExitUsage;
  };
  const auto state_dir = perdure::FindStateDir(line.flags, env);
  if (!state_dir) return fail(state_dir.error(), "--state-dir");
  if (line.command == Command::kRestore)
    return perdure::cli::RunRestore(*state_dir, line.restore, line.json);
  const auto runtime_dir = perdure::FindRuntimeDir(line.flags, env);
  if (!runtime_dir) return fail(runtime_dir.error(), "--runtime-dir");
  return perdure::cli::RunBackup(*state_dir, *runtime_dir, line.backup, line.json);
}

// The same process goes on as a program that has nothing else in it.
int BecomeSupervisor(char** argv) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto program = self.parent_path() / "perdure-supervisor";
  execv(program.c_str(), argv);
  fmt::print(stderr, "perdure: cannot start {}, which belongs beside this program: {}\n",
             program.string(), std::strerror(errno));
  return perdure::protocol::kExitSystem;
}

int Run(const perdure::cli::CommandLine& line, char** argv) {
  const perdure::GetEnv env = perdure::ProcessEnvironment();
  if (line.command == Command::kPs || line.command == Command::kReload ||
      line.command == Command::kStop || line.command == Command::kCache ||
      line.command == Command::kConversations) {
    const auto runtime_dir = perdure::FindRuntimeDir(line.flags, env);
    if (!runtime_dir) {
      fmt::print(stderr, "perdure: {} (or name the service's folder with --runtime-dir)\n",
                 runtime_dir.error().message);
      return perdure::protocol::kExitUsage;
    }
    if (line.command == Command::kCache)
      return perdure::cli::RunCache(*runtime_dir, line.cache, line.model, line.json);
    if (line.command == Command::kStop) return perdure::cli::RunStop(*runtime_dir, line.model);
    if (line.command == Command::kConversations)
      return perdure::cli::RunConversations(*runtime_dir, line.conversations, line.model,
                                            line.json);
    return line.command == Command::kPs ? perdure::cli::RunPs(*runtime_dir, line.json)
                                        : perdure::cli::RunReload(*runtime_dir, line.model);
  }
  if (line.command == Command::kBackup || line.command == Command::kRestore)
    return RunBackupOrRestore(line, env);
  if (line.command == Command::kDoctor) return perdure::cli::RunDoctor(line.flags, env, line.json);
  if (line.command == Command::kInspectArena)
    return perdure::cli::RunInspectArena(line.arena, line.json);
  if (line.command == Command::kList) return perdure::cli::RunList(line.flags, env, line.json);
  if (line.command == Command::kPlan)
    return perdure::cli::RunPlan(line.models, line.context, line.flags, env, line.json);
  if (line.command == Command::kShow)
    return perdure::cli::RunShow(line.model, line.flags, env, line.json);
  if (line.command == Command::kBench)
    return perdure::cli::RunBench(line.model, line.flags, env, line.bench);
  if (line.command == Command::kServe) return BecomeSupervisor(argv);
  std::vector<std::string> warnings;
  const auto config = perdure::LoadConfig(line.flags, env, &warnings);
  if (!config) {
    fmt::print(stderr, "perdure: {}\n", config.error().message);
    return perdure::protocol::kExitUsage;
  }
  return perdure::cli::RunDemo(*config, line.flags, line.demo);
}

}  // namespace

int main(int argc, char** argv) {
  const auto parsed = perdure::cli::ParseCommandLine(argc, argv);
  if (!parsed.command_line) return parsed.exit_code;
  return Run(*parsed.command_line, argv);
}
