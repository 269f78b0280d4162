// ALL structs that stand in shared memory. Fixed-width fields, offsets only: no pointers, no locks.
//
// StatusShm: one per child process, in a memfd made by the supervisor. Written by the child alone,
// read by the supervisor while the child lives (relaxed counters) and after it was reaped (all).
//
// ArenaHeaderShm, PageDescriptorShm, ConversationShm: one header, pages_max descriptors and
// conversations_max records at the start of a model's arena, which outlives its workers. Written by
// the worker that holds the arena's lock alone; read by its successor, and by `perdure inspect
// arena` at any time.
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
inline constexpr uint32_t kArenaVersion = 2;
// Positions of a page, as the engine's kernels have them (engine::kPageTokens).
inline constexpr uint32_t kArenaPageTokens = 32;
// From the start of the file: the header has a memory page of its own.
inline constexpr uint64_t kArenaConversationsOffset = 4096;
// Slots begin at multiples of this, as the engine wants them.
inline constexpr uint64_t kArenaPageAlignment = 64;
// Slabs begin at multiples of a huge page, which is not split when they are given back; small ones
// at multiples of a memory page.
inline constexpr uint64_t kArenaSlabAlignment = uint64_t{2} << 20;
inline constexpr uint64_t kArenaSmallSlabAlignment = 4096;
// No page, and no slot, where the index of one is expected.
inline constexpr uint32_t kNoPage = UINT32_MAX;
inline constexpr uint32_t kNoSlot = UINT32_MAX;

// How a page's numbers are stored (engine::KvPrecision). All pages of a slab have one format.
enum class PageFormat : uint32_t { kFloat16 = 0, kBits8 = 1, kBits4 = 2 };
inline constexpr uint32_t kPageFormats = 3;

enum class PageState : uint32_t {
  kFree = 0,
  kOpen = 1,    // being filled by the writer; means nothing to anybody else
  kSealed = 2,  // with a descriptor that tells its content
};

struct ArenaHeaderShm {
  std::atomic<uint64_t> magic;  // written last
  uint32_t version;
  uint32_t header_bytes;
  uint64_t signature;                     // kArenaSignature: sizes and byte order of the build
  uint64_t fingerprint;                   // of the model's weights and settings
  uint64_t numerics;                      // hash of the numerics id: kernels and arithmetic
  uint64_t page_bytes[kPageFormats];      // multiples of kArenaPageAlignment; 0: no such pages
  uint32_t slots_per_slab[kPageFormats];  // of a slab of pages of that format
  uint32_t page_tokens;                   // positions of a page
  uint32_t pages_max;                     // descriptors
  uint32_t conversations_max;             // records
  uint32_t slabs;                         // places for slabs
  uint32_t pages_wanted;                  // ArenaShape::pages_max, from which all else follows
  uint64_t slab_bytes;
  uint64_t conversations_offset;  // kArenaConversationsOffset
  uint64_t descriptors_offset;    // a multiple of 4096
  uint64_t slabs_offset;
  uint64_t file_bytes;                        // slabs_offset + slabs * slab_bytes
  uint64_t checksum;                          // of the fields from version to file_bytes
  std::atomic<uint64_t> epoch;                // grows with each writer
  std::atomic<uint32_t> writer;               // process id of the last writer, for people
  std::atomic<uint32_t> descriptors_granted;  // from the first on; grows
  uint32_t reserved[2];                       // 0
};
static_assert(offsetof(ArenaHeaderShm, version) == 8);
static_assert(offsetof(ArenaHeaderShm, header_bytes) == 12);
static_assert(offsetof(ArenaHeaderShm, signature) == 16);
static_assert(offsetof(ArenaHeaderShm, fingerprint) == 24);
static_assert(offsetof(ArenaHeaderShm, numerics) == 32);
static_assert(offsetof(ArenaHeaderShm, page_bytes) == 40);
static_assert(offsetof(ArenaHeaderShm, slots_per_slab) == 64);
static_assert(offsetof(ArenaHeaderShm, page_tokens) == 76);
static_assert(offsetof(ArenaHeaderShm, pages_max) == 80);
static_assert(offsetof(ArenaHeaderShm, conversations_max) == 84);
static_assert(offsetof(ArenaHeaderShm, slabs) == 88);
static_assert(offsetof(ArenaHeaderShm, pages_wanted) == 92);
static_assert(offsetof(ArenaHeaderShm, slab_bytes) == 96);
static_assert(offsetof(ArenaHeaderShm, conversations_offset) == 104);
static_assert(offsetof(ArenaHeaderShm, descriptors_offset) == 112);
static_assert(offsetof(ArenaHeaderShm, slabs_offset) == 120);
static_assert(offsetof(ArenaHeaderShm, file_bytes) == 128);
static_assert(offsetof(ArenaHeaderShm, checksum) == 136);
static_assert(offsetof(ArenaHeaderShm, epoch) == 144);
static_assert(offsetof(ArenaHeaderShm, writer) == 152);
static_assert(offsetof(ArenaHeaderShm, descriptors_granted) == 156);
static_assert(offsetof(ArenaHeaderShm, reserved) == 160);
static_assert(sizeof(ArenaHeaderShm) == 168);

