#include "base/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <system_error>

#include "base/config_file.h"
#include "base/config_keys.h"
#include "base/limits.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;

// Empty counts as unset, as people write `VARIABLE= command`.
std::optional<std::string> Variable(const GetEnv& env, std::string_view name) {
  if (name.empty()) return std::nullopt;
  std::optional<std::string> value = env(std::string(name));
  if (value && value->empty()) value.reset();
  return value;
}

fs::path Home(const GetEnv& env) {
  if (auto home = Variable(env, "HOME")) return *home;
  if (const passwd* user = getpwuid(geteuid()); user != nullptr && user->pw_dir != nullptr)
    return user->pw_dir;
  return "/";
}

fs::path Absolute(const std::string& text, const GetEnv& env) {
  return fs::absolute(ExpandHome(text, env)).lexically_normal();
}

Status Apply(const ConfigKey& key, const std::string& what, const std::string& text,
             const GetEnv& env, Config* config) {
  auto value = ConfigValueFromText(key.kind, text);
  if (value) value = CheckConfigValue(key.kind, key.min, key.max, *value);
  if (!value) return Err(ErrorCode::bad_config, fmt::format("{}: {}", what, value.error().message));
  if (key.kind == ConfigKind::kPath) *value = Absolute(text, env).string();
  if (key.kind == ConfigKind::kPaths) {
    for (std::string& path : std::get<std::vector<std::string>>(*value))
      path = Absolute(path, env).string();
  }
  key.set(*config, *value);
  return {};
}

Status ApplyByName(std::string_view table, std::string_view name, const std::string& what,
                   const std::string& text, const GetEnv& env, Config* config) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (key.table == table && key.name == name) return Apply(key, what, text, env, config);
  }
  return Err(ErrorCode::internal, fmt::format("no key {}.{}", table, name));
}

Status ApplyEnvironment(const GetEnv& env, Config* config) {
  // The variables of huggingface_hub first: PERDURE_MODEL_CACHE_DIR is more specific.
  if (auto dir = Variable(env, "HF_HUB_CACHE")) {
    config->model_cache_dir = Absolute(*dir, env);
  } else if (auto older = Variable(env, "HUGGINGFACE_HUB_CACHE")) {
    config->model_cache_dir = Absolute(*older, env);
  } else if (auto home = Variable(env, "HF_HOME")) {
    config->model_cache_dir = Absolute(*home, env) / "hub";
  }
  for (const ConfigKey& key : ConfigKeys()) {
    std::string_view name = key.variable;
    auto text = Variable(env, name);
    if (!text) {
      name = key.alias;
      text = Variable(env, name);
    }
    if (text) RETURN_IF_ERROR(Apply(key, std::string(name), *text, env, config));
  }
  return {};
}

Status ApplyFlags(const ConfigFlags& flags, const GetEnv& env, Config* config) {
  const auto apply = [&](std::string_view table, std::string_view name, std::string_view flag,
                         const std::optional<std::string>& text) -> Status {
    if (!text) return {};
    return ApplyByName(table, name, std::string(flag), *text, env, config);
  };
  RETURN_IF_ERROR(apply("server", "host", "--host", flags.host));
  if (flags.port) RETURN_IF_ERROR(apply("server", "port", "--port", std::to_string(*flags.port)));
  RETURN_IF_ERROR(apply("server", "log_level", "--log-level", flags.log_level));
  RETURN_IF_ERROR(apply("server", "log_file", "--log-file", flags.log_file));
  if (flags.max_context)
    RETURN_IF_ERROR(
        apply("generation", "max_context", "--max-context", std::to_string(*flags.max_context)));
  RETURN_IF_ERROR(apply("paths", "model_cache_dir", "--model-cache-dir", flags.model_cache_dir));
  RETURN_IF_ERROR(apply("paths", "state_dir", "--state-dir", flags.state_dir));
  RETURN_IF_ERROR(apply("paths", "runtime_dir", "--runtime-dir", flags.runtime_dir));
  if (flags.insecure) config->insecure = true;
  return {};
}

