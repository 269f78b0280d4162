#include "base/config_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <string_view>
#include <tuple>

#include "base/config_keys.h"
#include "base/file.h"
#include "base/limits.h"

namespace perdure {
namespace {

class FileReader {
 public:
  FileReader(std::filesystem::path path, const GetEnv& env, Config* config)
      : path_(std::move(path)), env_(env), config_(config) {}

  Status Read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const std::string_view name = key.str();
      const toml::table* table = node.as_table();
      if (name == "models") {
        if (table == nullptr) return ErrAt(node.source(), "models must be [models.NAME] tables");
        RETURN_IF_ERROR(ReadModels(*table));
        continue;
      }
      if (name == "cache_types") {
        if (table == nullptr)
          return ErrAt(node.source(), "cache_types must be [cache_types.NAME] tables");
        RETURN_IF_ERROR(ReadCacheTypes(*table));
        continue;
      }
      if (name == "aliases") {
        if (table == nullptr) return ErrAt(node.source(), "aliases must be [aliases.NAME] tables");
        RETURN_IF_ERROR(ReadAliases(*table));
        continue;
      }
      if (name == "keys") {
        if (table == nullptr) return ErrAt(node.source(), "keys must be [keys.NAME] tables");
        RETURN_IF_ERROR(ReadKeys(*table));
        continue;
      }
      const bool known = std::any_of(ConfigKeys().begin(), ConfigKeys().end(),
                                     [&](const ConfigKey& k) { return k.table == name; });
      if (!known) return UnknownTable(key, table == nullptr);
      if (table == nullptr) return ErrAt(node.source(), fmt::format("{} must be a table", name));
      RETURN_IF_ERROR(ReadTable(name, *table));
    }
    return {};
  }

 private:
  tl::unexpected<Error> ErrAt(const toml::source_region& where, std::string_view text) const {
    return Err(ErrorCode::bad_config,
               fmt::format("{}:{}: {}", path_.string(), where.begin.line, text));
  }

  tl::unexpected<Error> UnknownTable(const toml::key& key, bool is_value) const {
    if (is_value) {
      for (const ConfigKey& k : ConfigKeys()) {
        if (k.name == key.str())
          return ErrAt(key.source(), fmt::format("{} belongs below [{}]", k.name, k.table));
      }
    }
    constexpr std::string_view kTables[] = {
        "server",    "generation", "paths",       "supervisor", "cache",     "conversations",
        "snapshots", "models",     "cache_types", "keys",       "lifecycle", "aliases"};
    return ErrAt(key.source(), fmt::format("unknown {} \"{}\"{}", is_value ? "key" : "table",
                                           key.str(), Hint(key.str(), kTables)));
  }

  static std::string Hint(std::string_view word, std::span<const std::string_view> known) {
    const std::string_view nearest = NearestWord(word, known);
    if (!nearest.empty()) return fmt::format("; did you mean \"{}\"?", nearest);
    return fmt::format("; known are {}", fmt::join(known, ", "));
  }

  static bool ToValue(const toml::node& node, ConfigValue* value) {
    if (const auto* text = node.as_string()) {
      *value = text->get();
    } else if (const auto* integer = node.as_integer()) {
      *value = integer->get();
    } else if (const auto* number = node.as_floating_point()) {
      *value = number->get();
    } else if (const auto* flag = node.as_boolean()) {
      *value = flag->get();
    } else if (const auto* array = node.as_array()) {
      std::vector<std::string> texts;
      for (const toml::node& item : *array) {
        if (!item.is_string()) return false;
        texts.push_back(item.as_string()->get());
      }
      *value = std::move(texts);
    } else {
      return false;
    }
    return true;
  }

  Result<ConfigValue> Take(const toml::key& key, const toml::node& node, ConfigKind kind,
                           double min, double max) const {
    ConfigValue value;
    if (!ToValue(node, &value))
      return ErrAt(node.source(),
                   fmt::format("{}: a value of this type is not allowed", key.str()));
    auto checked = CheckConfigValue(kind, min, max, value);
    if (!checked)
      return ErrAt(node.source(), fmt::format("{}: {}", key.str(), checked.error().message));
    if (kind == ConfigKind::kPath) *checked = Absolute(std::get<std::string>(*checked));
    if (kind == ConfigKind::kPaths) {
      for (std::string& path : std::get<std::vector<std::string>>(*checked)) path = Absolute(path);
    }
    return checked;
  }

