// ALL structs that stand in shared memory. Fixed-width fields, offsets only: no pointers, no locks.
//
// StatusShm: one per child process, in a memfd made by the supervisor. Written by the child alone,
// read by the supervisor while the child lives (relaxed counters) and after it was reaped (all).
//
// ArenaHeaderShm, PageDescriptorShm: one header and pages_max descriptors at the start of a model's
// arena, which outlives its workers. Written by the worker that holds the arena's lock alone; read
// by its successor, and by `perdure inspect arena` at any time.
//
// docs/shm_layout.md has the offsets, the memory ordering and what a crash at each step leaves.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace perdure::shm {

inline constexpr uint64_t kStatusMagic = 0x3154'5453'4452'4550;  // "PERDSTT1"
inline constexpr uint32_t kStatusVersion = 2;

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
  std::atomic<uint64_t> kv_pages_damaged;
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
static_assert(offsetof(StatusShm, kv_pages_damaged) == 96);
static_assert(offsetof(StatusShm, manifest_step) == 104);
static_assert(offsetof(StatusShm, manifest_count) == 112);
static_assert(offsetof(StatusShm, panic_bytes) == 116);
static_assert(offsetof(StatusShm, manifest_rids) == 120);
static_assert(offsetof(StatusShm, panic_text) == 120 + 8 * limits::kSequencesMax);
static_assert(sizeof(StatusShm) == 120 + 8 * limits::kSequencesMax + limits::kPanicTextBytes);

// --- The arena ---------------------------------------------------------------------------------

inline constexpr uint64_t kArenaMagic = 0x3130'4152'4144'4550;  // "PEDARA01"
inline constexpr uint32_t kArenaVersion = 1;
// Positions of a page, as the engine's kernels have them (engine::kPageTokens).
inline constexpr uint32_t kArenaPageTokens = 32;
// From the start of the file: the header has a memory page of its own.
inline constexpr uint64_t kArenaDescriptorsOffset = 4096;
// Pages begin at multiples of this, as the engine wants them.
inline constexpr uint64_t kArenaPageAlignment = 64;
// Slabs begin at multiples of a huge page and are given back without splitting one.
inline constexpr uint64_t kArenaSlabAlignment = uint64_t{2} << 20;
// No page, where the index of one is expected.
inline constexpr uint32_t kNoPage = UINT32_MAX;

// What the values in a page are.
enum class PageFormat : uint32_t { kFloat16 = 0 };

enum class PageState : uint32_t {
  kFree = 0,
  kOpen = 1,    // being filled by the writer; means nothing to anybody else
  kSealed = 2,  // full, with a descriptor that tells its content
};

struct ArenaHeaderShm {
  std::atomic<uint64_t> magic;  // written last
  uint32_t version;
  uint32_t header_bytes;
  uint64_t signature;            // kArenaSignature: sizes and byte order of the build that made it
  uint64_t fingerprint;          // of the model's weights and settings
  uint64_t numerics;             // hash of the numerics id: kernels and their arithmetic
  PageFormat format;             // of all pages
  uint32_t page_tokens;          // positions of a page
  uint64_t page_bytes;           // a multiple of kArenaPageAlignment
  uint32_t pages_max;            // descriptors, and places for pages
  uint32_t pages_per_slab;       // the last slab may have fewer
  uint64_t slab_bytes;           // a multiple of kArenaSlabAlignment
  uint64_t descriptors_offset;   // kArenaDescriptorsOffset
  uint64_t slabs_offset;         // a multiple of kArenaSlabAlignment
  uint64_t file_bytes;           // slabs_offset + slabs * slab_bytes
  uint64_t checksum;             // of the fields from version to file_bytes
  std::atomic<uint64_t> epoch;   // grows with each writer
  std::atomic<uint32_t> writer;  // process id of the last writer, for people
  uint32_t reserved[3];          // 0
};
static_assert(offsetof(ArenaHeaderShm, version) == 8);
static_assert(offsetof(ArenaHeaderShm, header_bytes) == 12);
static_assert(offsetof(ArenaHeaderShm, signature) == 16);
static_assert(offsetof(ArenaHeaderShm, fingerprint) == 24);
static_assert(offsetof(ArenaHeaderShm, numerics) == 32);
static_assert(offsetof(ArenaHeaderShm, format) == 40);
static_assert(offsetof(ArenaHeaderShm, page_tokens) == 44);
static_assert(offsetof(ArenaHeaderShm, page_bytes) == 48);
static_assert(offsetof(ArenaHeaderShm, pages_max) == 56);
static_assert(offsetof(ArenaHeaderShm, pages_per_slab) == 60);
static_assert(offsetof(ArenaHeaderShm, slab_bytes) == 64);
static_assert(offsetof(ArenaHeaderShm, descriptors_offset) == 72);
static_assert(offsetof(ArenaHeaderShm, slabs_offset) == 80);
static_assert(offsetof(ArenaHeaderShm, file_bytes) == 88);
static_assert(offsetof(ArenaHeaderShm, checksum) == 96);
static_assert(offsetof(ArenaHeaderShm, epoch) == 104);
static_assert(offsetof(ArenaHeaderShm, writer) == 112);
static_assert(offsetof(ArenaHeaderShm, reserved) == 116);
static_assert(sizeof(ArenaHeaderShm) == 128);

struct PageDescriptorShm {
  std::atomic<uint32_t> state;     // PageState; kSealed is written last, kFree and kOpen first
  uint32_t position;               // pages before this one in its chain
  uint32_t parent_page;            // the page before; kNoPage where position is 0
  uint32_t reserved;               // 0
  uint64_t chain_hash;             // ChainHash(parent_hash, tokens)
  uint64_t parent_hash;            // chain_hash of the parent; the root's hash where there is none
  uint64_t data_checksum;          // XXH3 of the page's bytes
  uint64_t checksum;               // of the fields above but state, of the index, and of tokens
  std::atomic<uint64_t> last_use;  // grows with each use of any page; a hint
  int32_t tokens[kArenaPageTokens];
  uint64_t reserved_end;  // 0
};
static_assert(offsetof(PageDescriptorShm, position) == 4);
static_assert(offsetof(PageDescriptorShm, parent_page) == 8);
static_assert(offsetof(PageDescriptorShm, reserved) == 12);
static_assert(offsetof(PageDescriptorShm, chain_hash) == 16);
static_assert(offsetof(PageDescriptorShm, parent_hash) == 24);
static_assert(offsetof(PageDescriptorShm, data_checksum) == 32);
static_assert(offsetof(PageDescriptorShm, checksum) == 40);
static_assert(offsetof(PageDescriptorShm, last_use) == 48);
static_assert(offsetof(PageDescriptorShm, tokens) == 56);
static_assert(offsetof(PageDescriptorShm, reserved_end) == 56 + 4 * kArenaPageTokens);
static_assert(sizeof(PageDescriptorShm) == 192);

// Differs where the structs or the byte order do.
inline constexpr uint64_t kArenaSignature =
    uint64_t{sizeof(ArenaHeaderShm)} | uint64_t{sizeof(PageDescriptorShm)} << 16 |
    uint64_t{kArenaPageTokens} << 32 | uint64_t{0x0102} << 48;

}  // namespace perdure::shm