fs::path DefaultRuntimeDir(const GetEnv& env) {
  if (auto xdg = Variable(env, "XDG_RUNTIME_DIR")) return fs::path(*xdg) / "perdure";
  if (geteuid() == 0) return "/run/perdure";
  return fmt::format("/tmp/perdure-{}", geteuid());
}

fs::path DefaultStateDir(const GetEnv& env) {
  if (geteuid() == 0) return "/var/lib/perdure";
  if (auto xdg = Variable(env, "XDG_STATE_HOME")) return fs::path(*xdg) / "perdure";
  return Home(env) / ".local/state/perdure";
}

void ApplyDirectoryDefaults(const GetEnv& env, Config* config) {
  if (config->state_dir.empty()) config->state_dir = DefaultStateDir(env);
  if (config->runtime_dir.empty()) config->runtime_dir = DefaultRuntimeDir(env);
  if (config->model_cache_dir.empty()) {
    if (auto xdg = Variable(env, "XDG_CACHE_HOME")) {
      config->model_cache_dir = fs::path(*xdg) / "huggingface/hub";
    } else {
      config->model_cache_dir = Home(env) / ".cache/huggingface/hub";
    }
  }
}

// The file to read: named, or one of the usual places; empty for none.
Result<fs::path> ConfigFile(const ConfigFlags& flags, const GetEnv& env) {
  std::optional<std::string> named = flags.config;
  if (!named) named = Variable(env, "PERDURE_CONFIG");
  if (named == "/dev/null") return fs::path();  // as elsewhere: none, also of the usual places
  if (named) return Absolute(*named, env);
  std::vector<fs::path> usual;
  if (auto xdg = Variable(env, "XDG_CONFIG_HOME"))
    usual.push_back(fs::path(*xdg) / "perdure/perdure.toml");
  else
    usual.push_back(Home(env) / ".config/perdure/perdure.toml");
  usual.push_back("/etc/perdure/perdure.toml");
  for (const fs::path& path : usual) {
    std::error_code ignored;
    if (fs::exists(path, ignored)) return path;
  }
  return fs::path();
}

// A model named on the command line that the file does not define.
Result<ModelConfig> ModelFromArgument(const std::string& argument, const GetEnv& env) {
  ModelConfig model;
  const bool path_like =
      argument.starts_with('/') || argument.starts_with('.') || argument.starts_with('~');
  std::error_code ignored;
  fs::path path = Absolute(argument, env);
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  // "nano" is the built-in model wherever the command is run; a folder of that name is ./nano.
  if (path_like || (argument != "nano" && fs::is_directory(path, ignored))) {
    model.source = path.string();
    model.name = path.filename().string();
    for (char& c : model.name) {
      if (!CheckModelName(std::string("a") + c)) c = '-';
    }
    if (!CheckModelName(model.name)) model.name = "model";
    return model;
  }
  model.source = argument;
  model.name = argument;
  if (Status ok = CheckModelName(argument); !ok)
    return Err(ErrorCode::bad_config, fmt::format("--model: {}", ok.error().message));
  return model;
}

