#include "text/grammar/regular.h"

#include <algorithm>
#include <map>
#include <span>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "text/grammar/json_spelling.h"
#include "text/json_escape.h"

namespace perdure::text {

// States that pass one range of bytes on, or none; built from the end, so that each knows what
// follows it.
class NfaMaker {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  static constexpr uint32_t kAccept = 0;
  struct State {
    bool eats = false;  // bytes first … last; else both ways are free
    uint8_t first = 0, last = 0;
    uint32_t to = kNone, also = kNone;
  };

  NfaMaker(const RegularTree& tree, Spelling spelling, AutomatonBudget* budget)
      : tree_(tree), spelling_(spelling), budget_(budget) {
    states_.push_back({});
  }

  // Where to begin to match `id` and go on at `next`; kNone where nothing matches.
  uint32_t Make(RegularTree::Id id, uint32_t next) {
    if (next == kNone || failed_) return kNone;
    const RegularTree::Node& node = tree_.nodes_[id];
    using Kind = RegularTree::Kind;
    switch (node.kind) {
      case Kind::kEmpty:
        return next;
      case Kind::kNever:
        return kNone;
      case Kind::kBytes:
        return MakeBytes(tree_.byte_sets_[node.first], next);
      case Kind::kCharacters:
        return MakeCharacters(tree_.character_sets_[node.first], next);
      case Kind::kSequence:
        for (uint32_t i = node.count; i-- > 0;) next = Make(tree_.parts_[node.first + i], next);
        return next;
      case Kind::kChoice: {
        uint32_t all = kNone;
        for (uint32_t i = node.count; i-- > 0;)
          all = Fork(Make(tree_.parts_[node.first + i], next), all);
        return all;
      }
      case Kind::kRepeat:
        return MakeRepeat(tree_.parts_[node.first], node.min, node.max, next);
    }
    return kNone;
  }

  bool failed() const { return failed_; }
  const std::vector<State>& states() const { return states_; }

 private:
  uint32_t Add(State state) {
    if (states_.size() >= limits::kAutomatonNfaStatesMax || !budget_->Spend(4)) failed_ = true;
    if (failed_) return kNone;
    states_.push_back(state);
    return static_cast<uint32_t>(states_.size() - 1);
  }
  uint32_t Fork(uint32_t left, uint32_t right) {
    if (left == kNone) return right;
    if (right == kNone) return left;
    return Add({.to = left, .also = right});
  }
  uint32_t Eat(uint8_t first, uint8_t last, uint32_t next) {
    return Add({.eats = true, .first = first, .last = last, .to = next});
  }
  uint32_t MakeBytes(const ByteSet& set, uint32_t next) {
    uint32_t all = kNone;
    for (int byte = 0; byte < 256; ++byte) {
      if (!set.Has(static_cast<uint8_t>(byte))) continue;
      const int first = byte;
      while (byte + 1 < 256 && set.Has(static_cast<uint8_t>(byte + 1))) ++byte;
      all = Fork(Eat(static_cast<uint8_t>(first), static_cast<uint8_t>(byte), next), all);
    }
    return all;
  }
  uint32_t MakeCharacters(const CodePointSet& set, uint32_t next) {
    uint32_t all = kNone;
    std::map<std::tuple<uint8_t, uint8_t, uint32_t>, uint32_t> shared;  // ends of sequences
    const auto add = [&](std::span<const ByteRange> ranges) {
      uint32_t state = next;
      for (size_t i = ranges.size(); i-- > 0;) {
        const auto key = std::tuple(ranges[i].first, ranges[i].last, state);
        const auto known = shared.find(key);
        if (known != shared.end()) {
          state = known->second;
          continue;
        }
        state = Eat(ranges[i].first, ranges[i].last, state);
        shared.emplace(key, state);
      }
      all = Fork(state, all);
    };
    const bool json = spelling_ == Spelling::kJson;
    const CodePointSet raw = json ? UnescapedInJson(set) : set;
    for (const auto& [first, last] : raw.ranges()) {
      if (failed_) return kNone;
      ForEachUtf8Sequence(first, last, add);
    }
    if (!json) return all;
    return Fork(MakeEscapes(EscapedInJson(set), next), all);
  }
  // Sharing their beginnings: \n, \t …, \u00xx.
  uint32_t MakeEscapes(const std::vector<uint32_t>& characters, uint32_t next) {
    ByteSet short_ones, low[2];  // by the digit before the last
    for (const uint32_t c : characters) {
      const std::string text = JsonEscapeOf(c);
      if (text.size() == 2)
        short_ones.Add(static_cast<uint8_t>(text[1]));
      else
        low[c >> 4].Add(static_cast<uint8_t>(text.back()));
    }
    uint32_t digits = kNone;
    for (const uint8_t high : {0, 1}) {
      const uint32_t last = MakeBytes(low[high], next);
      const auto digit = static_cast<uint8_t>('0' + high);
      if (last != kNone) digits = Fork(Eat(digit, digit, last), digits);
    }
    for (const char c : {'0', '0', 'u'})
      if (digits != kNone) digits = Eat(static_cast<uint8_t>(c), static_cast<uint8_t>(c), digits);
    const uint32_t behind = Fork(MakeBytes(short_ones, next), digits);
    return behind == kNone ? kNone : Eat('\\', '\\', behind);
  }
  uint32_t MakeRepeat(RegularTree::Id part, uint32_t min, uint32_t max, uint32_t next) {
    uint32_t entry = next;
    if (max == RegularTree::kNoBound) {
      const uint32_t loop = Add({});
      if (failed_) return kNone;
      const uint32_t body = Make(part, loop);
      if (failed_) return kNone;
      states_[loop].to = next;
      states_[loop].also = body;
      entry = loop;
    } else {
      for (uint32_t i = min; i < max && !failed_; ++i) entry = Fork(Make(part, entry), next);
    }
    for (uint32_t i = 0; i < min && !failed_ && entry != kNone; ++i) entry = Make(part, entry);
    return entry;
  }

