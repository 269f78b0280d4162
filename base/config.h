// The configuration: flag > environment > TOML file > default.
//
// etc/perdure.toml is the annotated list of all keys. MLX_* variables of MLX Server Nano are
// accepted as aliases of PERDURE_*, HF_* as in huggingface_hub.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/cache_settings.h"
#include "base/log.h"
#include "base/model_alias.h"
#include "base/result.h"
#include "base/snapshot_settings.h"

namespace perdure {

struct ModelConfig {
  std::string name;
  std::string source;   // as written: a folder, org/name, or "nano" for the built-in model
  int threads = 0;      // 0: all processors that the process may use
  int max_context = 0;  // tokens of prompt and answer; 0: the model's own, as memory allows
  int max_sequences = 8;
  uint64_t kv_bytes_max = 0;  // 0: derived from memory
  std::string activations;    // of quantized weights: "int8", "float32"; empty: int8
  std::string tool_format;    // in which it calls tools; empty: as its chat template says
  std::optional<float> default_temperature;
  int quantize_bits = 0;   // 8, 4; 0: weights stay as they are
  std::string cache_type;  // of its conversations; empty: [cache] says
  int retention_days = 0;  // of its conversations; 0: [snapshots] says
  bool is_default = false;
  std::optional<int> idle_timeout_s;     // 0: never; absent: [lifecycle] says
  bool pinned = false;                   // is loaded at start, and stays
  bool preload = true;                   // is loaded at start, if there is room
  bool warm_up = false;                  // shared_prompts are computed once it is loaded
  std::optional<int> queue_max;          // absent: [server] says
  std::optional<int> request_timeout_s;  // 0: none; absent: [server] says
};

// An API key with settings of its own: [keys.NAME].
struct KeyConfig {
  std::string name;
  std::string key;
  int retention_days = 0;  // of its conversations; 0: the model's
  bool store = true;       // of requests that do not say
};

struct Config {
  // [server]
  std::string host = "127.0.0.1";
  int port = 8000;
  std::vector<std::string> api_keys;
  std::vector<KeyConfig> keys;  // beside them; in the order of their names
  std::vector<std::string> admin_keys;
  std::vector<std::string> allowed_hosts;
  bool insecure = false;
  uint64_t body_bytes_max = uint64_t{16} << 20;
  uint64_t upload_bytes_max = uint64_t{8} << 30;  // of an imported conversation
  int connections_max = 1024;
  int queue_max = 64;
  int header_timeout_s = 30;
  int idle_timeout_s = 120;
  int sse_comment_s = 10;
  int slow_client_timeout_s = 60;
  int drain_timeout_s = 30;
  int drain_delay_s = 0;      // before it: everything is served, and /ready says that it ends
  int request_timeout_s = 0;  // 0: none
  LogLevel log_level = LogLevel::kInfo;
  std::filesystem::path log_file;  // empty: standard error

  // [generation]
  int default_max_tokens = 0;  // 0: up to the context
  int max_context = 0;         // of models whose own table does not say
  std::optional<float> default_temperature;

  // [cache]: of conversations of which nothing is said. [cache_types.NAME].
  CacheChoice cache;
  std::vector<NamedCacheType> cache_types;
  std::vector<std::string> shared_prompts;  // files

  // [conversations]
  ConversationSettings conversations;

  // [snapshots]
  SnapshotSettings snapshots;

  // [lifecycle]
  uint64_t memory_max = 0;         // of all models together; 0: derived from memory
  int model_idle_timeout_s = 300;  // 0: models stay
  int arena_timeout_s = 3600;      // of one that was unloaded; 0: arenas stay
  int residency_least_s = 5;

  // [paths]
  std::filesystem::path state_dir;
  std::filesystem::path runtime_dir;
  std::filesystem::path model_cache_dir;
  std::filesystem::path config_file;  // where it was read from; empty without a file

  // [supervisor]
  int hang_timeout_s = 60;   // a step without progress
  int load_timeout_s = 300;  // loading without progress
  int cooldown_s = 300;      // a failed model before it is tried again
  int prefill_tokens_per_step = 256;
  std::string isa;
  bool prepared_weights = true;
  uint64_t prepared_weights_max = 0;  // 0: half of what they and the free disk are together

  std::vector<ModelAlias> aliases;  // in the order of their names
  std::vector<ModelConfig> models;  // never empty after LoadConfig
};

// What the command line said; absent where it did not.
struct ConfigFlags {
  std::optional<std::string> host, config, model_cache_dir, state_dir, runtime_dir, log_level,
      log_file;
  std::optional<int> port, max_context;
  std::vector<std::string> models;
  bool insecure = false;
};

// Those of server.api_keys and of [keys].
std::vector<std::string> AllApiKeys(const Config& config);

// Reads a variable; empty result = unset. Injected so that tests need no process environment.
using GetEnv = std::function<std::optional<std::string>(const std::string&)>;
GetEnv ProcessEnvironment();

// The whole configuration, checked. bad_config errors name the file, line and key (or the flag or
// variable), what was found and what is allowed: unknown and duplicate keys, wrong types, values
// out of range, a file that others may write, an address beyond loopback without an API key or
// --insecure. `warnings` get what is accepted but wants attention.
Result<Config> LoadConfig(const ConfigFlags& flags, const GetEnv& env,
                          std::vector<std::string>* warnings);

// Where a running service's runtime directory is, for `perdure ps` and its like: the flag, else the
// variable, else what the config file says, else the default. The file is only read where neither
// flag nor variable says; its errors are those of LoadConfig.
Result<std::filesystem::path> FindRuntimeDir(const ConfigFlags& flags, const GetEnv& env);
// The same of its state folder, whether it runs or not.
Result<std::filesystem::path> FindStateDir(const ConfigFlags& flags, const GetEnv& env);

}  // namespace perdure