Status ChooseModels(const std::vector<std::string>& arguments, const GetEnv& env, Config* config) {
  if (!arguments.empty()) {
    std::vector<ModelConfig> chosen;
    std::set<std::string> names, seen, sources;
    for (const ModelConfig& m : config->models) names.insert(m.name);
    for (const std::string& argument : arguments) {
      if (!seen.insert(argument).second)
        return Err(ErrorCode::bad_config, fmt::format("--model {} is given twice", argument));
      const auto defined = std::find_if(config->models.begin(), config->models.end(),
                                        [&](const ModelConfig& m) { return m.name == argument; });
      if (defined != config->models.end()) {
        chosen.push_back(*defined);
        continue;
      }
      ASSIGN_OR_RETURN(ModelConfig model, ModelFromArgument(argument, env));
      if (!sources.insert(model.source).second)
        return Err(ErrorCode::bad_config, fmt::format("--model {} is given twice", argument));
      const std::string stem = model.name;
      for (int n = 2; !names.insert(model.name).second; ++n)
        model.name = fmt::format("{}-{}", stem, n);
      chosen.push_back(std::move(model));
    }
    config->models = std::move(chosen);
  }
  if (config->models.empty()) {
    ModelConfig nano;
    nano.name = nano.source = "nano";
    config->models.push_back(std::move(nano));
  }
  if (config->models.size() > static_cast<size_t>(limits::kModelsMax))
    return Err(ErrorCode::bad_config, fmt::format("{} models are configured; {} are allowed",
                                                  config->models.size(), limits::kModelsMax));
  const auto defaults = std::count_if(config->models.begin(), config->models.end(),
                                      [](const ModelConfig& m) { return m.is_default; });
  if (defaults > 1) return Err(ErrorCode::bad_config, "more than one model has default = true");
  if (defaults == 0) config->models.front().is_default = true;
  return {};
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost" || host == "::1") return true;
  return host.starts_with("127.") && std::all_of(host.begin(), host.end(), [](char c) {
           return c == '.' || (c >= '0' && c <= '9');
         });
}

// Such a type is kv, as it is where a request names one.
void WarnOfCacheTypes(const Config& config, std::vector<std::string>* warnings) {
  std::vector<std::string_view> known(std::begin(kCacheTypes), std::end(kCacheTypes));
  for (const NamedCacheType& named : config.cache_types) known.push_back(named.name);
  const auto check = [&](const std::string& where, const std::string& type) {
    if (type.empty() || std::find(known.begin(), known.end(), type) != known.end()) return;
    warnings->push_back(fmt::format("{}: there is no cache type \"{}\", so it is kv; there are {}",
                                    where, type, fmt::join(known, ", ")));
  };
  check("cache.type", config.cache.settings.type);
  for (const ModelConfig& model : config.models)
    check(fmt::format("models.{}.cache_type", model.name), model.cache_type);
  for (const NamedCacheType& named : config.cache_types) {
    check("cache_types." + named.name, named.choice.settings.type);
    for (const CachePhase& phase : named.choice.then)
      check(fmt::format("cache_types.{}.then", named.name), phase.settings.type);
  }
}

// Names lead to one model each. With --model, aliases of others are of no use.
Status CheckAliases(bool chosen, Config* config) {
  const auto is_model = [&](const std::string& name) {
    return std::ranges::any_of(config->models,
                               [&](const ModelConfig& model) { return model.name == name; });
  };
  for (const ModelAlias& alias : config->aliases) {
    if (is_model(alias.name))
      return Err(ErrorCode::bad_config,
                 fmt::format("aliases.{} has the name of a model: call one of them otherwise",
                             alias.name));
    if (!chosen && !is_model(alias.model))
      return Err(ErrorCode::bad_config,
                 fmt::format("aliases.{}.model is \"{}\", which is no model of this service",
                             alias.name, alias.model));
  }
  std::erase_if(config->aliases, [&](const ModelAlias& alias) { return !is_model(alias.model); });
  return {};
}

// What is said of a key is said once.
Status CheckKeys(const Config& config) {
  std::map<std::string_view, std::string> places;
  for (const std::string& key : config.api_keys)
    places.emplace(key, "server.api_keys (or PERDURE_API_KEYS)");
  for (const KeyConfig& each : config.keys) {
    const std::string place = "keys." + each.name;
    const auto [other, is_new] = places.emplace(each.key, place);
    if (!is_new)
      return Err(ErrorCode::bad_config,
                 fmt::format("{} and {} have the same key: take it out of one of them",
                             other->second, place));
  }
  return {};
}

