// Which sequences take part in the next step, with how many tokens, and whose pages they use.
//
// A pure core: no clock, no sockets, no model. To it a sequence is a number of known tokens (prompt
// and answer so far), of which a prefix is computed into pages. What is not computed is pending:
// one pending token is decoding, more are prefill, also when a sequence that lost its pages starts
// again from what is cached of it; it then computes the same tokens and draws at the same position.
//
// Its cache schedule says of which format its pages are, whether they lie in rows, and which of
// them it still looks at: those that it does not are given up as it goes on.
//
// Invariants, checked in tests/worker:
//  1. An open page belongs to at most one sequence; only sequences in residence have pages.
//  2. A step has at most sequences_max sequences, and at most prefill_tokens_per_step tokens of
//     sequences that prefill.
//  3. Who is let in has a rank, its number among all that ever were. Older sequences (lower ranks)
//     come first: in getting pages, in keeping them, in coming back once they had to give them up.
//     Of those in residence the oldest that is neither blocked nor suspect takes part in every step
//     but a suspect's. Who was never let in comes after those, in an order that is fair to clients
//     (FairQueue); nobody is let in past the next one that could run, so everything ends.
//  4. A suspect (a worker died in its step) shares a step with nobody. It has its place among those
//     in residence, and its turn, alone, in every other step.
//  5. A blocked sequence (its client reads slowly) takes part in nothing, keeps its pages while
//     nobody needs them, and holds no place that others could have.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "base/cache_settings.h"
#include "shm/page_store.h"
#include "worker/fair_queue.h"

namespace perdure::worker {

using shm::PageIndex;

// Pages with a reference to each; kNoPage where the schedule does not look at one any more. The
// last one may be an open page of which the first positions are computed.
struct CachedPages {
  std::vector<PageIndex> pages;
  int computed = 0;  // positions
};

// What is cached of a sequence's tokens already.
class PrefixFinder {
 public:
  virtual ~PrefixFinder() = default;
  // A prefix of the sequence that ends before its last token.
  virtual CachedPages CachedPrefix(SequenceId id) = 0;
  // Memory is short for a sequence that is alone: gives something up that is kept for later. kSoon:
  // what there is will be free without the sequence's doing.
  enum class Room { kNone, kMade, kSoon };
  virtual Room GiveWay() { return Room::kNone; }
  // The cached page, if any, from which the sequence's conversation goes on.
  virtual PageIndex OwnEnd(SequenceId) const { return shm::kNoPage; }
};

struct SchedulerLimits {
  int sequences_max = 8;              // in one step, ≥ 1
  int prefill_tokens_per_step = 256;  // ≥ 1
  int resident_max = 256;  // sequences with pages, blocked ones included; ≥ sequences_max
};

struct Arrival {
  uint64_t client = 0;     // between whom places are shared
  bool had_place = false;  // with another scheduler: comes before all that had none
};

struct StepEntry {
  SequenceId id = 0;
  int start = 0;  // position of the first token
  int count = 0;
  bool draws = false;  // the last token's logits are wanted: nothing is pending after this step
};

struct StepPlan {
  std::vector<StepEntry> entries;  // ascending ranks
  // Lost their pages to older ones and wait to start again.
  std::vector<SequenceId> preempted;
  // Alone in the pool, and yet there is not memory enough for them; they were removed.
  std::vector<SequenceId> out_of_memory;
};

class Scheduler {
 public:
  // `store` must outlive the scheduler, as must `finder`, which may be null: then everything is
  // computed.
  Scheduler(const SchedulerLimits& limits, shm::PageStore* store, PrefixFinder* finder = nullptr);

  // A new sequence of `tokens` ≥ 1 known tokens starts waiting.
  SequenceId Add(int tokens, const CacheSchedule& schedule = {}, const Arrival& arrival = {});
  // Forgets a sequence in any state and frees its pages.
  void Remove(SequenceId id);
  void SetBlocked(SequenceId id, bool blocked);
  void SetSuspect(SequenceId id, bool suspect);
  // From the next step on; ≥ 1. What is computed does not depend on it.
  void SetPrefillTokensPerStep(int tokens);

  // The next step; nothing in it means that there is nothing to do now. Hands out pages for every
  // position that the step computes. Each plan must be followed by FinishStep or be empty.
  StepPlan PlanStep();
  // Marks the plan's tokens as computed. Every sequence that drew must then be given its token by
  // Append, or be removed.
  void FinishStep(const StepPlan& plan);
  void Append(SequenceId id);
  // The sequence uses `page` from now on as its page number `index`, with the reference that it has
  // had: what it had there is cached by that page. Full pages are sealed between two steps.
  void SetPage(SequenceId id, size_t index, PageIndex page);
  // Takes the pages of all that hold one of which this is true: they start again.
  void PreemptHolders(const std::function<bool(PageIndex)>& is_it);

  const std::vector<PageIndex>& pages(SequenceId id) const;
  int tokens(SequenceId id) const { return Find(id).tokens; }
  int computed(SequenceId id) const { return Find(id).computed; }
  uint64_t rank(SequenceId id) const { return Find(id).rank; }  // 0: it was never let in
  // True when a step would have something to do.
  bool HasWork() const;
  int resident() const { return static_cast<int>(resident_.size()); }
  int waiting() const { return static_cast<int>(preempted_.size() + queue_.size()); }

 private:
  struct Sequence {
    int tokens = 0;
    int computed = 0;
    bool blocked = false;
    bool suspect = false;
    uint64_t client = 0;
    uint64_t rank = 0;
    CacheSchedule schedule;
    std::vector<PageIndex> pages;  // kNoPage: not needed any more
  };

  Sequence& Find(SequenceId id);
  const Sequence& Find(SequenceId id) const;
  void FreePages(Sequence* sequence);
  void Preempt(SequenceId id);
  static size_t PagesWanted(const Sequence& sequence);
  void RetirePages(SequenceId id, Sequence* sequence);
  // Whether there is room for the pages that a newcomer wants, and one for each that runs: else it
  // would be the next to lose its own.
  bool HasRoom(const Sequence& sequence) const;
  // Grows to `pages`, or to the end of a row; false, with what there was, when the pool has no
  // more.
  bool TryGrow(Sequence* sequence, size_t pages);
  bool GrowResident(SequenceId id, StepPlan* plan);
  std::optional<SequenceId> NextToAdmit() const;
  void LetIn(SequenceId id);
  void Admit(StepPlan* plan);
  bool PreemptBlocked(StepPlan* plan);
  // Those in residence whose pages reach for all of their tokens, at most sequences_max.
  std::vector<SequenceId> Ready() const;
  std::optional<SequenceId> ChooseTrial(const std::vector<SequenceId>& ready);
  void ShareOut(StepPlan* plan);
  int ActiveResidents() const;

  SchedulerLimits limits_;
  shm::PageStore* const store_;
  PrefixFinder* const finder_;
  std::map<SequenceId, Sequence> sequences_;
  std::map<uint64_t, SequenceId> resident_;   // by rank; may have pages
  std::map<uint64_t, SequenceId> preempted_;  // by rank; were let in, and have none now
  FairQueue queue_;                           // were never let in
  SequenceId last_id_ = 0;
  uint64_t last_rank_ = 0;
  bool last_was_trial_ = false;
};

}  // namespace perdure::worker