  const RegularTree& tree_;
  Spelling spelling_;
  AutomatonBudget* budget_;
  std::vector<State> states_;
  bool failed_ = false;
};

namespace {

struct SetHash {
  size_t operator()(const std::vector<uint32_t>& set) const {
    uint64_t hash = set.size();
    for (const uint32_t member : set) {
      hash = (hash ^ member) * 0x9E3779B97F4A7C15;
      hash ^= hash >> 31;
    }
    return hash;
  }
};

// The subset construction.
class Determinizer {
 public:
  Determinizer(const std::vector<NfaMaker::State>& nfa, AutomatonBudget* budget)
      : nfa_(nfa), budget_(budget), seen_(nfa.size(), 0) {}

  Result<AutomatonPtr> Run(uint32_t start) {
    Close({&start, 1});
    IdOf(closed_);
    for (size_t at = 0; at < sets_.size(); ++at) {
      if (failed_ || sets_.size() > limits::kAutomatonStatesMax) return AutomatonTooLarge();
      FillRow(at);
    }
    if (failed_) return AutomatonTooLarge();
    return Automaton::Make(std::move(rows_), budget_);
  }

 private:
  // closed_ = the states that eat, or accept, to which `from` leads for free.
  void Close(std::span<const uint32_t> from) {
    closed_.clear();
    ++round_;
    open_.assign(from.begin(), from.end());
    while (!open_.empty()) {
      const uint32_t state = open_.back();
      open_.pop_back();
      if (state == NfaMaker::kNone || seen_[state] == round_) continue;
      seen_[state] = round_;
      if (!budget_->Spend(1)) {
        failed_ = true;
        return;
      }
      if (nfa_[state].eats || state == NfaMaker::kAccept) {
        closed_.push_back(state);
      } else {
        open_.push_back(nfa_[state].to);
        open_.push_back(nfa_[state].also);
      }
    }
    std::sort(closed_.begin(), closed_.end());
  }

  uint16_t IdOf(const std::vector<uint32_t>& set) {
    if (set.empty()) return AutomatonRows::kDead;
    const auto [entry, is_new] = ids_.emplace(set, static_cast<uint16_t>(ids_.size()));
    if (is_new) {
      if (ids_.size() > limits::kAutomatonStatesMax) {
        failed_ = true;
        return AutomatonRows::kDead;
      }
      sets_.push_back(&entry->first);
      rows_.Add(set.front() == NfaMaker::kAccept);
    }
    return entry->second;
  }