  // Paths in the file are relative to the file.
  std::string Absolute(const std::string& text) const {
    const std::filesystem::path path = ExpandHome(text, env_);
    return (std::filesystem::absolute(path_).parent_path() / path).lexically_normal().string();
  }

  Status ReadTable(std::string_view name, const toml::table& table) {
    for (const auto& [key, node] : table) {
      const ConfigKey* found = nullptr;
      std::vector<std::string_view> known;
      for (const ConfigKey& k : ConfigKeys()) {
        if (k.table != name) continue;
        known.push_back(k.name);
        if (k.name == key.str()) found = &k;
      }
      if (found == nullptr) {
        for (const ConfigKey& k : ConfigKeys()) {
          if (k.name == key.str())
            return ErrAt(key.source(),
                         fmt::format("{} belongs below [{}], not [{}]", k.name, k.table, name));
        }
        return ErrAt(key.source(), fmt::format("unknown key \"{}\" below [{}]{}", key.str(), name,
                                               Hint(key.str(), known)));
      }
      ASSIGN_OR_RETURN(const ConfigValue value,
                       Take(key, node, found->kind, found->min, found->max));
      found->set(*config_, value);
    }
    return {};
  }

  Status ReadCacheTypes(const toml::table& types) {
    for (const auto& [key, node] : types) {
      const toml::table* table = node.as_table();
      if (table == nullptr)
        return ErrAt(key.source(), fmt::format("cache_types.{} must be a table", key.str()));
      NamedCacheType named;
      named.name = std::string(key.str());
      if (named.name.empty() || named.name.size() > limits::kCacheTypeNameBytesMax)
        return ErrAt(key.source(), fmt::format("a cache type's name must have 1 to {} bytes",
                                               limits::kCacheTypeNameBytesMax));
      const toml::array* then = nullptr;
      RETURN_IF_ERROR(ReadCacheSettings(*table, "cache_types." + named.name, &named.choice.settings,
                                        &then, nullptr));
      if (then != nullptr) {
        if (then->size() >= static_cast<size_t>(limits::kCacheSegmentsMax))
          return ErrAt(then->source(), fmt::format("then has {} entries, allowed are {}",
                                                   then->size(), limits::kCacheSegmentsMax - 1));
        for (const toml::node& item : *then) {
          if (!item.is_table())
            return ErrAt(item.source(),
                         "then must be a list of tables such as { at = 4096, type "
                         "= \"rotating_kv\" }");
          CachePhase phase;
          RETURN_IF_ERROR(
              ReadCacheSettings(*item.as_table(), "then", &phase.settings, nullptr, &phase.at));
          if (phase.at == 0)
            return ErrAt(item.source(), "a phase needs `at`, the position from which on it holds");
          named.choice.then.push_back(std::move(phase));
        }
      }
      config_->cache_types.push_back(std::move(named));
    }
    return {};
  }

  // `then` and `at` where they may stand.
  Status ReadCacheSettings(const toml::table& table, const std::string& where,
                           CacheSettings* settings, const toml::array** then, int32_t* at) {
    std::vector<std::string_view> known;
    for (const CacheKey& k : CacheKeys()) known.push_back(k.name);
    if (then != nullptr) known.push_back("then");
    if (at != nullptr) known.push_back("at");
    for (const auto& [key, node] : table) {
      if (then != nullptr && key.str() == "then") {
        *then = node.as_array();
        if (*then == nullptr) return ErrAt(node.source(), "then must be a list of tables");
        continue;
      }
      if (at != nullptr && key.str() == "at") {
        ASSIGN_OR_RETURN(const ConfigValue value,
                         Take(key, node, ConfigKind::kInteger, 1, limits::kContextMax));
        *at = static_cast<int32_t>(std::get<int64_t>(value));
        continue;
      }
      const CacheKey* found = nullptr;
      for (const CacheKey& k : CacheKeys()) {
        if (k.name == key.str()) found = &k;
      }
      if (found == nullptr)
        return ErrAt(key.source(), fmt::format("unknown key \"{}\" below [{}]{}", key.str(), where,
                                               Hint(key.str(), known)));
      ASSIGN_OR_RETURN(const ConfigValue value,
                       Take(key, node, found->kind, found->min, found->max));
      found->set(*settings, value);
    }
    return {};
  }

