#include "base/config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/limits.h"
#include "base/tool_format_names.h"

namespace perdure {
namespace {

int Int(const ConfigValue& v) { return static_cast<int>(std::get<int64_t>(v)); }
uint64_t U64(const ConfigValue& v) { return static_cast<uint64_t>(std::get<int64_t>(v)); }
float Number(const ConfigValue& v) { return static_cast<float>(std::get<double>(v)); }
const std::string& Text(const ConfigValue& v) { return std::get<std::string>(v); }
bool Flag(const ConfigValue& v) { return std::get<bool>(v); }
const std::vector<std::string>& Texts(const ConfigValue& v) {
  return std::get<std::vector<std::string>>(v);
}

using K = ConfigKind;
using V = ConfigValue;

constexpr double kDayS = 86'400;

constexpr ConfigKey kKeys[] = {
    {"server", "host", K::kText, 0, 0, "PERDURE_HOST", "MLX_SERVER_HOST",
     [](Config& c, const V& v) { c.host = Text(v); }},
    {"server", "port", K::kInteger, 0, 65535, "PERDURE_PORT", "MLX_SERVER_PORT",
     [](Config& c, const V& v) { c.port = Int(v); }},
    {"server", "api_keys", K::kTexts, 0, 0, "PERDURE_API_KEYS", "",
     [](Config& c, const V& v) { c.api_keys = Texts(v); }},
    {"server", "admin_keys", K::kTexts, 0, 0, "PERDURE_ADMIN_KEYS", "",
     [](Config& c, const V& v) { c.admin_keys = Texts(v); }},
    {"server", "allowed_hosts", K::kTexts, 0, 0, "PERDURE_ALLOWED_HOSTS", "",
     [](Config& c, const V& v) { c.allowed_hosts = Texts(v); }},
    {"server", "insecure", K::kBoolean, 0, 0, "PERDURE_INSECURE", "",
     [](Config& c, const V& v) { c.insecure = Flag(v); }},
    // A whole body travels in one frame, with room for what frames add.
    {"server", "body_bytes_max", K::kBytes, 1024, 32 << 20, "PERDURE_BODY_BYTES_MAX", "",
     [](Config& c, const V& v) { c.body_bytes_max = U64(v); }},
    {"server", "upload_bytes_max", K::kBytes, limits::kUploadBytesMin, limits::kUploadBytesMax,
     "PERDURE_UPLOAD_BYTES_MAX", "", [](Config& c, const V& v) { c.upload_bytes_max = U64(v); }},
    {"server", "connections_max", K::kInteger, 1, 65536, "PERDURE_CONNECTIONS_MAX", "",
     [](Config& c, const V& v) { c.connections_max = Int(v); }},
    {"server", "queue_max", K::kInteger, 1, limits::kQueueMax, "PERDURE_QUEUE_MAX", "",
     [](Config& c, const V& v) { c.queue_max = Int(v); }},
    {"server", "header_timeout_s", K::kInteger, 1, kDayS, "PERDURE_HEADER_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.header_timeout_s = Int(v); }},
    {"server", "idle_timeout_s", K::kInteger, 1, kDayS, "PERDURE_IDLE_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.idle_timeout_s = Int(v); }},
    {"server", "sse_comment_s", K::kInteger, 1, kDayS, "PERDURE_SSE_COMMENT_S", "",
     [](Config& c, const V& v) { c.sse_comment_s = Int(v); }},
    {"server", "slow_client_timeout_s", K::kInteger, 1, kDayS, "PERDURE_SLOW_CLIENT_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.slow_client_timeout_s = Int(v); }},
    {"server", "drain_timeout_s", K::kInteger, 0, kDayS, "PERDURE_DRAIN_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.drain_timeout_s = Int(v); }},
    {"server", "drain_delay_s", K::kInteger, 0, limits::kDrainDelayMaxS, "PERDURE_DRAIN_DELAY_S",
     "", [](Config& c, const V& v) { c.drain_delay_s = Int(v); }},
    {"server", "request_timeout_s", K::kInteger, 0, limits::kRequestTimeoutMaxS,
     "PERDURE_REQUEST_TIMEOUT_S", "", [](Config& c, const V& v) { c.request_timeout_s = Int(v); }},
    {"server", "log_level", K::kLogLevel, 0, 0, "PERDURE_LOG_LEVEL", "MLX_LOG_LEVEL",
     [](Config& c, const V& v) { ParseLogLevel(Text(v), &c.log_level); }},
    {"server", "log_file", K::kPath, 0, 0, "PERDURE_LOG_FILE", "",
     [](Config& c, const V& v) { c.log_file = Text(v); }},
    {"generation", "default_max_tokens", K::kInteger, 0, limits::kContextMax,
     "PERDURE_DEFAULT_MAX_TOKENS", "MLX_DEFAULT_MAX_TOKENS",
     [](Config& c, const V& v) { c.default_max_tokens = Int(v); }},
    {"generation", "default_temperature", K::kNumber, 0, 2, "PERDURE_DEFAULT_TEMPERATURE",
     "MLX_DEFAULT_TEMPERATURE", [](Config& c, const V& v) { c.default_temperature = Number(v); }},
    {"generation", "max_context", K::kInteger, 0, limits::kContextMax, "PERDURE_MAX_CONTEXT", "",
     [](Config& c, const V& v) { c.max_context = Int(v); }},
    {"cache", "type", K::kText, 0, 0, "PERDURE_CACHE_TYPE", "MLX_CACHE_TYPE",
     [](Config& c, const V& v) { c.cache.settings.type = Text(v); }},
    {"cache", "bits", K::kInteger, 1, 16, "PERDURE_CACHE_BITS", "",
     [](Config& c, const V& v) { c.cache.settings.bits = Int(v); }},
    {"cache", "max_size", K::kInteger, 1, limits::kContextMax, "PERDURE_CACHE_MAX_SIZE", "",
     [](Config& c, const V& v) { c.cache.settings.max_size = Int(v); }},
    {"cache", "keep", K::kInteger, 0, limits::kContextMax, "PERDURE_CACHE_KEEP", "",
     [](Config& c, const V& v) { c.cache.settings.keep = Int(v); }},
    {"cache", "chunk_size", K::kInteger, 1, limits::kCacheChunkMax, "PERDURE_CACHE_CHUNK_SIZE", "",
     [](Config& c, const V& v) { c.cache.settings.chunk_size = Int(v); }},
    {"cache", "compression_ratio", K::kNumber, 0, 1, "PERDURE_CACHE_COMPRESSION_RATIO", "",
     [](Config& c, const V& v) { c.cache.settings.compression_ratio = Number(v); }},
    {"cache", "optimization_interval", K::kInteger, 1, INT32_MAX,
     "PERDURE_CACHE_OPTIMIZATION_INTERVAL", "",
     [](Config& c, const V& v) { c.cache.settings.optimization_interval = Int(v); }},
    {"cache", "shared_prompts", K::kPaths, 0, 0, "PERDURE_CACHE_SHARED_PROMPTS", "",
     [](Config& c, const V& v) { c.shared_prompts = Texts(v); }},
    {"conversations", "enabled", K::kBoolean, 0, 0, "PERDURE_CONVERSATIONS_ENABLED",
     "MLX_CONVERSATION_CACHE_ENABLED",
     [](Config& c, const V& v) { c.conversations.enabled = Flag(v); }},
    {"conversations", "auto_detect", K::kBoolean, 0, 0, "PERDURE_CONVERSATIONS_AUTO_DETECT",
     "MLX_AUTO_DETECT_CONVERSATIONS",
     [](Config& c, const V& v) { c.conversations.auto_detect = Flag(v); }},
    {"conversations", "max", K::kInteger, 1, limits::kConversationsMax - 1,
     "PERDURE_CONVERSATIONS_MAX", "MLX_MAX_CONVERSATIONS",
     [](Config& c, const V& v) { c.conversations.conversations_max = Int(v); }},
    {"conversations", "idle_timeout_s", K::kInteger, 1, INT32_MAX,
     "PERDURE_CONVERSATIONS_IDLE_TIMEOUT_S", "MLX_CONVERSATION_IDLE_TIMEOUT",
     [](Config& c, const V& v) { c.conversations.idle_timeout_s = Int(v); }},
    {"conversations", "detection_threshold", K::kNumber, 0, 1,
     "PERDURE_CONVERSATIONS_DETECTION_THRESHOLD", "MLX_CONVERSATION_DETECTION_THRESHOLD",
     [](Config& c, const V& v) { c.conversations.detection_threshold = Number(v); }},
    {"snapshots", "enabled", K::kBoolean, 0, 0, "PERDURE_SNAPSHOTS_ENABLED", "",
     [](Config& c, const V& v) { c.snapshots.enabled = Flag(v); }},
    {"snapshots", "durability", K::kDurability, 0, 0, "PERDURE_SNAPSHOTS_DURABILITY", "",
     [](Config& c, const V& v) { c.snapshots.sync = Text(v) != "async"; }},
    {"snapshots", "kv_bytes_max", K::kBytes, limits::kSnapshotBytesMin, limits::kSnapshotBytesMax,
     "PERDURE_SNAPSHOTS_KV_BYTES_MAX", "",
     [](Config& c, const V& v) { c.snapshots.kv_bytes_max = U64(v); }},
    {"snapshots", "turns_bytes_max", K::kBytes, limits::kSnapshotBytesMin,
     limits::kSnapshotBytesMax, "PERDURE_SNAPSHOTS_TURNS_BYTES_MAX", "",
     [](Config& c, const V& v) { c.snapshots.turns_bytes_max = U64(v); }},
    {"snapshots", "retention_days", K::kInteger, 1, limits::kRetentionDaysMax,
     "PERDURE_SNAPSHOTS_RETENTION_DAYS", "",
     [](Config& c, const V& v) { c.snapshots.retention_days = Int(v); }},
    {"snapshots", "kv_compression", K::kKvCompression, 0, 0, "PERDURE_SNAPSHOTS_KV_COMPRESSION", "",
     [](Config& c, const V& v) {
       c.snapshots.kv_compression = Text(v) == "zstd" ? KvCompression::kZstd : KvCompression::kNone;
     }},
    {"lifecycle", "memory_max", K::kBytes, 0, double(uint64_t{1} << 50), "PERDURE_MEMORY_MAX", "",
     [](Config& c, const V& v) { c.memory_max = U64(v); }},
    {"lifecycle", "idle_timeout_s", K::kInteger, 0, INT32_MAX, "PERDURE_MODEL_IDLE_TIMEOUT_S",
     "MLX_MODEL_IDLE_TIMEOUT", [](Config& c, const V& v) { c.model_idle_timeout_s = Int(v); }},
    {"lifecycle", "arena_timeout_s", K::kInteger, 0, INT32_MAX, "PERDURE_ARENA_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.arena_timeout_s = Int(v); }},
    {"lifecycle", "residency_least_s", K::kInteger, 0, kDayS, "PERDURE_RESIDENCY_LEAST_S", "",
     [](Config& c, const V& v) { c.residency_least_s = Int(v); }},
    {"snapshots", "saved_bytes_max", K::kBytes, limits::kSnapshotBytesMin,
     limits::kSnapshotBytesMax, "PERDURE_SNAPSHOTS_SAVED_BYTES_MAX", "",
     [](Config& c, const V& v) { c.snapshots.saved_bytes_max = U64(v); }},
    {"paths", "state_dir", K::kPath, 0, 0, "PERDURE_STATE_DIR", "",
     [](Config& c, const V& v) { c.state_dir = Text(v); }},
    {"paths", "runtime_dir", K::kPath, 0, 0, "PERDURE_RUNTIME_DIR", "",
     [](Config& c, const V& v) { c.runtime_dir = Text(v); }},
    {"paths", "model_cache_dir", K::kPath, 0, 0, "PERDURE_MODEL_CACHE_DIR", "",
     [](Config& c, const V& v) { c.model_cache_dir = Text(v); }},
    {"supervisor", "hang_timeout_s", K::kInteger, 1, kDayS, "PERDURE_HANG_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.hang_timeout_s = Int(v); }},
    {"supervisor", "load_timeout_s", K::kInteger, 1, kDayS, "PERDURE_LOAD_TIMEOUT_S", "",
     [](Config& c, const V& v) { c.load_timeout_s = Int(v); }},
    {"supervisor", "cooldown_s", K::kInteger, 1, kDayS, "PERDURE_COOLDOWN_S", "",
     [](Config& c, const V& v) { c.cooldown_s = Int(v); }},
    {"supervisor", "prefill_tokens_per_step", K::kInteger, 1, 65536,
     "PERDURE_PREFILL_TOKENS_PER_STEP", "",
     [](Config& c, const V& v) { c.prefill_tokens_per_step = Int(v); }},
    {"supervisor", "isa", K::kText, 0, 0, "PERDURE_ISA", "",
     [](Config& c, const V& v) { c.isa = Text(v); }},
    {"supervisor", "prepared_weights", K::kBoolean, 0, 0, "PERDURE_PREPARED_WEIGHTS", "",
     [](Config& c, const V& v) { c.prepared_weights = Flag(v); }},
    {"supervisor", "prepared_weights_max", K::kBytes, 0, double(uint64_t{1} << 50),
     "PERDURE_PREPARED_WEIGHTS_MAX", "",
     [](Config& c, const V& v) { c.prepared_weights_max = U64(v); }},
};

constexpr ModelKey kModelKeys[] = {
    {"source", K::kText, 0, 0, [](ModelConfig& m, const V& v) { m.source = Text(v); }},
    {"path", K::kPath, 0, 0, [](ModelConfig& m, const V& v) { m.source = Text(v); }},
    {"threads", K::kInteger, 0, 1024, [](ModelConfig& m, const V& v) { m.threads = Int(v); }},
    {"max_context", K::kInteger, 0, limits::kContextMax,
     [](ModelConfig& m, const V& v) { m.max_context = Int(v); }},
    {"max_sequences", K::kInteger, 1, limits::kSequencesMax,
     [](ModelConfig& m, const V& v) { m.max_sequences = Int(v); }},
    {"kv_bytes_max", K::kBytes, 0, double(uint64_t{1} << 50),
     [](ModelConfig& m, const V& v) { m.kv_bytes_max = U64(v); }},
    {"activations", K::kActivations, 0, 0,
     [](ModelConfig& m, const V& v) { m.activations = Text(v); }},
    {"tool_format", K::kToolFormat, 0, 0,
     [](ModelConfig& m, const V& v) { m.tool_format = Text(v); }},
    {"default_temperature", K::kNumber, 0, 2,
     [](ModelConfig& m, const V& v) { m.default_temperature = Number(v); }},
    {"quantize", K::kQuantize, 0, 0,
     [](ModelConfig& m, const V& v) { m.quantize_bits = Text(v).empty() ? 0 : Text(v)[1] - '0'; }},
    {"cache_type", K::kText, 0, 0, [](ModelConfig& m, const V& v) { m.cache_type = Text(v); }},
    {"idle_timeout_s", K::kInteger, 0, INT32_MAX,
     [](ModelConfig& m, const V& v) { m.idle_timeout_s = Int(v); }},
    {"pinned", K::kBoolean, 0, 0, [](ModelConfig& m, const V& v) { m.pinned = Flag(v); }},
    {"preload", K::kBoolean, 0, 0, [](ModelConfig& m, const V& v) { m.preload = Flag(v); }},
    {"warm_up", K::kBoolean, 0, 0, [](ModelConfig& m, const V& v) { m.warm_up = Flag(v); }},
    {"queue_max", K::kInteger, 1, limits::kQueueMax,
     [](ModelConfig& m, const V& v) { m.queue_max = Int(v); }},
    {"request_timeout_s", K::kInteger, 0, limits::kRequestTimeoutMaxS,
     [](ModelConfig& m, const V& v) { m.request_timeout_s = Int(v); }},
    {"retention_days", K::kInteger, 1, limits::kRetentionDaysMax,
     [](ModelConfig& m, const V& v) { m.retention_days = Int(v); }},
    {"default", K::kBoolean, 0, 0, [](ModelConfig& m, const V& v) { m.is_default = Flag(v); }},
};

constexpr KeyKey kKeyKeys[] = {
    {"key", K::kSecret, 0, 0, [](KeyConfig& k, const V& v) { k.key = Text(v); }},
    {"retention_days", K::kInteger, 1, limits::kRetentionDaysMax,
     [](KeyConfig& k, const V& v) { k.retention_days = Int(v); }},
    {"store", K::kBoolean, 0, 0, [](KeyConfig& k, const V& v) { k.store = Flag(v); }},
};

// The bounds are those of a request.
constexpr AliasKey kAliasKeys[] = {
    {"model", K::kText, 0, 0, [](ModelAlias& a, const V& v) { a.model = Text(v); }},
    {"temperature", K::kNumber, 0, 2, [](ModelAlias& a, const V& v) { a.temperature = Number(v); }},
    {"top_p", K::kNumber, 0.000001, 1, [](ModelAlias& a, const V& v) { a.top_p = Number(v); }},
    {"min_p", K::kNumber, 0, 1, [](ModelAlias& a, const V& v) { a.min_p = Number(v); }},
    {"repetition_penalty", K::kNumber, 0.01, 10,
     [](ModelAlias& a, const V& v) { a.repetition_penalty = Number(v); }},
    {"top_k", K::kInteger, 0, INT32_MAX, [](ModelAlias& a, const V& v) { a.top_k = Int(v); }},
    {"max_tokens", K::kInteger, 1, limits::kContextMax,
     [](ModelAlias& a, const V& v) { a.max_tokens = Int(v); }},
    {"system_prompt", K::kText, 0, 0, [](ModelAlias& a, const V& v) { a.system_prompt = Text(v); }},
};

constexpr CacheKey kCacheKeys[] = {
    {"type", K::kText, 0, 0, [](CacheSettings& s, const V& v) { s.type = Text(v); }},
    {"bits", K::kInteger, 1, 16, [](CacheSettings& s, const V& v) { s.bits = Int(v); }},
    {"max_size", K::kInteger, 1, limits::kContextMax,
     [](CacheSettings& s, const V& v) { s.max_size = Int(v); }},
    {"keep", K::kInteger, 0, limits::kContextMax,
     [](CacheSettings& s, const V& v) { s.keep = Int(v); }},
    {"chunk_size", K::kInteger, 1, limits::kCacheChunkMax,
     [](CacheSettings& s, const V& v) { s.chunk_size = Int(v); }},
    {"compression_ratio", K::kNumber, 0, 1,
     [](CacheSettings& s, const V& v) { s.compression_ratio = Number(v); }},
    {"optimization_interval", K::kInteger, 1, INT32_MAX,
     [](CacheSettings& s, const V& v) { s.optimization_interval = Int(v); }},
};

bool IsPlain(std::string_view text, unsigned char least) {
  return std::all_of(text.begin(), text.end(),
                     [least](unsigned char c) { return c >= least && c != 0x7f; });
}

std::string Found(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return fmt::format("\"{}\"", *text);
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  return "a list";
}

tl::unexpected<Error> NotAllowed(const ConfigValue& value, std::string_view allowed) {
  return Err(ErrorCode::bad_config, fmt::format("{} is not {}", Found(value), allowed));
}

// One of the two, or nothing.
Result<ConfigValue> CheckChoice(const ConfigValue& value, std::string_view one,
                                std::string_view other) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr || (!text->empty() && *text != one && *text != other))
    return NotAllowed(value, fmt::format("\"{}\", \"{}\" or \"\"", one, other));
  return value;
}

Result<ConfigValue> CheckToolFormat(const ConfigValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr &&
      (text->empty() || std::ranges::find(kToolFormatNames, *text) != std::end(kToolFormatNames)))
    return value;
  return NotAllowed(value, fmt::format("one of {}", fmt::join(kToolFormatNames, ", ")));
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const ConfigKey> ConfigKeys() { return kKeys; }
std::span<const ModelKey> ModelKeys() { return kModelKeys; }
std::span<const KeyKey> KeyKeys() { return kKeyKeys; }
std::span<const AliasKey> AliasKeys() { return kAliasKeys; }
std::span<const CacheKey> CacheKeys() { return kCacheKeys; }

Result<uint64_t> ParseBytes(std::string_view text) {
  uint64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view unit = text.substr(static_cast<size_t>(parsed.ptr - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  uint64_t factor = 0;
  constexpr std::string_view kPrefixes = "kmgt";
  const std::string lower = Lower(unit);
  if (lower.empty() || lower == "b") factor = 1;
  for (size_t i = 0, binary = 1, decimal = 1; i < kPrefixes.size(); ++i) {
    binary *= 1024;
    decimal *= 1000;
    if (lower == std::string{kPrefixes[i], 'i', 'b'}) factor = binary;
    if (lower == std::string{kPrefixes[i], 'b'}) factor = decimal;
  }
  if (parsed.ec != std::errc() || factor == 0 ||
      number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / factor)
    return Err(ErrorCode::bad_config,
               fmt::format("\"{}\" is not a size such as 512MiB or 2GiB", text));
  return number * factor;
}

Result<ConfigValue> CheckConfigValue(ConfigKind kind, double min, double max,
                                     const ConfigValue& value) {
  switch (kind) {
    case K::kText:
    case K::kPath: {
      const auto* text = std::get_if<std::string>(&value);
      if (text == nullptr) return NotAllowed(value, "text in quotes");
      const bool control = std::any_of(text->begin(), text->end(),
                                       [](unsigned char c) { return c < 0x20 || c == 0x7f; });
      if (control) return Err(ErrorCode::bad_config, "control characters are not allowed");
      if (kind == K::kPath && text->empty()) return NotAllowed(value, "a path");
      return value;
    }
    case K::kSecret: {
      const auto* text = std::get_if<std::string>(&value);
      if (text == nullptr || text->empty() || !IsPlain(*text, 0x21))
        return Err(ErrorCode::bad_config,
                   "a key is text in quotes, without blanks and control characters");
      return value;
    }
    case K::kQuantize:
      return CheckChoice(value, "q8", "q4");
    case K::kActivations:
      return CheckChoice(value, "int8", "float32");
    case K::kToolFormat:
      return CheckToolFormat(value);
    case K::kDurability:
      return CheckChoice(value, "sync", "async");
    case K::kKvCompression:
      return CheckChoice(value, "none", "zstd");
    case K::kLogLevel: {
      const auto* text = std::get_if<std::string>(&value);
      std::string name = text == nullptr ? std::string() : Lower(*text);
      if (name == "warn") name = "warning";
      if (name == "critical") name = "error";
      LogLevel level;
      if (!ParseLogLevel(name, &level))
        return NotAllowed(value, "one of debug, info, warning, error, off");
      return ConfigValue(name);
    }
    case K::kBytes:
      if (const auto* text = std::get_if<std::string>(&value)) {
        ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(*text));
        return CheckConfigValue(K::kInteger, min, max, static_cast<int64_t>(bytes));
      }
      [[fallthrough]];
    case K::kInteger: {
      const auto* integer = std::get_if<int64_t>(&value);
      if (integer == nullptr || static_cast<double>(*integer) < min ||
          static_cast<double>(*integer) > max)
        return NotAllowed(value, fmt::format("an integer from {:.0f} to {:.0f}", min, max));
      return value;
    }
    case K::kNumber: {
      double number = std::numeric_limits<double>::quiet_NaN();
      if (const auto* integer = std::get_if<int64_t>(&value))
        number = static_cast<double>(*integer);
      if (const auto* real = std::get_if<double>(&value)) number = *real;
      if (!(number >= min && number <= max))
        return NotAllowed(value, fmt::format("a number from {} to {}", min, max));
      return ConfigValue(number);
    }
    case K::kBoolean:
      if (!std::holds_alternative<bool>(value)) return NotAllowed(value, "true or false");
      return value;
    case K::kTexts:
    case K::kPaths: {
      const auto* texts = std::get_if<std::vector<std::string>>(&value);
      if (texts == nullptr) return NotAllowed(value, "a list of texts");
      for (const std::string& text : *texts) {
        // Paths may have blanks.
        if (text.empty() || !IsPlain(text, kind == K::kPaths ? 0x20 : 0x21))
          return Err(ErrorCode::bad_config,
                     "a list's texts must not be empty, nor hold blanks or control characters");
      }
      return value;
    }
  }
  return Err(ErrorCode::bad_config, "a key of an unknown kind");
}

Result<ConfigValue> ConfigValueFromText(ConfigKind kind, const std::string& text) {
  const char* end = text.data() + text.size();
  switch (kind) {
    case K::kText:
    case K::kPath:
    case K::kLogLevel:
    case K::kQuantize:
    case K::kActivations:
    case K::kToolFormat:
    case K::kDurability:
    case K::kSecret:
    case K::kKvCompression:
    case K::kBytes:
      return ConfigValue(text);
    case K::kInteger: {
      int64_t integer = 0;
      const auto parsed = std::from_chars(text.data(), end, integer);
      if (parsed.ec != std::errc() || parsed.ptr != end) return NotAllowed(text, "an integer");
      return ConfigValue(integer);
    }
    case K::kNumber: {
      double number = 0;
      const auto parsed = std::from_chars(text.data(), end, number);
      if (parsed.ec != std::errc() || parsed.ptr != end) return NotAllowed(text, "a number");
      return ConfigValue(number);
    }
    case K::kBoolean: {
      const std::string lower = Lower(text);
      if (lower == "1" || lower == "true" || lower == "yes" || lower == "on")
        return ConfigValue(true);
      if (lower == "0" || lower == "false" || lower == "no" || lower == "off")
        return ConfigValue(false);
      return NotAllowed(text, "true or false");
    }
    case K::kTexts:
    case K::kPaths: {
      std::vector<std::string> texts;
      for (size_t begin = 0; begin <= text.size() && !text.empty();) {
        const size_t comma = std::min(text.find(',', begin), text.size());
        std::string item = text.substr(begin, comma - begin);
        item.erase(0, item.find_first_not_of(' '));
        item.erase(item.find_last_not_of(' ') + 1);
        texts.push_back(std::move(item));
        begin = comma + 1;
      }
      return ConfigValue(std::move(texts));
    }
  }
  return NotAllowed(text, "a value of a known kind");
}

std::string_view NearestWord(std::string_view word, std::span<const std::string_view> known) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  if (word.size() > 64) return best;
  for (const std::string_view candidate : known) {
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace perdure
