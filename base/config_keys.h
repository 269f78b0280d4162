// The one table of the config's keys: where each stands in the TOML file, which variables set it,
// what it may be. etc/perdure.toml is checked against it by a test.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace perdure {

// A value as a file or a variable gives it, before it is checked.
using ConfigValue = std::variant<std::string, int64_t, double, bool, std::vector<std::string>>;

enum class ConfigKind {
  kText,
  kInteger,
  kBytes,  // an integer, or text such as "2GiB"
  kNumber,
  kBoolean,
  kTexts,
  kPath,
  kPaths,
  kLogLevel,
  kQuantize,       // "q8", "q4" or ""
  kActivations,    // "int8", "float32" or ""
  kToolFormat,     // one of base/tool_format_names.h, or ""
  kDurability,     // "sync" or "async"
  kKvCompression,  // "none" or "zstd"
  kSecret,         // a key, which no error repeats
};

struct ConfigKey {
  std::string_view table;  // "server"
  std::string_view name;   // "port"
  ConfigKind kind;
  double min, max;  // for numbers
  std::string_view variable;
  std::string_view alias;  // MLX_*; empty where none
  void (*set)(Config& config, const ConfigValue& checked);
};
std::span<const ConfigKey> ConfigKeys();

// Keys of [models.NAME].
struct ModelKey {
  std::string_view name;
  ConfigKind kind;
  double min, max;
  void (*set)(ModelConfig& model, const ConfigValue& checked);
};
std::span<const ModelKey> ModelKeys();

// Keys of [keys.NAME].
struct KeyKey {
  std::string_view name;
  ConfigKind kind;
  double min, max;
  void (*set)(KeyConfig& key, const ConfigValue& checked);
};
std::span<const KeyKey> KeyKeys();

// Keys of [aliases.NAME], but for the table chat_template_kwargs.
struct AliasKey {
  std::string_view name;
  ConfigKind kind;
  double min, max;
  void (*set)(ModelAlias& alias, const ConfigValue& checked);
};
std::span<const AliasKey> AliasKeys();

// Keys of [cache_types.NAME], and of what follows in its `then`.
struct CacheKey {
  std::string_view name;
  ConfigKind kind;
  double min, max;
  void (*set)(CacheSettings& settings, const ConfigValue& checked);
};
std::span<const CacheKey> CacheKeys();

// The value in the form that `set` wants: kInteger and kBytes int64_t, kNumber double, kText,
// kPath and kLogLevel text. The error is the end of a sentence: what was found, what is allowed.
Result<ConfigValue> CheckConfigValue(ConfigKind kind, double min, double max,
                                     const ConfigValue& value);
// A variable's or flag's text as a value of this kind; lists are separated by commas.
Result<ConfigValue> ConfigValueFromText(ConfigKind kind, const std::string& text);

// "2GiB", "512 MiB", "1000000": binary and decimal units.
Result<uint64_t> ParseBytes(std::string_view text);

// The known word nearest to `word`, if it is near enough to be a slip; else empty.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> known);

}  // namespace perdure