Status CheckWhole(Config* config) {
  // As in URLs.
  if (config->host.size() > 2 && config->host.front() == '[' && config->host.back() == ']')
    config->host = config->host.substr(1, config->host.size() - 2);
  if (config->host.empty() || config->host.find_first_of(" /[]") != std::string::npos)
    return Err(ErrorCode::bad_config,
               fmt::format("\"{}\" is no host to listen on: an IPv4 or IPv6 address or a host name "
                           "is, such as 127.0.0.1",
                           config->host));
  if (!IsLoopback(config->host) && AllApiKeys(*config).empty() && !config->insecure)
    return Err(ErrorCode::bad_config,
               fmt::format("listening on {} would let everybody who can reach it use the models: "
                           "set server.api_keys (or PERDURE_API_KEYS), or pass --insecure",
                           config->host));
  return CheckKeys(*config);
}

}  // namespace

std::vector<std::string> AllApiKeys(const Config& config) {
  std::vector<std::string> all = config.api_keys;
  for (const KeyConfig& each : config.keys) all.push_back(each.key);
  return all;
}

fs::path ExpandHome(const std::string& path, const GetEnv& env) {
  if (path == "~") return Home(env);
  if (path.starts_with("~/")) return Home(env) / path.substr(2);
  return path;
}

GetEnv ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

Result<Config> LoadConfig(const ConfigFlags& flags, const GetEnv& env,
                          std::vector<std::string>* warnings) {
  Config config;
  ASSIGN_OR_RETURN(config.config_file, ConfigFile(flags, env));
  if (!config.config_file.empty())
    RETURN_IF_ERROR(ReadConfigFile(config.config_file, env, &config, warnings));
  RETURN_IF_ERROR(ApplyEnvironment(env, &config));
  RETURN_IF_ERROR(ApplyFlags(flags, env, &config));
  ApplyDirectoryDefaults(env, &config);
  std::vector<std::string> arguments = flags.models;
  if (arguments.empty()) {
    if (auto list = Variable(env, "PERDURE_MODELS")) {
      ASSIGN_OR_RETURN(const ConfigValue texts, ConfigValueFromText(ConfigKind::kTexts, *list));
      arguments = std::get<std::vector<std::string>>(texts);
    }
  }
  RETURN_IF_ERROR(ChooseModels(arguments, env, &config));
  for (ModelConfig& model : config.models) {
    if (model.max_context == 0) model.max_context = config.max_context;
  }
  RETURN_IF_ERROR(CheckAliases(!arguments.empty(), &config));
  RETURN_IF_ERROR(CheckWhole(&config));
  WarnOfCacheTypes(config, warnings);
  return config;
}

namespace {

// As the config file has it; where there is none, a Config of nothing.
Result<Config> ReadOnlyTheFile(const ConfigFlags& flags, const GetEnv& env) {
  ASSIGN_OR_RETURN(const fs::path file, ConfigFile(flags, env));
  Config config;
  std::vector<std::string> warnings;
  if (!file.empty()) RETURN_IF_ERROR(ReadConfigFile(file, env, &config, &warnings));
  return config;
}

}  // namespace

Result<fs::path> FindRuntimeDir(const ConfigFlags& flags, const GetEnv& env) {
  if (flags.runtime_dir && !flags.runtime_dir->empty()) return Absolute(*flags.runtime_dir, env);
  if (auto dir = Variable(env, "PERDURE_RUNTIME_DIR")) return Absolute(*dir, env);
  ASSIGN_OR_RETURN(const Config config, ReadOnlyTheFile(flags, env));
  return config.runtime_dir.empty() ? DefaultRuntimeDir(env) : config.runtime_dir;
}

Result<fs::path> FindStateDir(const ConfigFlags& flags, const GetEnv& env) {
  if (flags.state_dir && !flags.state_dir->empty()) return Absolute(*flags.state_dir, env);
  if (auto dir = Variable(env, "PERDURE_STATE_DIR")) return Absolute(*dir, env);
  ASSIGN_OR_RETURN(const Config config, ReadOnlyTheFile(flags, env));
  return config.state_dir.empty() ? DefaultStateDir(env) : config.state_dir;
}

}  // namespace perdure
