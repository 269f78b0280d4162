#include "cli/list.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "cli/table.h"
#include "engine/models/registry.h"
#include "hub/cache_layout.h"
#include "hub/model_source.h"
#include "hub/weight_bytes.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

Status ReadKind(const std::filesystem::path& folder, Json* entry) {
  ASSIGN_OR_RETURN(const engine::ModelKind kind, engine::ReadModelKind(folder));
  (*entry)["model_type"] = kind.model_type;
  return engine::CheckModelKind(kind);
}

Json Entry(const std::string& name, const char* origin, const std::string& source,
           const hub::ModelPlaces& places) {
  Json entry{{"name", name},      {"origin", origin},      {"source", source},
             {"folder", nullptr}, {"model_type", nullptr}, {"disk_bytes", nullptr},
             {"problem", nullptr}};
  const auto folder = hub::FindModel(source, places);
  if (!folder) {
    entry["problem"] = folder.error().message;
    return entry;
  }
  entry["folder"] = folder->string();
  entry["disk_bytes"] = hub::WeightBytes(*folder);
  if (const Status read = ReadKind(*folder, &entry); !read) entry["problem"] = read.error().message;
  return entry;
}

}  // namespace

Json ModelList(const Config& config, const GetEnv& env) {
  const hub::ModelPlaces places = hub::PlacesOf(config, env);
  Json models = Json::array();
  std::set<std::string> sources;
  for (const ModelConfig& model : config.models) {
    sources.insert(model.source);
    const bool built_in = model.name == "nano" && model.source == "nano";
    models.push_back(Entry(model.name, built_in ? "built-in" : "config", model.source, places));
  }
  if (!sources.contains("nano")) models.push_back(Entry("nano", "built-in", "nano", places));
  for (const hub::RepoId& repo : hub::ListCache(places.cache_dir)) {
    std::string name = fmt::format("{}/{}", repo.org, repo.name);
    if (repo.revision != "main") name += "@" + repo.revision;
    if (!sources.contains(name)) models.push_back(Entry(name, "cache", name, places));
  }
  return Json{{"models", std::move(models)}};
}

std::string FormatList(const Json& list) {
  std::vector<std::vector<std::string>> rows{{"NAME", "FROM", "TYPE", "SIZE", "PROBLEM"}};
  for (const Json& model : list["models"]) {
    rows.push_back({TextOf(model, "name"), TextOf(model, "origin"), TextOf(model, "model_type"),
                    model["disk_bytes"].is_number() ? Bytes(model["disk_bytes"].get<uint64_t>())
                                                    : std::string("-"),
                    TextOf(model, "problem")});
  }
  return Table(rows);
}

int RunList(const ConfigFlags& flags, const GetEnv& env, bool json) {
  ConfigFlags read = flags;
  read.insecure = true;  // nothing listens
  std::vector<std::string> warnings;
  const auto config = LoadConfig(read, env, &warnings);
  if (!config) {
    fmt::print(stderr, "perdure: {}\n", config.error().message);
    return protocol::kExitUsage;
  }
  const Json list = ModelList(*config, env);
  fmt::print("{}", json ? DumpJson(list) + "\n" : FormatList(list));
  return protocol::kExitOk;
}

}  // namespace perdure::cli
