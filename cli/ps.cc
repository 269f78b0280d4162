#include "cli/ps.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/control_client.h"
#include "cli/json_members.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

std::string Mebibytes(const Json& object, const char* group, const char* key) {
  if (!object.is_object() || !object.contains(group) || !object[group].is_object()) return "-";
  const auto it = object[group].find(key);
  if (it == object[group].end() || !it->is_number()) return "-";
  return fmt::format("{:.1f} MiB", it->get<double>() / (1 << 20));
}

std::string Mebibytes(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

std::string Mebibytes(const Json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number()) return "-";
  return fmt::format("{:.1f} MiB", it->get<double>() / (1 << 20));
}

int Fail(const Error& error) {
  fmt::print(stderr, "perdure: {}\n", error.message);
  return protocol::kExitSystem;
}

void TellChanges(const Json& answer) {
  for (const Json& change : List(answer, "changes")) fmt::print("{}.\n", change.get<std::string>());
}

// The ledger beside the kernel's figures: what was granted, what of it is in use.
std::string FormatMemory(const Json& ps) {
  if (!ps.contains("memory") || !ps["memory"].is_object()) return "";
  const Json& memory = ps["memory"];
  std::vector<std::vector<std::string>> rows{
      {"MEMORY", "WEIGHTS", "WORK", "USED", "KV", "USED", "BY THE KERNEL"}};
  for (const Json& each : List(memory, "processes")) {
    const Json& kernel = each.contains("kernel") ? each["kernel"] : memory;
    const uint64_t bytes =
        kernel.value("own_bytes", uint64_t{0}) + kernel.value("arena_bytes", uint64_t{0});
    if (each.contains("model"))
      rows.push_back({TextOf(each, "process"), Mebibytes(each, "weights_bytes"),
                      Mebibytes(each, "work", "granted_bytes"),
                      Mebibytes(each, "work", "used_bytes"), Mebibytes(each, "kv", "granted_bytes"),
                      Mebibytes(each, "kv", "used_bytes"), Mebibytes(bytes)});
    else
      rows.push_back({TextOf(each, "process"), "-", "-", Mebibytes(each, "used_bytes"), "-", "-",
                      Mebibytes(bytes)});
  }
  return "\n" + Table(rows) +
         fmt::format("\nmemory: {} of {} ({}) are granted, {} in use, by the kernel's figures {}\n",
                     Mebibytes(memory, "held_bytes"), Mebibytes(memory, "budget_bytes"),
                     TextOf(memory, "budget_from"), Mebibytes(memory, "used_bytes"),
                     Mebibytes(memory, "kernel_bytes"));
}

}  // namespace

std::string FormatPs(const Json& ps) {
  const Json none = Json::object();
  const Json& supervisor = ps.contains("supervisor") ? ps["supervisor"] : none;
  const Json& frontend = ps.contains("frontend") ? ps["frontend"] : none;
  std::vector<std::vector<std::string>> rows{
      {"PROCESS", "STATE", "PID", "DEATHS", "RSS", "KV", "RUNNING", "WAITING"}};
  rows.push_back({"supervisor", "running", TextOf(supervisor, "pid"), "-",
                  Mebibytes(supervisor, "memory", "rss_bytes"), "-", "-", "-"});
  rows.push_back({"frontend " + TextOf(frontend, "url"), TextOf(frontend, "state"),
                  TextOf(frontend, "pid"), TextOf(frontend, "deaths"),
                  Mebibytes(frontend, "memory", "rss_bytes"), "-", "-", "-"});
  std::string reasons;
  if (ps.contains("models") && ps["models"].is_array()) {
    for (const Json& model : ps["models"]) {
      rows.push_back({"worker " + TextOf(model, "name"), TextOf(model, "state"),
                      TextOf(model, "pid"), TextOf(model, "deaths"),
                      Mebibytes(model, "memory", "rss_bytes"),
                      Mebibytes(model, "memory", "kv_granted_bytes"), TextOf(model, "running"),
                      TextOf(model, "waiting")});
      if (TextOf(model, "reason") != "-")
        reasons += fmt::format("{}: {}\n", TextOf(model, "name"), TextOf(model, "reason"));
    }
  }
  return Table(rows) + FormatMemory(ps) + (reasons.empty() ? "" : "\n" + reasons);
}

int RunPs(const std::filesystem::path& runtime_dir, bool json) {
  const Result<Json> answer = AskSupervisor(runtime_dir, "ps");
  if (!answer) return Fail(answer.error());
  fmt::print("{}", json ? DumpJson(*answer) + "\n" : FormatPs(*answer));
  return protocol::kExitOk;
}

int RunStop(const std::filesystem::path& runtime_dir, const std::string& model) {
  const Result<Json> answer = AskSupervisor(
      runtime_dir, "stop", model.empty() ? std::nullopt : std::optional<std::string>(model));
  if (!answer) return Fail(answer.error());
  if (model.empty()) {
    fmt::print("The service finishes its running answers and stops.\n");
  } else {
    TellChanges(*answer);
  }
  return protocol::kExitOk;
}

int RunReload(const std::filesystem::path& runtime_dir, const std::string& model) {
  const Result<Json> answer = AskSupervisor(
      runtime_dir, "reload", model.empty() ? std::nullopt : std::optional<std::string>(model));
  if (!answer) return Fail(answer.error());
  if (model.empty()) {
    fmt::print("The service has read its configuration again.\n");
  } else {
    TellChanges(*answer);
  }
  return protocol::kExitOk;
}

}  // namespace perdure::cli
