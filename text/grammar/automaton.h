// Deterministic automata over bytes: what the grammar's leaves match.
//
// Each is minimal (unless that would take too long) and its states are numbered breadth first, so
// that automata of one language are equal. From every state an accepting one can be reached: what
// has begun can always be ended.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "text/grammar/byte_set.h"

namespace perdure::text {

// What may still be spent on automata; one for all of a grammar's. Whoever makes one stops when it
// is used up.
struct AutomatonBudget {
  int64_t work = limits::kAutomatonWorkMax;
  size_t states = limits::kGrammarAutomatonStatesMax;

  bool Spend(int64_t steps) { return (work -= steps) >= 0; }
};

// invalid_request: "too large: …", without a subject, which the caller puts before it.
tl::unexpected<Error> AutomatonTooLarge();

// An automaton while it is made. States are numbered from 0, where it starts.
struct AutomatonRows {
  static constexpr uint16_t kDead = 0xFFFF;
  std::vector<std::array<uint16_t, 256>> next;
  std::vector<bool> accepting;

  // A state that leads nowhere.
  uint16_t Add(bool accepts);
  size_t size() const { return next.size(); }
};

// Immutable and thread-safe.
class Automaton {
 public:
  static constexpr uint16_t kDead = AutomatonRows::kDead;
  static constexpr uint16_t kStart = 0;

  // Trims and minimizes. An automaton that matches nothing is empty().
  static Result<std::shared_ptr<const Automaton>> Make(AutomatonRows rows, AutomatonBudget* budget);
  // Exactly these texts; there is one at least.
  static Result<std::shared_ptr<const Automaton>> OfTexts(std::vector<std::string> texts,
                                                          AutomatonBudget* budget);

  bool empty() const { return accepting_.empty(); }
  size_t states() const { return accepting_.size(); }
  uint16_t Next(uint16_t state, uint8_t byte) const {
    return next_[state * classes_ + class_of_[byte]];
  }
  bool Accepts(uint16_t state) const { return accepting_[state] != 0; }
  // The bytes that lead on.
  const ByteSet& Live(uint16_t state) const { return live_[state]; }
  // Every plain text (token_table.h) leads from this state back to it, and past no accepting one.
  bool TakesPlainText(uint16_t state) const { return plain_[state] != 0; }
  size_t memory_bytes() const {
    return sizeof(Automaton) + next_.size() * 2 + states() * (2 + sizeof(ByteSet));
  }
  // The whole text.
  bool Matches(std::string_view text) const;
  // Identifies what is matched, among all automata.
  const std::array<uint64_t, 2>& fingerprint() const { return fingerprint_; }

 private:
  void FindPlain();

  size_t classes_ = 0;
  std::array<uint8_t, 256> class_of_ = {};
  std::vector<uint16_t> next_;  // [state][class]
  std::vector<uint8_t> accepting_;
  std::vector<uint8_t> plain_;
  std::vector<ByteSet> live_;
  std::array<uint64_t, 2> fingerprint_ = {};
};

using AutomatonPtr = std::shared_ptr<const Automaton>;

// What both match; what `left` matches and `right` does not.
Result<AutomatonPtr> Intersect(const Automaton& left, const Automaton& right,
                               AutomatonBudget* budget);
Result<AutomatonPtr> Subtract(const Automaton& left, const Automaton& right,
                              AutomatonBudget* budget);

}  // namespace perdure::text
