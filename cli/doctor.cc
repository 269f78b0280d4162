#include "cli/doctor.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/listen.h"
#include "base/memory.h"
#include "base/private_folder.h"
#include "base/processors.h"
#include "base/version.h"
#include "cli/control_client.h"
#include "cli/list.h"
#include "cli/table.h"
#include "engine/isa.h"
#include "hub/model_size.h"
#include "hub/model_source.h"
#include "protocol/heritage.h"
#include "shm/arena_segment.h"
#include "shm/kv_least.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

class Checks {
 public:
  void Ok(const char* name, std::string found) { Add(name, "ok", std::move(found), nullptr); }
  void Warn(const char* name, std::string found, std::string advice) {
    Add(name, "warning", std::move(found), std::move(advice));
  }
  void Problem(const char* name, std::string found, std::string advice) {
    Add(name, "problem", std::move(found), std::move(advice));
  }
  Json list = Json::array();

 private:
  void Add(const char* name, const char* state, std::string found, Json advice) {
    list.push_back({{"name", name},
                    {"state", state},
                    {"found", std::move(found)},
                    {"advice", std::move(advice)}});
  }
};

// What the workers would compute with.
Json CheckCpu(const std::string& wanted, Checks* checks) {
  Json sets = Json::array();
  std::string names;
  for (const engine::Isa isa : engine::kIsas) {
    if (!engine::CpuHas(isa)) continue;
    const std::string name(engine::IsaName(isa));
    sets.push_back(name);
    names += (names.empty() ? "" : ", ") + name;
  }
  engine::Isa chosen = engine::BestIsa();
  const auto named = engine::ParseIsa(wanted);
  if (!wanted.empty() && (!named || !engine::CpuHas(*named))) {
    checks->Problem("instruction set",
                    fmt::format("isa is \"{}\", which this CPU does not have", wanted),
                    fmt::format("leave isa out of [supervisor] and PERDURE_ISA unset, or name one "
                                "of: {}",
                                names));
  } else {
    if (named) chosen = *named;
    const std::string found =
        fmt::format("{} is used; this CPU has {}", engine::IsaName(chosen), names);
    if (chosen == engine::Isa::kScalar && chosen == engine::BestIsa())
      checks->Warn("instruction set", found,
                   "models run, but many times slower: a CPU with AVX2 at least is wanted");
    else if (chosen != engine::BestIsa())
      checks->Warn("instruction set", found,
                   "a faster one is there: leave isa out of [supervisor] and PERDURE_ISA unset");
    else
      checks->Ok("instruction set", found);
  }
  const int threads = UsableProcessors();
  checks->Ok(
      "processors",
      fmt::format("{} of {} may be used: so many threads has a worker, unless its model says "
                  "otherwise",
                  threads, sysconf(_SC_NPROCESSORS_ONLN)));
  return {{"instruction_sets", std::move(sets)},
          {"chosen", engine::IsaName(chosen)},
          {"threads", threads}};
}

void CheckMemory(const MemoryState& memory, Checks* checks) {
  const std::string found =
      fmt::format("{} of {} available{}", Bytes(memory.available), Bytes(memory.capacity),
                  memory.is_limited ? ", as the control group has it" : "");
  if (memory.available < limits::kDoctorMemoryLow)
    checks->Warn("memory", found, "stop what else needs it, or serve smaller models");
  else
    checks->Ok("memory", found);
}

// What a model is loaded with, as the supervisor reckons before it has loaded it; 0: not known.
uint64_t LoadedWith(const Config& config, const ModelConfig& model, const GetEnv& env) {
  const hub::ModelSize size = hub::SizeOf(model, hub::PlacesOf(config, env), model.max_sequences);
  if (size.weight_bytes == 0) return 0;
  const shm::KvSize kv = shm::KvSizeOf(size.kv_page_bytes, size.context, model.max_sequences,
                                       config.conversations.conversations_max);
  const uint64_t least =
      model.kv_bytes_max > 0 ? std::min(model.kv_bytes_max, kv.least_bytes) : kv.least_bytes;
  return size.weight_bytes + size.work_bytes + limits::kWorkerBytes + limits::kWorkerRequestBytes +
         least + kv.fixed_bytes;
}