  Status ReadAliases(const toml::table& aliases) {
    std::vector<std::string_view> known = {"chat_template_kwargs"};
    for (const AliasKey& k : AliasKeys()) known.push_back(k.name);
    for (const auto& [name, node] : aliases) {
      const toml::table* table = node.as_table();
      if (table == nullptr)
        return ErrAt(name.source(), fmt::format("aliases.{} must be a table", name.str()));
      ModelAlias alias;
      alias.name = std::string(name.str());
      if (Status ok = CheckModelName(alias.name); !ok)
        return ErrAt(name.source(), ok.error().message);
      for (const auto& [key, value_node] : *table) {
        if (key.str() == "chat_template_kwargs") {
          const toml::table* kwargs = value_node.as_table();
          if (kwargs == nullptr)
            return ErrAt(key.source(),
                         "chat_template_kwargs must be a table, such as "
                         "{ enable_thinking = false }");
          std::ostringstream json;
          json << toml::json_formatter(*kwargs);
          alias.chat_template_kwargs = json.str();
          continue;
        }
        const auto found = std::find_if(AliasKeys().begin(), AliasKeys().end(),
                                        [&](const AliasKey& k) { return k.name == key.str(); });
        if (found == AliasKeys().end())
          return ErrAt(key.source(), fmt::format("unknown key \"{}\" below [aliases.{}]{}",
                                                 key.str(), name.str(), Hint(key.str(), known)));
        ASSIGN_OR_RETURN(const ConfigValue value,
                         Take(key, value_node, found->kind, found->min, found->max));
        found->set(alias, value);
      }
      if (alias.model.empty())
        return ErrAt(name.source(),
                     fmt::format("[aliases.{}] has no model: set model = \"...\"", name.str()));
      config_->aliases.push_back(std::move(alias));
    }
    return {};
  }

  Status ReadKeys(const toml::table& keys) {
    std::vector<std::string_view> known;
    for (const KeyKey& k : KeyKeys()) known.push_back(k.name);
    for (const auto& [name, node] : keys) {
      const toml::table* table = node.as_table();
      if (table == nullptr)
        return ErrAt(name.source(), fmt::format("keys.{} must be a table", name.str()));
      KeyConfig config;
      config.name = std::string(name.str());
      if (config.name.empty() || config.name.size() > limits::kKeyNameBytesMax)
        return ErrAt(name.source(), fmt::format("the name of a [keys.NAME] table has 1 to {} bytes",
                                                limits::kKeyNameBytesMax));
      for (const auto& [key, value_node] : *table) {
        const auto found = std::find_if(KeyKeys().begin(), KeyKeys().end(),
                                        [&](const KeyKey& k) { return k.name == key.str(); });
        if (found == KeyKeys().end())
          return ErrAt(key.source(), fmt::format("unknown key \"{}\" below [keys.{}]{}", key.str(),
                                                 name.str(), Hint(key.str(), known)));
        ASSIGN_OR_RETURN(const ConfigValue value,
                         Take(key, value_node, found->kind, found->min, found->max));
        found->set(config, value);
      }
      if (config.key.empty())
        return ErrAt(name.source(),
                     fmt::format("[keys.{}] has no key: set key = \"...\"", name.str()));
      config_->keys.push_back(std::move(config));
    }
    return {};
  }

