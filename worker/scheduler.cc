#include "worker/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/kv_view.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {
namespace {

using Room = PrefixFinder::Room;

size_t PagesFor(int tokens) { return static_cast<size_t>(engine::KvShape::PagesFor(tokens)); }

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, shm::PageStore* store, PrefixFinder* finder)
    : limits_(limits), store_(store), finder_(finder) {
  CHECK(limits.sequences_max >= 1 && limits.prefill_tokens_per_step >= 1);
  CHECK(limits.resident_max >= limits.sequences_max);
}

SequenceId Scheduler::Add(int tokens, const CacheSchedule& schedule, const Arrival& arrival) {
  CHECK(tokens >= 1);
  const SequenceId id = ++last_id_;
  Sequence& sequence = sequences_[id];
  sequence.tokens = tokens;
  sequence.client = arrival.client;
  sequence.schedule = schedule;
  if (arrival.had_place) {
    sequence.rank = ++last_rank_;
    preempted_.emplace(sequence.rank, id);
  } else {
    queue_.Add(id, arrival.client);
  }
  return id;
}

void Scheduler::Remove(SequenceId id) {
  Sequence& sequence = Find(id);
  FreePages(&sequence);
  if (sequence.rank == 0)
    queue_.Remove(id, sequence.client);
  else if (preempted_.erase(sequence.rank) == 0 && resident_.erase(sequence.rank) == 1)
    queue_.Touch(sequence.client);
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

bool Scheduler::HasWork() const {
  // A sequence that is not blocked is in the next step, is admitted to it, or fails in planning it.
  return std::any_of(sequences_.begin(), sequences_.end(),
                     [](const auto& entry) { return !entry.second.blocked; });
}

int Scheduler::ActiveResidents() const {
  return static_cast<int>(
      std::count_if(resident_.begin(), resident_.end(),
                    [this](const auto& resident) { return !Find(resident.second).blocked; }));
}

void Scheduler::FreePages(Sequence* sequence) {
  // Back to front, so that the next owner gets them in the order in which they lie.
  for (auto it = sequence->pages.rbegin(); it != sequence->pages.rend(); ++it)
    if (*it != shm::kNoPage) store_->Release(*it);
  sequence->pages.clear();
  sequence->computed = 0;
}

void Scheduler::Preempt(SequenceId id) {
  Sequence& sequence = Find(id);
  FreePages(&sequence);
  resident_.erase(sequence.rank);
  preempted_.emplace(sequence.rank, id);
}

void Scheduler::PreemptHolders(const std::function<bool(PageIndex)>& is_it) {
  const std::map<uint64_t, SequenceId> residents = resident_;
  for (const auto& [rank, id] : residents) {
    const std::vector<PageIndex>& pages = Find(id).pages;
    if (std::ranges::any_of(pages,
                            [&](PageIndex page) { return page != shm::kNoPage && is_it(page); }))
      Preempt(id);
  }
}

size_t Scheduler::PagesWanted(const Sequence& sequence) {
  return PagesFor(WantedUpTo(sequence.schedule, sequence.computed, sequence.tokens));
}

// The full ones among those that the rest of the sequence does not look at.
void Scheduler::RetirePages(SequenceId id, Sequence* sequence) {
  if (!Rotates(sequence->schedule)) return;
  const PageIndex own_end = finder_ != nullptr ? finder_->OwnEnd(id) : shm::kNoPage;
  const NeededPages needed = NeededFrom(sequence->schedule, sequence->computed);
  for (size_t page = needed.first; page < std::min(needed.from, sequence->pages.size()); ++page)
    if (sequence->pages[page] != shm::kNoPage)
      store_->Retire(std::exchange(sequence->pages[page], shm::kNoPage), own_end);
}

bool Scheduler::TryGrow(Sequence* sequence, size_t pages) {
  const CacheSchedule& schedule = sequence->schedule;
  const auto row = static_cast<size_t>(schedule.chunk_size / engine::kPageTokens);
  while (sequence->pages.size() < pages) {
    const size_t next = sequence->pages.size();
    const shm::PageFormat format = FormatOf(schedule, next);
    if (row > 0) {
      // To the end of the row, or to where the format changes.
      size_t end = next + 1;
      while (end % row != 0 && FormatOf(schedule, end) == format) ++end;
      const auto run = store_->AllocateRun(format, static_cast<uint32_t>(end - next));
      sequence->pages.insert(sequence->pages.end(), run.begin(), run.end());
      if (!run.empty()) continue;
    }
    const auto page = store_->Allocate(format);
    if (!page) return false;
    sequence->pages.push_back(*page);
  }
  return true;
}

bool Scheduler::HasRoom(const Sequence& sequence) const {
  shm::PerFormat<uint64_t> counts;
  const size_t wanted = PagesWanted(sequence);
  for (size_t page = sequence.pages.size(); page < wanted; ++page)
    ++counts[FormatOf(sequence.schedule, page)];
  for (const auto& [rank, id] : resident_) {
    const Sequence& other = Find(id);
    if (!other.blocked) ++counts[FormatOf(other.schedule, other.pages.size())];
  }
  return store_->CanHold(counts);
}

// Pages for one resident's pending tokens, taken from blocked sequences and then from younger ones.
// False when it is no longer resident: it was itself the youngest, or there is no memory at all.
bool Scheduler::GrowResident(SequenceId id, StepPlan* plan) {
  Sequence& sequence = Find(id);
  RetirePages(id, &sequence);
  while (!TryGrow(&sequence, PagesWanted(sequence))) {
    if (resident_.size() == 1) {
      const Room room = finder_ != nullptr ? finder_->GiveWay() : Room::kNone;
      if (room == Room::kMade) continue;
      if (room == Room::kSoon) {
        Preempt(id);
        return false;
      }
      plan->out_of_memory.push_back(id);
      Remove(id);
      return false;
    }
    if (PreemptBlocked(plan)) continue;
    const SequenceId youngest = resident_.rbegin()->second;
    Preempt(youngest);
    plan->preempted.push_back(youngest);
    if (youngest == id) return false;
  }
  return true;
}

// Takes the pages of the youngest blocked sequence; false when no blocked one is resident.
bool Scheduler::PreemptBlocked(StepPlan* plan) {
  const auto victim = std::find_if(resident_.rbegin(), resident_.rend(),
                                   [this](const auto& one) { return Find(one.second).blocked; });
  if (victim == resident_.rend()) return false;
  const SequenceId id = victim->second;
  plan->preempted.push_back(id);
  Preempt(id);
  return true;
}

std::optional<SequenceId> Scheduler::NextToAdmit() const {
  const auto may_run = [this](SequenceId id) { return !Find(id).blocked; };
  for (const auto& [rank, id] : preempted_)
    if (may_run(id)) return id;
  if (queue_.size() == 0) return std::nullopt;
  std::map<uint64_t, int> places;
  for (const auto& [rank, id] : resident_)
    if (may_run(id)) ++places[Find(id).client];
  return queue_.Next(may_run, places);
}

void Scheduler::LetIn(SequenceId id) {
  Sequence& sequence = Find(id);
  if (sequence.rank == 0) {
    sequence.rank = ++last_rank_;
    queue_.Remove(id, sequence.client);
    queue_.Touch(sequence.client);
  } else {
    preempted_.erase(sequence.rank);
  }
  resident_.emplace(sequence.rank, id);
}

void Scheduler::Admit(StepPlan* plan) {
  // Preempting while admitting makes only blocked ones wait, which are not next.
  for (int active = ActiveResidents(); active < limits_.sequences_max;) {
    const std::optional<SequenceId> next = NextToAdmit();
    if (!next) return;
    const SequenceId id = *next;
    Sequence& sequence = Find(id);
    // With fewer active ones than sequences_max, one too many in residence is a blocked one.
    if (resident() >= limits_.resident_max) CHECK(PreemptBlocked(plan));
    // What is cached needs no room.
    if (finder_ != nullptr) {
      CachedPages cached = finder_->CachedPrefix(id);
      sequence.pages = std::move(cached.pages);
      sequence.computed = cached.computed;
    }
    bool fits = false;
    do {
      fits = HasRoom(sequence) && TryGrow(&sequence, PagesWanted(sequence));
    } while (!fits && PreemptBlocked(plan));
    if (!fits) {
      FreePages(&sequence);
      if (!resident_.empty()) return;  // nobody overtakes who is next
      const Room room = finder_ != nullptr ? finder_->GiveWay() : Room::kNone;
      if (room == Room::kMade) continue;
      if (room == Room::kSoon) return;
      plan->out_of_memory.push_back(id);
      Remove(id);
      continue;
    }
    LetIn(id);
    ++active;
  }
}

StepPlan Scheduler::PlanStep() {
  StepPlan plan;
  // Those that run come before those that would like to. Growing one may preempt younger ones, so
  // each round looks for the next one anew.
  int grown = 0;
  for (auto it = resident_.begin(); it != resident_.end() && grown < limits_.sequences_max;) {
    const auto [rank, id] = *it;
    if (!Find(id).blocked && GrowResident(id, &plan)) ++grown;
    it = resident_.upper_bound(rank);
  }
  Admit(&plan);
  ShareOut(&plan);
  return plan;
}

std::vector<SequenceId> Scheduler::Ready() const {
  std::vector<SequenceId> ready;
  for (const auto& [rank, id] : resident_) {
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
  std::vector<size_t> prefills;  // indexes of entries, in ascending ranks
  for (SequenceId id : ready) {
    const Sequence& sequence = Find(id);
    if (trial ? id != *trial : sequence.suspect) continue;
    const int pending = sequence.tokens - sequence.computed;
    CHECK(pending >= 1);
    if (pending > 1) prefills.push_back(plan->entries.size());
    // As far as it has pages; a row of them at a time.
    int end =
        std::min(sequence.tokens, static_cast<int>(sequence.pages.size()) * engine::kPageTokens);
    if (const int row = sequence.schedule.chunk_size; row > 0)
      end = std::min(end, (sequence.computed / row + 1) * row);
    CHECK(end > sequence.computed);
    plan->entries.push_back(
        {id, sequence.computed, end - sequence.computed, end == sequence.tokens});
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
