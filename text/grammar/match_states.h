// Where matching may stand: sets of readings, made as they are reached and kept, so that going on
// with a byte is mostly one look-up.
//
// A reading is a state of a leaf's automaton with a stack of what follows the leaf. Equal stacks,
// and equal sets, are one: the whole is a pushdown automaton made deterministic on demand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar/byte_set.h"
#include "text/grammar/grammar.h"

namespace perdure::text {

// Not thread-safe.
class MatchStates {
 public:
  using State = uint32_t;
  static constexpr State kDead = 0;
  using Stack = uint32_t;
  static constexpr Stack kEnd = 0;      // nothing follows: the grammar's end
  static constexpr Stack kOutside = 1;  // what follows is not looked at

  struct Reading {
    uint32_t automaton;
    uint32_t state;
    uint32_t min, max;  // characters that a counted string still needs, and has room for
    Stack stack;
    auto operator<=>(const Reading&) const = default;
    bool counted() const { return min != 0 || max != Grammar::kNoBound; }
  };

  explicit MatchStates(GrammarPtr grammar);

  const GrammarPtr& grammar() const { return grammar_; }
  State Start();
  // Where `byte` leads from `from`, which is not kDead.
  State Step(State from, uint8_t byte) {
    if (!states_[from].live.Has(byte)) return kDead;
    const Info& info = states_[from];
    if (info.row != kNoRow) {
      const State known = rows_[info.row + static_cast<size_t>(info.live.Rank(byte))];
      if (known != kUnknown) return known;
    } else {
      for (int i = 0; i < info.few; ++i)
        if (info.few_bytes[i] == byte) return info.few_states[i];
    }
    return MakeStep(from, byte);
  }
  bool CanEnd(State state) const { return states_[state].can_end; }
  // A reading that began with the stack kOutside has ended here.
  bool IsOutside(State state) const { return states_[state].outside; }
  const ByteSet& Live(State state) const { return states_[state].live; }
  std::span<const Reading> ReadingsOf(State state) const {
    return {readings_.data() + states_[state].begin, states_[state].count};
  }
  // The state of exactly these readings.
  State Of(std::span<const Reading> readings);
  // What may come when a leaf with this stack behind it has ended.
  State After(Stack stack);
  ByteSet LiveOf(const Reading& reading) const;
  // The same state among those of another MatchStates of the same grammar.
  State Import(const MatchStates& from, State state);

  // The whole mask of a state, if it was kept. `times` counts how often it was asked for.
  std::vector<uint64_t>& MaskOf(State state) { return masks_[state]; }
  const std::vector<uint64_t>* FindMask(State state) const {
    const auto found = masks_.find(state);
    return found == masks_.end() ? nullptr : &found->second;
  }
  uint32_t CountAsked(State state) { return ++states_[state].asked; }

  // The grammar's own included.
  size_t memory_bytes() const;
  // Another MatchStates takes its place: what was kept for speed is dropped.
  void Retire();
  bool retired() const { return retired_; }

 private:
  static constexpr uint32_t kNoRow = 0xFFFFFFFF;
  static constexpr State kUnknown = 0xFFFFFFFF;
  static constexpr int kFew = 4;

  struct Frame {
    Stack below;
    uint32_t node;
    uint32_t value;  // sequence: the next part; repetition: how many were begun
    bool operator==(const Frame&) const = default;
  };
  struct Info {
    ByteSet live;
    uint32_t begin = 0, count = 0;  // of readings_
    uint32_t row = kNoRow;          // in rows_: by rank among `live`
    uint32_t asked = 0;
    State few_states[kFew] = {};
    uint8_t few_bytes[kFew] = {};
    uint8_t few = 0;
    bool can_end = false;
    bool outside = false;
  };
  // What is left to look through to find what may come: a node, with how far it has come.
  struct Work {
    uint32_t node;
    uint32_t value;
    Stack stack;
  };

  State MakeStep(State from, uint8_t byte);
  Stack Push(Stack below, uint32_t node, uint32_t value);
  // Begin, …, Finish: collects readings and makes their state.
  void Begin();
  void Add(const Reading& reading);
  void Continue(Stack stack);
  void Expand();
  State Finish();
  // False if this work was done since Begin.
  bool IsNew(const Work& work);

  GrammarPtr grammar_;
  size_t grammar_bytes_;
  uint32_t inside_string_;
  std::vector<Frame> frames_;
  std::vector<uint32_t> frame_index_;  // open addressing
  std::vector<Reading> readings_;
  std::vector<Info> states_;
  std::vector<uint32_t> state_index_;
  std::vector<State> rows_;
  std::unordered_map<Stack, State> after_;
  std::unordered_map<State, std::vector<uint64_t>> masks_;
  size_t mask_bytes_ = 0;
  bool retired_ = false;

  // Scratch.
  std::vector<Reading> found_;
  std::vector<Work> open_;
  struct Seen {
    uint32_t round = 0;
    Work work = {};
  };
  std::vector<Seen> seen_;
  uint32_t round_ = 0;
  size_t seen_count_ = 0;
  bool found_end_ = false, found_outside_ = false, too_many_ = false;
};

}  // namespace perdure::text
