#include "text/grammar/match_states.h"

#include <algorithm>

#include "base/limits.h"
#include "text/grammar/json_automata.h"

namespace perdure::text {
namespace {

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15;
  return hash ^ (hash >> 32);
}

}  // namespace

MatchStates::MatchStates(GrammarPtr grammar)
    : grammar_(std::move(grammar)),
      grammar_bytes_(grammar_->memory_bytes()),
      inside_string_(InsideState(*JsonAutomata::Get().string)),
      frames_(2),
      frame_index_(64, 0),
      states_(1),
      state_index_(64, 0),
      seen_(64) {}

MatchStates::Stack MatchStates::Push(Stack below, uint32_t node, uint32_t value) {
  const Frame frame = {below, node, value};
  const auto hash_of = [](const Frame& f) { return Mix(Mix(Mix(1, f.below), f.node), f.value); };
  if (frames_.size() * 2 > frame_index_.size()) {
    std::vector<uint32_t> larger(frame_index_.size() * 2, 0);
    for (uint32_t id = 2; id < frames_.size(); ++id) {
      size_t at = hash_of(frames_[id]) & (larger.size() - 1);
      while (larger[at] != 0) at = (at + 1) & (larger.size() - 1);
      larger[at] = id;
    }
    frame_index_ = std::move(larger);
  }
  size_t at = hash_of(frame) & (frame_index_.size() - 1);
  for (; frame_index_[at] != 0; at = (at + 1) & (frame_index_.size() - 1))
    if (frames_[frame_index_[at]] == frame) return frame_index_[at];
  frame_index_[at] = static_cast<uint32_t>(frames_.size());
  frames_.push_back(frame);
  return frame_index_[at];
}

ByteSet MatchStates::LiveOf(const Reading& reading) const {
  ByteSet live =
      grammar_->automata()[reading.automaton]->Live(static_cast<uint16_t>(reading.state));
  if (!reading.counted() || reading.state != inside_string_) return live;
  const bool may_close = reading.min == 0;
  if (reading.max == 0) {
    live = {};
    if (may_close) live.Add('"');
  } else if (!may_close) {
    live.words['"' / 64] &= ~(uint64_t{1} << ('"' % 64));
  }
  return live;
}

void MatchStates::Begin() {
  found_.clear();
  open_.clear();
  found_end_ = found_outside_ = too_many_ = false;
  ++round_;
  seen_count_ = 0;
}

bool MatchStates::IsNew(const Work& work) {
  const auto hash_of = [](const Work& w) { return Mix(Mix(Mix(2, w.node), w.value), w.stack); };
  if (seen_count_ * 2 > seen_.size()) {
    std::vector<Seen> larger(seen_.size() * 2);
    for (const Seen& seen : seen_) {
      if (seen.round != round_) continue;
      size_t at = hash_of(seen.work) & (larger.size() - 1);
      while (larger[at].round == round_) at = (at + 1) & (larger.size() - 1);
      larger[at] = seen;
    }
    seen_ = std::move(larger);
  }
  size_t at = hash_of(work) & (seen_.size() - 1);
  for (; seen_[at].round == round_; at = (at + 1) & (seen_.size() - 1)) {
    const Work& seen = seen_[at].work;
    if (seen.node == work.node && seen.value == work.value && seen.stack == work.stack)
      return false;
  }
  seen_[at] = {round_, work};
  ++seen_count_;
  return true;
}

void MatchStates::Add(const Reading& reading) {
  if (found_.size() >= limits::kGrammarReadingsMax) {
    too_many_ = true;
    return;
  }
  found_.push_back(reading);
}

void MatchStates::Continue(Stack stack) {
  if (stack == kEnd)
    found_end_ = true;
  else if (stack == kOutside)
    found_outside_ = true;
  else
    open_.push_back({frames_[stack].node, frames_[stack].value, frames_[stack].below});
}