// memory_max against the machine, and the models against it.
void CheckBudget(const Config& config, const GetEnv& env, const MemoryState& memory,
                 Checks* checks) {
  if (config.memory_max > memory.capacity)
    checks->Warn("memory_max",
                 fmt::format("it is {}, {} has {}", Bytes(config.memory_max),
                             memory.is_limited ? "the control group" : "the machine",
                             Bytes(memory.capacity)),
                 "what there is counts: lower it, or raise the control group's limit");
  const uint64_t budget = MemoryBudget(config.memory_max, memory.capacity);
  const uint64_t for_models = budget - std::min(budget, limits::kServiceBytes);
  uint64_t all = 0, pinned = 0;
  for (const ModelConfig& model : config.models) {
    const uint64_t bytes = LoadedWith(config, model, env);
    all += bytes;
    if (model.pinned) pinned += bytes;
    if (bytes > for_models)
      checks->Problem(
          "memory for models",
          fmt::format("{} takes {} at least, of {}", model.name, Bytes(bytes), Bytes(for_models)),
          "raise lifecycle.memory_max, or serve the model quantized to fewer bits");
  }
  const std::string found = fmt::format("{} ({}), models take {} at least", Bytes(for_models),
                                        config.memory_max > 0 ? "memory_max"
                                        : memory.is_limited   ? "of the control group"
                                                              : "of the machine",
                                        Bytes(all));
  if (pinned > for_models)
    checks->Problem("memory for models", fmt::format("pinned models alone take {}", Bytes(pinned)),
                    "pin fewer, or raise lifecycle.memory_max");
  else if (all > for_models)
    checks->Warn("memory for models", found,
                 "they take turns: `perdure plan` tells which fit together");
  else
    checks->Ok("memory for models", found);
}

// Where arenas lie, if there is a quarter of the memory of it.
void CheckSharedMemory(const MemoryState& memory, Checks* checks) {
  struct statvfs fs {};
  if (statvfs("/dev/shm", &fs) != 0)
    return checks->Warn("/dev/shm", std::strerror(errno),
                        "KV caches end with the service; mount a tmpfs there to have them found "
                        "again after it was killed");
  const uint64_t bytes = uint64_t{fs.f_blocks} * fs.f_frsize;
  if (bytes < memory.capacity / 4)
    return checks->Warn(
        "/dev/shm", fmt::format("it has {}", Bytes(bytes)),
        fmt::format("KV caches end with the service where it has less than {}: make "
                    "it larger (docker run --shm-size)",
                    Bytes(memory.capacity / 4)));
  checks->Ok("/dev/shm", fmt::format("{} free of {}", Bytes(uint64_t{fs.f_bavail} * fs.f_frsize),
                                     Bytes(bytes)));
}

void CheckOpenFiles(int connections_max, Checks* checks) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  // The soft limit is raised to the hard one at start.
  const std::string found = fmt::format("{} may be open at once", limit.rlim_max);
  if (limit.rlim_max < static_cast<rlim_t>(connections_max) + limits::kDoctorFilesBeside)
    checks->Warn("open files", found,
                 fmt::format("connections_max is {}: raise the limit (LimitNOFILE= of the systemd "
                             "unit, ulimit -Hn) or lower connections_max",
                             connections_max));
  else
    checks->Ok("open files", found);
}

// A folder that the service would take or make, with room for what comes.
void CheckDisk(const char* name, const fs::path& folder, const char* option, uint64_t room,
               Checks* checks) {
  const std::string advice = fmt::format("or name another with {}", option);
  std::error_code error;
  fs::path there = folder;
  while (!fs::exists(there, error) && there.has_parent_path() && there != there.parent_path())
    there = there.parent_path();
  if (there == folder) {
    if (const Status usable = CheckFolder(folder, name); !usable)
      return checks->Problem(name, usable.error().message, advice);
  } else if (!fs::is_directory(there, error)) {
    return checks->Problem(
        name, fmt::format("{}: {} is no folder", folder.string(), there.string()), advice);
  }
  if (access(there.c_str(), R_OK | W_OK | X_OK) != 0)
    return checks->Problem(name,
                           fmt::format("{}: {} may not be written: {}; give it to this user",
                                       folder.string(), there.string(), std::strerror(errno)),
                           advice);
  struct statvfs disk {};
  if (statvfs(there.c_str(), &disk) != 0) return checks->Ok(name, folder.string());
  const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize;
  const std::string found = fmt::format("{}, {} free", folder.string(), Bytes(free));
  if (free < room)
    checks->Warn(name, found,
                 fmt::format("free some, or name one on another disk with {}", option));
  else
    checks->Ok(name, found);
}