  Status ReadModels(const toml::table& models) {
    struct Entry {
      toml::source_position where;
      ModelConfig model;
    };
    std::vector<Entry> entries;
    for (const auto& [key, node] : models) {
      const toml::table* table = node.as_table();
      if (table == nullptr)
        return ErrAt(key.source(), fmt::format("models.{} must be a table", key.str()));
      ModelConfig model;
      model.name = std::string(key.str());
      if (Status ok = CheckModelName(model.name); !ok)
        return ErrAt(key.source(), ok.error().message);
      RETURN_IF_ERROR(ReadModel(key, *table, &model));
      entries.push_back({key.source().begin, std::move(model)});
    }
    // A table of toml++ is sorted by name; people mean the order of the file.
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.where.line, a.where.column) < std::tie(b.where.line, b.where.column);
    });
    for (Entry& entry : entries) config_->models.push_back(std::move(entry.model));
    return {};
  }

  Status ReadModel(const toml::key& name, const toml::table& table, ModelConfig* model) {
    std::vector<std::string_view> known;
    for (const ModelKey& k : ModelKeys()) known.push_back(k.name);
    for (const auto& [key, node] : table) {
      const ModelKey* found = nullptr;
      for (const ModelKey& k : ModelKeys()) {
        if (k.name == key.str()) found = &k;
      }
      if (found == nullptr)
        return ErrAt(key.source(), fmt::format("unknown key \"{}\" below [models.{}]{}", key.str(),
                                               name.str(), Hint(key.str(), known)));
      ASSIGN_OR_RETURN(const ConfigValue value,
                       Take(key, node, found->kind, found->min, found->max));
      found->set(*model, value);
    }
    if (table.contains("source") && table.contains("path"))
      return ErrAt(name.source(),
                   fmt::format("[models.{}] has both source and path; one is enough", name.str()));
    if (model->source.empty()) model->source = model->name;
    if (model->source.starts_with('.') || model->source.starts_with('~'))
      model->source = Absolute(model->source);
    return {};
  }

  std::filesystem::path path_;
  const GetEnv& env_;
  Config* config_;
};

}  // namespace

Status ReadConfigFile(const std::filesystem::path& path, const GetEnv& env, Config* config,
                      std::vector<std::string>* warnings) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    return Err(ErrorCode::bad_config, fmt::format("cannot read the config file {}: {}",
                                                  path.string(), std::strerror(errno)));
  }
  if (S_ISREG(st.st_mode) && (st.st_mode & S_IWOTH) != 0)
    return Err(ErrorCode::bad_config,
               fmt::format("{} may be written by everybody: run chmod o-w {}", path.string(),
                           path.string()));
  auto text = ReadFile(path, limits::kConfigBytesMax);
  if (!text) return Err(ErrorCode::bad_config, std::move(text).error().message);
  toml::table root;
  try {
    root = toml::parse(std::string_view(*text), path.string());
  } catch (const toml::parse_error& e) {
    return Err(ErrorCode::bad_config,
               fmt::format("{}:{}: {}", path.string(), e.source().begin.line, e.description()));
  }
  RETURN_IF_ERROR(FileReader(path, env, config).Read(root));
  if (!(AllApiKeys(*config).empty() && config->admin_keys.empty()) && (st.st_mode & S_IROTH) != 0)
    warnings->push_back(
        fmt::format("{} holds API keys and may be read by everybody; run: "
                    "chmod o-r {}",
                    path.string(), path.string()));
  return {};
}

Status CheckModelName(const std::string& name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._-/:@+").find(c) != std::string_view::npos;
  };
  if (name.empty() || name.size() > limits::kModelNameBytesMax ||
      !std::all_of(name.begin(), name.end(), allowed) || name.find("..") != std::string::npos ||
      name.find("//") != std::string::npos || name.front() == '/' || name.back() == '/' ||
      name.front() == '.' || name.front() == '-')
    return Err(ErrorCode::bad_config,
               fmt::format("\"{}\" cannot be a model's name: letters, digits and . _ - / : @ + are "
                           "allowed, up to {} in all, without \"..\", and beginning with a letter "
                           "or digit",
                           name.substr(0, limits::kModelNameBytesMax), limits::kModelNameBytesMax));
  return {};
}

}  // namespace perdure
