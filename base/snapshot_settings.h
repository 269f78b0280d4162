// How conversations are kept on disk. docs/snapshots.md tells what each means.
#pragma once

#include <cstdint>
#include <tuple>

namespace perdure {

// Numbers stand in files: they are never used again.
enum class KvCompression : uint8_t { kNone = 0, kZstd = 1 };

struct SnapshotSettings {
  bool enabled = true;
  bool sync = true;  // a turn is on the disk before its client sees the end; false: soon after
  uint64_t kv_bytes_max = uint64_t{8} << 30;      // of a model's pages; the oldest ones go first
  uint64_t turns_bytes_max = uint64_t{1} << 30;   // of what was said with it
  int32_t retention_days = 30;                    // of a conversation that is not gone on with
  uint64_t saved_bytes_max = uint64_t{16} << 30;  // what a tenant has saved by name, of a model
  KvCompression kv_compression = KvCompression::kNone;
  auto Fields() {
    return std::tie(enabled, sync, kv_bytes_max, turns_bytes_max, retention_days, saved_bytes_max,
                    kv_compression);
  }
  bool operator==(const SnapshotSettings&) const = default;
};

}  // namespace perdure