void MatchStates::Expand() {
  using Kind = Grammar::Kind;
  while (!open_.empty() && !too_many_) {
    const Work work = open_.back();
    open_.pop_back();
    if (!IsNew(work)) continue;
    if (seen_count_ > limits::kGrammarExpandMax) too_many_ = true;
    const Grammar::Node& node = grammar_->nodes()[work.node];
    switch (node.kind) {
      case Kind::kEmpty:
        Continue(work.stack);
        break;
      case Kind::kLeaf: {
        const Automaton& automaton = *grammar_->automata()[node.first];
        const Reading reading = {node.first, Automaton::kStart, node.counted ? node.min : 0,
                                 node.counted ? node.max : Grammar::kNoBound, work.stack};
        if (!automaton.Live(Automaton::kStart).empty()) Add(reading);
        if (automaton.Accepts(Automaton::kStart)) Continue(work.stack);
        break;
      }
      case Kind::kSequence: {
        const uint32_t part = grammar_->parts()[node.first + work.value];
        const bool last = work.value + 1 == node.count;
        open_.push_back({part, 0, last ? work.stack : Push(work.stack, work.node, work.value + 1)});
        break;
      }
      case Kind::kChoice:
        for (uint32_t i = 0; i < node.count; ++i)
          open_.push_back({grammar_->parts()[node.first + i], 0, work.stack});
        break;
      case Kind::kRepeat: {
        if (work.value >= node.min) Continue(work.stack);
        if (work.value >= node.max) break;
        // Without an upper bound, it is enough to know that the lower one is reached.
        uint32_t begun = work.value + 1;
        if (node.max == Grammar::kNoBound) begun = std::min(begun, node.min);
        open_.push_back({node.first, 0, Push(work.stack, work.node, begun)});
        break;
      }
      case Kind::kRule:
        open_.push_back({node.first, 0, work.stack});
        break;
    }
  }
}

MatchStates::State MatchStates::Finish() {
  if (too_many_) return kDead;
  std::sort(found_.begin(), found_.end());
  found_.erase(std::unique(found_.begin(), found_.end()), found_.end());
  if (found_.empty() && !found_end_ && !found_outside_) return kDead;

  const auto hash_of = [](std::span<const Reading> readings, bool can_end, bool outside) {
    uint64_t hash = Mix(3, (can_end ? 1 : 0) + (outside ? 2 : 0));
    for (const Reading& r : readings) {
      hash = Mix(hash, uint64_t{r.automaton} << 32 | r.state);
      hash = Mix(hash, uint64_t{r.min} << 32 | r.max);
      hash = Mix(hash, r.stack);
    }
    return hash;
  };
  if (states_.size() * 2 > state_index_.size()) {
    std::vector<uint32_t> larger(state_index_.size() * 2, 0);
    for (State id = 1; id < states_.size(); ++id) {
      size_t at =
          hash_of(ReadingsOf(id), states_[id].can_end, states_[id].outside) & (larger.size() - 1);
      while (larger[at] != 0) at = (at + 1) & (larger.size() - 1);
      larger[at] = id;
    }
    state_index_ = std::move(larger);
  }
  size_t at = hash_of(found_, found_end_, found_outside_) & (state_index_.size() - 1);
  for (; state_index_[at] != 0; at = (at + 1) & (state_index_.size() - 1)) {
    const State id = state_index_[at];
    if (states_[id].can_end == found_end_ && states_[id].outside == found_outside_ &&
        std::ranges::equal(ReadingsOf(id), found_))
      return id;
  }
  const auto id = static_cast<State>(states_.size());
  state_index_[at] = id;
  Info info;
  info.begin = static_cast<uint32_t>(readings_.size());
  info.count = static_cast<uint32_t>(found_.size());
  info.can_end = found_end_;
  info.outside = found_outside_;
  for (const Reading& reading : found_) info.live.Merge(LiveOf(reading));
  readings_.insert(readings_.end(), found_.begin(), found_.end());
  states_.push_back(info);
  return id;
}