// Arenas of services that were killed take memory until somebody starts such a service again.
void CheckArenas(Checks* checks) {
  const std::vector<shm::OrphanedArena> orphans = shm::ListOrphanedArenas();
  for (const shm::OrphanedArena& orphan : orphans)
    checks->Warn("shared memory",
                 fmt::format("{} holds {} of a service that was killed",
                             shm::ArenaPath(orphan.name), Bytes(orphan.bytes)),
                 fmt::format("start that service again, with its --state-dir, and it goes on with "
                             "it; else remove it: rm '{}'",
                             shm::ArenaPath(orphan.name)));
  if (orphans.empty()) checks->Ok("shared memory", "nothing is left of services that were killed");
}

void CheckService(const Config& config, Checks* checks) {
  if (const auto ps = AskSupervisor(config.runtime_dir, "ps")) {
    checks->Ok("service", "it is running; `perdure ps` tells more");
    return;
  }
  checks->Ok("service", fmt::format("none is running in {}", config.runtime_dir.string()));
  if (const auto listener = ListenTcp(config.host, config.port); !listener)
    checks->Problem("port", listener.error().message, "the service does not start before");
  else
    checks->Ok("port", fmt::format("{} is free", listener->Url()));
}

void CheckModels(const Config& config, const GetEnv& env, Checks* checks) {
  const Json list = ModelList(config, env);
  for (const Json& model : list["models"]) {
    if (model["origin"] == "cache") continue;
    if (model["problem"].is_string())
      checks->Problem("model",
                      fmt::format("{}: {}", TextOf(model, "name"), TextOf(model, "problem")),
                      "`perdure show` tells more of a model");
    else
      checks->Ok("model",
                 fmt::format("{}: {}, {}", TextOf(model, "name"), TextOf(model, "model_type"),
                             Bytes(model["disk_bytes"].get<uint64_t>())));
  }
}

}  // namespace

Json Diagnose(const ConfigFlags& flags, const GetEnv& env) {
  Checks checks;
  std::vector<std::string> warnings;
  const auto config = LoadConfig(flags, env, &warnings);
  if (!config)
    checks.Problem("configuration", config.error().message, "correct it: nothing starts before");
  else if (config->config_file.empty())
    checks.Ok("configuration", "no file: defaults, flags and environment");
  else
    checks.Ok("configuration", config->config_file.string());
  for (std::string& warning : warnings)
    checks.Warn("configuration", std::move(warning), "see etc/perdure.toml for what each key does");
  Json cpu = CheckCpu(config ? config->isa : "", &checks);
  const MemoryState memory = ReadMemoryState();
  CheckMemory(memory, &checks);
  CheckSharedMemory(memory, &checks);
  CheckArenas(&checks);
  if (config) {
    CheckBudget(*config, env, memory, &checks);
    CheckOpenFiles(config->connections_max, &checks);
    CheckDisk("state folder", config->state_dir, "--state-dir", limits::kDoctorDiskLow, &checks);
    CheckDisk("runtime folder", config->runtime_dir, "--runtime-dir", 0, &checks);
    CheckService(*config, &checks);
    CheckModels(*config, env, &checks);
  }
  return {{"version", kVersion}, {"checks", std::move(checks.list)}, {"cpu", std::move(cpu)}};
}

std::string FormatDoctor(const Json& report) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& check : report["checks"]) {
    const std::string state = TextOf(check, "state");
    rows.push_back({state == "ok"        ? "ok"
                    : state == "warning" ? "WARNING"
                                         : "PROBLEM",
                    TextOf(check, "name"), TextOf(check, "found")});
    if (check["advice"].is_string()) rows.push_back({"", "", "-> " + TextOf(check, "advice")});
  }
  return Table(rows);
}

int RunDoctor(const ConfigFlags& flags, const GetEnv& env, bool json) {
  const Json report = Diagnose(flags, env);
  fmt::print("{}", json ? DumpJson(report) + "\n" : FormatDoctor(report));
  for (const Json& check : report["checks"]) {
    if (check["state"] == "problem") return protocol::kExitSystem;
  }
  return protocol::kExitOk;
}

}  // namespace perdure::cli
