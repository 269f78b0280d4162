// Which models are in memory: what is to be loaded, unloaded and given back, from what is asked
// for, what is there and what fits. A pure function of its inputs; docs/lifecycle.md tells its
// rules.
//
// Bytes are those of the ledger (what was granted or is reckoned with), not the kernel's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "supervisor/child_state.h"

namespace perdure::supervisor {

enum class Presence : uint8_t {
  kAbsent,   // no process; perhaps an arena that is kept warm
  kComing,   // a process that does not serve yet, or will be started again
  kReady,    // serves
  kLeaving,  // was told to go
  kFailed,   // given up until a cool-down has passed
};

// Of its child (supervisor/child_state.h).
Presence PresenceOf(ModelState state, bool wanted);

// A model, as of now.
struct ModelUse {
  Presence presence = Presence::kAbsent;
  bool pinned = false;         // is not unloaded, whatever happens
  bool wants_preload = false;  // is to be loaded if there is room, though nobody asks for it

  uint64_t process_bytes = 0;    // held by its process; of one that is absent: what it will hold
  uint64_t kv_bytes = 0;         // granted to its KV; of one that is absent: its arena's
  uint64_t kv_used_bytes = 0;    // of those
  uint64_t kv_least_bytes = 0;   // what it cannot do without: at most kv_bytes when it is present
  uint64_t kv_floor_bytes = 0;   // it has just said that it cannot give back more than down to that
  uint64_t kv_wanted_bytes = 0;  // it asks for so many in all; 0: it has enough
  int64_t kv_wanted_since_ms = 0;

  uint32_t waiting = 0;  // requests that no worker has
  uint32_t running = 0;  // that one has
  int64_t waiting_since_ms = 0;
  int64_t present_since_ms = 0;              // it serves since
  int64_t used_ms = 0;                       // when it last had something to do
  std::optional<int64_t> idle_deadline_ms;   // nothing: it is not unloaded for being idle
  std::optional<int64_t> arena_deadline_ms;  // the same of the arena of one that is absent
};

// What it takes of the budget now.
uint64_t HeldBytes(const ModelUse& model);

struct ResidencyLimits {
  uint64_t budget_bytes = 0;
  // A model that serves is left so long at least, so that two that do not fit together do not
  // spend their time on being loaded.
  int64_t residency_least_ms = 0;
};

enum class ResidencyAction : uint8_t {
  kLoad,
  kUnload,  // nothing of it runs
  kYield,   // it gets no more requests, so that it can be unloaded once those that run have ended
  kGrant,   // kv_bytes: of its KV from now on
  kShrink,  // kv_bytes: its KV is to become so small, or as small as it can
  kRefuse,  // the KV that it asks for cannot be had
  kDropArena,  // of an absent one; what is in it is on the disk
};

struct ResidencyStep {
  size_t model = 0;
  ResidencyAction action = ResidencyAction::kLoad;
  uint64_t kv_bytes = 0;
  bool operator==(const ResidencyStep&) const = default;
};

struct ResidencyPlan {
  std::vector<ResidencyStep> steps;
  // For each model: what is missing to load it even when all goes that may go; 0: it fits.
  std::vector<uint64_t> missing_bytes;
  // When a plan may be another one though nothing has happened.
  std::optional<int64_t> deadline_ms;
};

// Rules, in this order:
//  1. What was idle for too long is unloaded; an arena that was kept for too long is dropped.
//  2. Where more is held than the budget has, which may have become smaller, the excess goes as in
//  4,
//     and until then nobody gets more.
//  3. The model whose request waits for the longest time is served first: nobody takes from it what
//     is free, so that everybody is served in the end. It is loaded if it fits.
//  4. Else room is made: arenas of absent models go, least recently used first; then KV that was
//     granted and is not used; then idle models, least recently used first; then KV that is used
//     but could be had from the disk; then the models that serve for the longest time yield. Of all
//     these no more than is needed; pinned models and running answers are never touched.
//  5. A model that asks for more KV gets it by the same means, but nobody yields for it.
ResidencyPlan PlanResidency(std::span<const ModelUse> models, const ResidencyLimits& limits,
                            int64_t now_ms);

}  // namespace perdure::supervisor