  void FillRow(size_t at) {
    // Where ranges begin and end; between two such places all bytes lead to the same.
    std::vector<uint32_t> set = *sets_[at];
    if (!budget_->Spend(static_cast<int64_t>(set.size()) + 16)) {
      failed_ = true;
      return;
    }
    bool bounds[257] = {};
    for (const uint32_t state : set) {
      if (!nfa_[state].eats) continue;
      bounds[nfa_[state].first] = true;
      bounds[nfa_[state].last + 1] = true;
    }
    std::vector<uint32_t> targets;
    // Ranges that lead to the same are many: the letters around an escaped character.
    std::vector<std::pair<std::vector<uint32_t>, uint16_t>> known;
    for (int first = 0; first < 256 && !failed_;) {
      int end = first + 1;
      while (end < 256 && !bounds[end]) ++end;
      targets.clear();
      for (const uint32_t state : set)
        if (nfa_[state].eats && nfa_[state].first <= first && nfa_[state].last >= first)
          targets.push_back(nfa_[state].to);
      if (!budget_->Spend(static_cast<int64_t>(set.size()) / 4 + 1)) failed_ = true;
      if (!targets.empty()) {
        const auto same = std::find_if(known.begin(), known.end(),
                                       [&](const auto& entry) { return entry.first == targets; });
        uint16_t to = AutomatonRows::kDead;
        if (same != known.end()) {
          to = same->second;
        } else {
          Close(targets);
          to = IdOf(closed_);
          known.emplace_back(targets, to);
        }
        for (int byte = first; byte < end; ++byte) rows_.next[at][static_cast<size_t>(byte)] = to;
      }
      first = end;
    }
  }

  const std::vector<NfaMaker::State>& nfa_;
  AutomatonBudget* budget_;
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  std::vector<uint32_t> open_, closed_;
  std::unordered_map<std::vector<uint32_t>, uint16_t, SetHash> ids_;
  std::vector<const std::vector<uint32_t>*> sets_;
  AutomatonRows rows_;
  bool failed_ = false;
};

}  // namespace

RegularTree::Id RegularTree::Add(Node node) {
  if (nodes_.size() >= limits::kAutomatonTreeNodesMax) {
    full_ = true;
    return 0;
  }
  nodes_.push_back(node);
  return static_cast<Id>(nodes_.size() - 1);
}

RegularTree::Id RegularTree::AddParts(Kind kind, const std::vector<Id>& parts) {
  const auto first = static_cast<uint32_t>(parts_.size());
  const Id id = Add({.kind = kind, .first = first, .count = static_cast<uint32_t>(parts.size())});
  if (!full_) parts_.insert(parts_.end(), parts.begin(), parts.end());
  return id;
}

RegularTree::Id RegularTree::Empty() { return Add({.kind = Kind::kEmpty}); }
RegularTree::Id RegularTree::Never() { return Add({.kind = Kind::kNever}); }

RegularTree::Id RegularTree::Bytes(ByteSet set) {
  byte_sets_.push_back(set);
  return Add({.kind = Kind::kBytes, .first = static_cast<uint32_t>(byte_sets_.size() - 1)});
}

RegularTree::Id RegularTree::Byte(uint8_t byte) { return ByteRange(byte, byte); }

RegularTree::Id RegularTree::ByteRange(uint8_t first, uint8_t last) {
  ByteSet set;
  set.AddRange(first, last);
  return Bytes(set);
}

RegularTree::Id RegularTree::Literal(std::string_view bytes) {
  std::vector<Id> parts;
  for (const char c : bytes) parts.push_back(Byte(static_cast<uint8_t>(c)));
  return Sequence(std::move(parts));
}

RegularTree::Id RegularTree::Characters(CodePointSet set) {
  character_sets_.push_back(std::move(set));
  return Add(
      {.kind = Kind::kCharacters, .first = static_cast<uint32_t>(character_sets_.size() - 1)});
}

RegularTree::Id RegularTree::Sequence(std::vector<Id> parts) {
  if (parts.size() == 1) return parts[0];
  return AddParts(Kind::kSequence, parts);
}

RegularTree::Id RegularTree::Choice(std::vector<Id> parts) {
  if (parts.size() == 1) return parts[0];
  return AddParts(Kind::kChoice, parts);
}

RegularTree::Id RegularTree::Repeat(Id part, uint32_t min, uint32_t max) {
  const Id id = AddParts(Kind::kRepeat, {part});
  nodes_[id].min = min;
  nodes_[id].max = max;
  return id;
}

Result<AutomatonPtr> RegularTree::Compile(Id root, Spelling spelling,
                                          AutomatonBudget* budget) const {
  if (full_) return AutomatonTooLarge();
  NfaMaker maker(*this, spelling, budget);
  const uint32_t start = maker.Make(root, NfaMaker::kAccept);
  if (maker.failed()) return AutomatonTooLarge();
  if (start == NfaMaker::kNone) return Automaton::Make({}, budget);
  return Determinizer(maker.states(), budget).Run(start);
}

}  // namespace perdure::text