MatchStates::State MatchStates::Start() {
  Begin();
  open_.push_back({grammar_->root(), 0, kEnd});
  Expand();
  return Finish();
}

MatchStates::State MatchStates::Of(std::span<const Reading> readings) {
  Begin();
  for (const Reading& reading : readings) Add(reading);
  return Finish();
}

MatchStates::State MatchStates::After(Stack stack) {
  const auto known = after_.find(stack);
  if (known != after_.end()) return known->second;
  Begin();
  Continue(stack);
  Expand();
  const State state = Finish();
  after_.emplace(stack, state);
  return state;
}

MatchStates::State MatchStates::MakeStep(State from, uint8_t byte) {
  Begin();
  for (uint32_t i = 0; i < states_[from].count; ++i) {
    Reading reading = readings_[states_[from].begin + i];
    const Automaton& automaton = *grammar_->automata()[reading.automaton];
    if (reading.counted() && reading.state == inside_string_) {
      if (byte == '"') {
        if (reading.min > 0) continue;
        reading.max = Grammar::kNoBound;  // nothing is counted any more
      } else {
        if (reading.max == 0) continue;
        if (reading.min > 0) --reading.min;
        if (reading.max != Grammar::kNoBound) --reading.max;
      }
    }
    const uint16_t to = automaton.Next(static_cast<uint16_t>(reading.state), byte);
    if (to == Automaton::kDead) continue;
    reading.state = to;
    if (!automaton.Live(to).empty()) Add(reading);
    if (automaton.Accepts(to)) Continue(reading.stack);
  }
  Expand();
  const State to = Finish();
  Info& info = states_[from];
  if (info.row == kNoRow && info.few < kFew) {
    info.few_bytes[info.few] = byte;
    info.few_states[info.few++] = to;
    return to;
  }
  if (info.row == kNoRow) {
    info.row = static_cast<uint32_t>(rows_.size());
    rows_.resize(rows_.size() + static_cast<size_t>(info.live.size()), kUnknown);
    for (int i = 0; i < info.few; ++i)
      rows_[info.row + static_cast<size_t>(info.live.Rank(info.few_bytes[i]))] = info.few_states[i];
  }
  rows_[info.row + static_cast<size_t>(info.live.Rank(byte))] = to;
  return to;
}

MatchStates::State MatchStates::Import(const MatchStates& from, State state) {
  Begin();
  found_end_ = from.CanEnd(state);
  std::vector<Stack> path;
  for (Reading reading : from.ReadingsOf(state)) {
    path.clear();
    for (Stack s = reading.stack; s > kOutside; s = from.frames_[s].below) path.push_back(s);
    Stack stack = kEnd;
    while (!path.empty()) {
      const Frame& frame = from.frames_[path.back()];
      stack = Push(stack, frame.node, frame.value);
      path.pop_back();
    }
    reading.stack = stack;
    Add(reading);
  }
  return Finish();
}

size_t MatchStates::memory_bytes() const {
  size_t bytes = sizeof(MatchStates) + grammar_bytes_ + frames_.capacity() * sizeof(Frame) +
                 readings_.capacity() * sizeof(Reading) + states_.capacity() * sizeof(Info) +
                 rows_.capacity() * sizeof(State) + after_.size() * 48 +
                 (frame_index_.capacity() + state_index_.capacity()) * 4 +
                 seen_.capacity() * sizeof(Seen);
  if (!masks_.empty()) bytes += masks_.size() * (masks_.begin()->second.capacity() * 8 + 64);
  return bytes;
}

void MatchStates::Retire() {
  retired_ = true;
  masks_.clear();
  after_ = {};
  rows_ = {};
  seen_ = std::vector<Seen>(64);
  frame_index_ = {};
  state_index_ = {};
  for (Info& info : states_) {
    info.row = kNoRow;
    info.few = 0;
  }
}

}  // namespace perdure::text