// A page is a node in the tree of chains; its numbers lie in a slot, which may change. A sealed one
// without a slot is hollow: it tells which tokens stand here, and has to be computed again.
struct PageDescriptorShm {
  std::atomic<uint32_t> state;  // PageState; kSealed is written last, kFree and kOpen first
  std::atomic<uint32_t> slot;   // where its numbers lie; kNoSlot: nowhere
  uint32_t position;            // pages before this one in its chain
  uint32_t parent_page;         // the page before; kNoPage where position is 0
  PageFormat format;
  uint32_t count;          // positions filled, from the first; all but in a chain's last page
  uint32_t drawn;          // bit i: the model has drawn tokens[i], it is of an answer
  uint32_t reserved;       // 0
  uint64_t owner;          // who may find it; 0: everybody
  uint64_t mask;           // hash of what its positions see of their past; 0: all of it
  uint64_t chain_hash;     // ChainHash of the parent's, format, owner, mask and tokens
  uint64_t data_checksum;  // XXH3 of the slot's bytes
  uint64_t checksum;       // of the fields above but state and slot, of index and tokens
  std::atomic<uint64_t> last_use;  // grows with each use of any page; a hint
  int32_t tokens[kArenaPageTokens];
  uint64_t reserved_end[6];  // 0
};
static_assert(offsetof(PageDescriptorShm, slot) == 4);
static_assert(offsetof(PageDescriptorShm, position) == 8);
static_assert(offsetof(PageDescriptorShm, parent_page) == 12);
static_assert(offsetof(PageDescriptorShm, format) == 16);
static_assert(offsetof(PageDescriptorShm, count) == 20);
static_assert(offsetof(PageDescriptorShm, drawn) == 24);
static_assert(offsetof(PageDescriptorShm, reserved) == 28);
static_assert(offsetof(PageDescriptorShm, owner) == 32);
static_assert(offsetof(PageDescriptorShm, mask) == 40);
static_assert(offsetof(PageDescriptorShm, chain_hash) == 48);
static_assert(offsetof(PageDescriptorShm, data_checksum) == 56);
static_assert(offsetof(PageDescriptorShm, checksum) == 64);
static_assert(offsetof(PageDescriptorShm, last_use) == 72);
static_assert(offsetof(PageDescriptorShm, tokens) == 80);
static_assert(offsetof(PageDescriptorShm, reserved_end) == 80 + 4 * kArenaPageTokens);
static_assert(sizeof(PageDescriptorShm) == 256);

// Part of a cache schedule (base/cache_settings.h).
struct CacheSegmentShm {
  int32_t from;
  int32_t bits;
  int32_t keep;
  int32_t size;
};
static_assert(sizeof(CacheSegmentShm) == 16);

// What a conversation is beside the pages of its chain. A new version is written to a free record
// before the old one becomes free: of two with one id and owner the later one counts.
struct ConversationShm {
  std::atomic<uint32_t> state;  // 1: in use, written last; 0: free
  uint32_t tail_page;           // the last page of its chain; kNoPage: none
  uint64_t version;             // grows with every record that is written
  uint64_t owner;
  uint64_t tail_hash;  // chain_hash of the tail
  uint64_t used_unix_ms;
  uint32_t turns;
  int32_t last_token;   // behind the chain, drawn and not computed; -1: none
  uint32_t flags;       // 1: pinned, 2: the client has named it
  uint32_t chunk_size;  // tokens of a contiguous segment; 0: none
  uint32_t segments;    // used ones
  uint32_t messages;    // in all
  uint32_t id_bytes;
  uint32_t type_bytes;
  CacheSegmentShm segment[limits::kCacheSegmentsMax];
  // Of the last messages, the newest last: hash of that message and all before it.
  uint64_t message_hashes[limits::kMessageHashesKept];
  char id[limits::kConversationIdBytesMax];
  char type[limits::kCacheTypeNameBytesMax];
  uint64_t reserved[7];  // 0
  uint64_t checksum;     // of all above but state, and of the index
};
static_assert(offsetof(ConversationShm, tail_page) == 4);
static_assert(offsetof(ConversationShm, version) == 8);
static_assert(offsetof(ConversationShm, owner) == 16);
static_assert(offsetof(ConversationShm, tail_hash) == 24);
static_assert(offsetof(ConversationShm, used_unix_ms) == 32);
static_assert(offsetof(ConversationShm, turns) == 40);
static_assert(offsetof(ConversationShm, last_token) == 44);
static_assert(offsetof(ConversationShm, flags) == 48);
static_assert(offsetof(ConversationShm, chunk_size) == 52);
static_assert(offsetof(ConversationShm, segments) == 56);
static_assert(offsetof(ConversationShm, messages) == 60);
static_assert(offsetof(ConversationShm, id_bytes) == 64);
static_assert(offsetof(ConversationShm, type_bytes) == 68);
static_assert(offsetof(ConversationShm, segment) == 72);
static_assert(offsetof(ConversationShm, message_hashes) == 328);
static_assert(offsetof(ConversationShm, id) == 584);
static_assert(offsetof(ConversationShm, type) == 712);
static_assert(offsetof(ConversationShm, reserved) == 776);
static_assert(offsetof(ConversationShm, checksum) == 832);
static_assert(sizeof(ConversationShm) == 840);

// Differs where the structs or the byte order do.
inline constexpr uint64_t kArenaSignature =
    uint64_t{sizeof(ArenaHeaderShm)} | uint64_t{sizeof(PageDescriptorShm)} << 12 |
    uint64_t{sizeof(ConversationShm)} << 24 | uint64_t{kArenaPageTokens} << 36 |
    uint64_t{0x0102} << 48;

}  // namespace perdure::shm
