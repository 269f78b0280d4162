#include "worker/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "engine/kv_view.h"

namespace perdure::worker {
namespace {

size_t PagesFor(int tokens) { return static_cast<size_t>(engine::KvShape::PagesFor(tokens)); }

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, shm::PageStore* store, PrefixFinder* finder)
    : limits_(limits), store_(store), finder_(finder) {
  CHECK(limits.sequences_max >= 1 && limits.prefill_tokens_per_step >= 1);
  CHECK(limits.resident_max >= limits.sequences_max);
}

SequenceId Scheduler::Add(int tokens) {
  CHECK(tokens >= 1);
  const SequenceId id = ++last_id_;
  sequences_[id].tokens = tokens;
  waiting_.insert(id);
  return id;
}

void Scheduler::Remove(SequenceId id) {
  FreePages(&Find(id));
  resident_.erase(id);
  waiting_.erase(id);
  sequences_.erase(id);
}

void Scheduler::SetPrefillTokensPerStep(int tokens) {
  CHECK(tokens >= 1);
  limits_.prefill_tokens_per_step = tokens;
}

void Scheduler::SetBlocked(SequenceId id, bool blocked) { Find(id).blocked = blocked; }
void Scheduler::SetSuspect(SequenceId id, bool suspect) { Find(id).suspect = suspect; }

Scheduler::Sequence& Scheduler::Find(SequenceId id) {
  const auto it = sequences_.find(id);
  CHECK(it != sequences_.end());
  return it->second;
}

const Scheduler::Sequence& Scheduler::Find(SequenceId id) const {
  const auto it = sequences_.find(id);
  CHECK(it != sequences_.end());
  return it->second;
}

const std::vector<PageIndex>& Scheduler::pages(SequenceId id) const { return Find(id).pages; }

int Scheduler::tokens(SequenceId id) const { return Find(id).tokens; }

bool Scheduler::HasWork() const {
  // A sequence that is not blocked is in the next step, is admitted to it, or fails in planning it.
  return std::any_of(sequences_.begin(), sequences_.end(),
                     [](const auto& entry) { return !entry.second.blocked; });
}

int Scheduler::ActiveResidents() const {
  return static_cast<int>(std::count_if(resident_.begin(), resident_.end(),
                                        [this](SequenceId id) { return !Find(id).blocked; }));
}

void Scheduler::FreePages(Sequence* sequence) {
  // Back to front, so that the next owner gets them in the order in which they lie.
  for (auto it = sequence->pages.rbegin(); it != sequence->pages.rend(); ++it) store_->Release(*it);
  sequence->pages.clear();
  sequence->computed = 0;
}

void Scheduler::Preempt(SequenceId id, StepPlan* plan) {
  FreePages(&Find(id));
  resident_.erase(id);
  waiting_.insert(id);
  plan->preempted.push_back(id);
}

bool Scheduler::TryGrow(Sequence* sequence, size_t pages) {
  while (sequence->pages.size() < pages) {
    const auto page = store_->Allocate();
    if (!page) return false;
    sequence->pages.push_back(*page);
  }
  return true;
}

// Pages for one resident's pending tokens, taken from blocked sequences and then from younger ones.
// False when it is no longer resident: it was itself the youngest, or there is no memory at all.
bool Scheduler::GrowResident(SequenceId id, StepPlan* plan) {
  Sequence& sequence = Find(id);
  while (!TryGrow(&sequence, PagesFor(sequence.tokens))) {
    if (resident_.size() == 1) {
      plan->out_of_memory.push_back(id);
      Remove(id);
      return false;
    }
    if (PreemptBlocked(plan)) continue;
    const SequenceId youngest = *resident_.rbegin();
    Preempt(youngest, plan);
    if (youngest == id) return false;
  }
  return true;
}

// Takes the pages of the youngest blocked sequence; false when no blocked one is resident.
bool Scheduler::PreemptBlocked(StepPlan* plan) {
  const auto victim = std::find_if(resident_.rbegin(), resident_.rend(),
                                   [this](SequenceId id) { return Find(id).blocked; });
  if (victim == resident_.rend()) return false;
  Preempt(*victim, plan);
  return true;
}

void Scheduler::Admit(StepPlan* plan) {
  int active = ActiveResidents();
  // Preempting while admitting puts only blocked sequences into waiting_, which are skipped.
  for (auto it = waiting_.begin(); it != waiting_.end() && active < limits_.sequences_max;) {
    const SequenceId id = *it;
    Sequence& sequence = Find(id);
    if (sequence.blocked) {
      ++it;
      continue;
    }
    // With fewer active ones than sequences_max, one too many in residence is a blocked one.
    if (resident() >= limits_.resident_max) CHECK(PreemptBlocked(plan));
    // What is cached needs no room. A page more for each that runs: else the newcomer would be the
    // next to lose its own.
    if (finder_ != nullptr) sequence.pages = finder_->CachedPrefix(id);
    sequence.computed = static_cast<int>(sequence.pages.size()) * engine::kPageTokens;
    const size_t need = PagesFor(sequence.tokens);
    const size_t room = need - sequence.pages.size() + static_cast<size_t>(active);
    bool fits = false;
    do {
      fits = store_->available() >= room && TryGrow(&sequence, need);
    } while (!fits && PreemptBlocked(plan));
    if (!fits) {
      FreePages(&sequence);
      if (!resident_.empty()) return;  // first come, first served: nobody overtakes
      plan->out_of_memory.push_back(id);
      it = waiting_.erase(it);
      sequences_.erase(id);
      continue;
    }
    it = waiting_.erase(it);
    resident_.insert(id);
    ++active;
  }
}

StepPlan Scheduler::PlanStep() {
  StepPlan plan;
  // Those that run come before those that would like to. Growing one may preempt younger ones, so
  // each turn looks for the next id anew.
  int grown = 0;
  for (auto it = resident_.begin(); it != resident_.end() && grown < limits_.sequences_max;) {
    const SequenceId id = *it;
    if (!Find(id).blocked && GrowResident(id, &plan)) ++grown;
    it = resident_.upper_bound(id);
  }
  Admit(&plan);
  ShareOut(&plan);
  return plan;
}

std::vector<SequenceId> Scheduler::Ready() const {
  std::vector<SequenceId> ready;
  for (SequenceId id : resident_) {
    if (Find(id).blocked) continue;
    if (static_cast<int>(ready.size()) == limits_.sequences_max) break;
    ready.push_back(id);
  }
  return ready;
}

// The suspect that has this step to itself, if it is a suspect's turn.
std::optional<SequenceId> Scheduler::ChooseTrial(const std::vector<SequenceId>& ready) {
  const auto suspect =
      std::find_if(ready.begin(), ready.end(), [this](SequenceId id) { return Find(id).suspect; });
  const bool others =
      std::any_of(ready.begin(), ready.end(), [this](SequenceId id) { return !Find(id).suspect; });
  last_was_trial_ = suspect != ready.end() && !(others && last_was_trial_);
  return last_was_trial_ ? std::optional(*suspect) : std::nullopt;
}

// Every decoding sequence gets its token. Those that prefill share the rest max-min fairly: short
// ones finish, and what they leave is shared by the longer ones. One token is put aside for the
// oldest, so that it advances however many short ones arrive.
void Scheduler::ShareOut(StepPlan* plan) {
  const std::vector<SequenceId> ready = Ready();
  const std::optional<SequenceId> trial = ChooseTrial(ready);
  std::vector<size_t> prefills;  // indexes of entries, in ascending ids
  for (SequenceId id : ready) {
    const Sequence& sequence = Find(id);
    if (trial ? id != *trial : sequence.suspect) continue;
    const int pending = sequence.tokens - sequence.computed;
    CHECK(pending >= 1);
    if (pending > 1) prefills.push_back(plan->entries.size());
    plan->entries.push_back({id, sequence.computed, pending, true});
  }
  if (prefills.empty()) return;
  const size_t oldest = prefills.front();
  std::stable_sort(prefills.begin(), prefills.end(), [plan](size_t a, size_t b) {
    return plan->entries[a].count < plan->entries[b].count;
  });
  int rest = limits_.prefill_tokens_per_step - 1;
  int sharers = static_cast<int>(prefills.size());
  for (size_t index : prefills) {
    StepEntry& entry = plan->entries[index];
    const int put_aside = index == oldest ? 1 : 0;
    const int share = std::min((rest + sharers - 1) / sharers, entry.count - put_aside);
    if (share + put_aside < entry.count) {
      entry.count = share + put_aside;
      entry.draws = false;
    }
    rest -= share;
    --sharers;
  }
  std::erase_if(plan->entries, [](const StepEntry& entry) { return entry.count == 0; });
}

void Scheduler::FinishStep(const StepPlan& plan) {
  for (const StepEntry& entry : plan.entries) {
    Sequence& sequence = Find(entry.id);
    CHECK(sequence.computed == entry.start);
    sequence.computed += entry.count;
    CHECK(sequence.computed <= sequence.tokens);
  }
}

void Scheduler::SetPage(SequenceId id, size_t index, PageIndex page) {
  std::vector<PageIndex>& pages = Find(id).pages;
  CHECK(index < pages.size());
  pages[index] = page;
}

void Scheduler::Append(SequenceId id) {
  Sequence& sequence = Find(id);
  CHECK(sequence.computed == sequence.tokens);
  ++sequence.tokens;
}

}  // namespace perdure::worker
