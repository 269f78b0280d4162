// ALL structs that stand in shared memory. Fixed-width fields, offsets only: no pointers, no locks.
//
// StatusShm: one per child process, in a memfd made by the supervisor. Written by the child alone,
// read by the supervisor while the child lives (relaxed counters) and after it was reaped (all).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace perdure::shm {

inline constexpr uint64_t kStatusMagic = 0x3154'5453'4452'4550;  // "PERDSTT1"
inline constexpr uint32_t kStatusVersion = 1;

enum class Phase : uint32_t {
  kStarting = 0,
  kLoading = 1,   // progress: bytes of weights
  kIdle = 2,      // progress: heartbeats
  kStepping = 3,  // progress: steps, and layers within one
  kDraining = 4,
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(std::atomic<uint32_t>::is_always_lock_free);

struct StatusShm {
  uint64_t magic;
  uint32_t version;
  uint32_t struct_bytes;
  std::atomic<uint32_t> pid;
  std::atomic<uint32_t> phase;     // Phase
  std::atomic<uint64_t> progress;  // grows whenever the process gets something done
  std::atomic<uint64_t> load_bytes_done;
  std::atomic<uint64_t> load_bytes_total;
  std::atomic<uint64_t> steps_completed;
  std::atomic<uint64_t> tokens_prefilled;
  std::atomic<uint64_t> tokens_generated;
  std::atomic<uint32_t> sequences_running;
  std::atomic<uint32_t> sequences_waiting;
  std::atomic<uint64_t> kv_bytes_used;
  std::atomic<uint64_t> kv_bytes_reserved;
  // The manifest of the step under way: rids first, then the count, then the step number (release).
  std::atomic<uint64_t> manifest_step;  // 0: no step is under way
  std::atomic<uint32_t> manifest_count;
  std::atomic<uint32_t> panic_bytes;  // length of panic_text, set last (release)
  std::atomic<uint64_t> manifest_rids[limits::kSequencesMax];
  char panic_text[limits::kPanicTextBytes];
};
static_assert(offsetof(StatusShm, version) == 8);
static_assert(offsetof(StatusShm, struct_bytes) == 12);
static_assert(offsetof(StatusShm, pid) == 16);
static_assert(offsetof(StatusShm, phase) == 20);
static_assert(offsetof(StatusShm, progress) == 24);
static_assert(offsetof(StatusShm, load_bytes_done) == 32);
static_assert(offsetof(StatusShm, load_bytes_total) == 40);
static_assert(offsetof(StatusShm, steps_completed) == 48);
static_assert(offsetof(StatusShm, tokens_prefilled) == 56);
static_assert(offsetof(StatusShm, tokens_generated) == 64);
static_assert(offsetof(StatusShm, sequences_running) == 72);
static_assert(offsetof(StatusShm, sequences_waiting) == 76);
static_assert(offsetof(StatusShm, kv_bytes_used) == 80);
static_assert(offsetof(StatusShm, kv_bytes_reserved) == 88);
static_assert(offsetof(StatusShm, manifest_step) == 96);
static_assert(offsetof(StatusShm, manifest_count) == 104);
static_assert(offsetof(StatusShm, panic_bytes) == 108);
static_assert(offsetof(StatusShm, manifest_rids) == 112);
static_assert(offsetof(StatusShm, panic_text) == 112 + 8 * limits::kSequencesMax);
static_assert(sizeof(StatusShm) == 112 + 8 * limits::kSequencesMax + limits::kPanicTextBytes);

}  // namespace perdure::shm
