#include "text/grammar/automaton.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <span>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "text/grammar/code_point_set.h"

namespace perdure::text {
namespace {

constexpr uint16_t kDead = Automaton::kDead;

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9E3779B97F4A7C15 + (hash << 6) + (hash >> 2);
  hash *= 0xBF58476D1CE4E5B9;
  return hash ^ (hash >> 29);
}

// Bytes that no state tells apart share a class; classes are numbered by their first bytes.
size_t FindClasses(const AutomatonRows& rows, std::array<uint8_t, 256>* class_of) {
  std::array<uint64_t, 256> hash = {};
  for (const auto& row : rows.next)
    for (size_t byte = 0; byte < 256; ++byte) hash[byte] = Mix(hash[byte], row[byte]);
  std::unordered_map<uint64_t, size_t> first;  // byte with this hash
  size_t count = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    const size_t same = first.emplace(hash[byte], byte).first->second;
    // Equal hashes of different columns would be met by accident, or by somebody who sought them.
    const bool equal =
        same != byte && std::all_of(rows.next.begin(), rows.next.end(),
                                    [&](const auto& row) { return row[byte] == row[same]; });
    (*class_of)[byte] = equal ? (*class_of)[same] : static_cast<uint8_t>(count++);
  }
  return count;
}

// Which states can reach an accepting one.
std::vector<bool> FindUseful(const AutomatonRows& rows) {
  std::vector<std::vector<uint16_t>> from(rows.size());
  for (size_t state = 0; state < rows.size(); ++state) {
    uint16_t before = kDead;
    for (const uint16_t to : rows.next[state]) {
      if (to == kDead || to == before) continue;
      from[to].push_back(static_cast<uint16_t>(state));
      before = to;
    }
  }
  std::vector<bool> useful = rows.accepting;
  std::vector<uint16_t> open;
  for (size_t state = 0; state < rows.size(); ++state)
    if (useful[state]) open.push_back(static_cast<uint16_t>(state));
  while (!open.empty()) {
    const uint16_t state = open.back();
    open.pop_back();
    for (const uint16_t before : from[state]) {
      if (useful[before]) continue;
      useful[before] = true;
      open.push_back(before);
    }
  }
  return useful;
}

// No two states of a block are told apart by what they accept or where they lead.
bool IsStable(const AutomatonRows& rows, std::span<const uint8_t> bytes,
              const std::vector<uint16_t>& block) {
  std::vector<uint16_t> first(rows.size(), kDead);  // state of each block
  for (size_t state = 0; state < rows.size(); ++state) {
    uint16_t& other = first[block[state]];
    if (other == kDead) other = static_cast<uint16_t>(state);
    if (rows.accepting[state] != rows.accepting[other]) return false;
    for (const uint8_t byte : bytes) {
      const uint16_t a = rows.next[state][byte], b = rows.next[other][byte];
      if ((a == kDead) != (b == kDead) || (a != kDead && block[a] != block[b])) return false;
    }
  }
  return true;
}

// Moore's refinement: the block of each state. Identity where the budget does not allow it.
std::vector<uint16_t> FindBlocks(const AutomatonRows& rows, std::span<const uint8_t> bytes,
                                 AutomatonBudget* budget) {
  const size_t count = rows.size();
  std::vector<uint16_t> block(count);
  for (size_t state = 0; state < count; ++state) block[state] = rows.accepting[state] ? 1 : 0;
  size_t blocks = 0;
  std::unordered_map<uint64_t, uint16_t> ids;
  std::vector<uint16_t> next_block(count);
  // Some milliseconds at most: large ones seldom become smaller, and work as they are.
  int64_t steps = std::min<int64_t>(budget->work / 4, 300'000);
  for (;;) {
    const auto cost = static_cast<int64_t>(count * bytes.size() / 4 + count * 6);
    steps -= cost;
    if (steps < 0) {
      for (size_t state = 0; state < count; ++state) block[state] = static_cast<uint16_t>(state);
      return block;
    }
    budget->work -= cost;
    ids.clear();
    for (size_t state = 0; state < count; ++state) {
      uint64_t hash = block[state];
      for (const uint8_t byte : bytes) {
        const uint16_t to = rows.next[state][byte];
        hash = Mix(hash, to == kDead ? kDead : block[to]);
      }
      next_block[state] = ids.emplace(hash, static_cast<uint16_t>(ids.size())).first->second;
    }
    block.swap(next_block);
    if (ids.size() == blocks && IsStable(rows, bytes, block)) return block;
    // Never so with hashes that differ as their rows do.
    if (ids.size() <= blocks) steps = 0;
    blocks = ids.size();
  }
}

template <class AcceptOf>
Result<AutomatonPtr> Product(const Automaton& left, const Automaton& right, bool right_may_die,
                             AcceptOf accept_of, AutomatonBudget* budget) {
  AutomatonRows rows;
  if (left.empty()) return Automaton::Make(std::move(rows), budget);
  std::unordered_map<uint32_t, uint16_t> ids;
  std::vector<std::pair<uint16_t, uint16_t>> pairs;
  const auto id_of = [&](uint16_t a, uint16_t b) -> uint16_t {
    const auto [entry, is_new] =
        ids.emplace(uint32_t{a} << 16 | b, static_cast<uint16_t>(pairs.size()));
    if (is_new) {
      pairs.emplace_back(a, b);
      rows.Add(accept_of(a, b));
    }
    return entry->second;
  };
  id_of(Automaton::kStart, right.empty() ? kDead : Automaton::kStart);
  for (size_t at = 0; at < pairs.size(); ++at) {
    if (pairs.size() > limits::kAutomatonStatesMax || !budget->Spend(160))
      return AutomatonTooLarge();
    const auto [a, b] = pairs[at];
    for (int byte = 0; byte < 256; ++byte) {
      const uint16_t to_a = left.Next(a, static_cast<uint8_t>(byte));
      if (to_a == kDead) continue;
      const uint16_t to_b = b == kDead ? kDead : right.Next(b, static_cast<uint8_t>(byte));
      if (to_b == kDead && !right_may_die) continue;
      const uint16_t to = id_of(to_a, to_b);
      rows.next[at][static_cast<size_t>(byte)] = to;
    }
  }
  return Automaton::Make(std::move(rows), budget);
}

}  // namespace

tl::unexpected<Error> AutomatonTooLarge() {
  return Err(ErrorCode::invalid_request,
             "too large: what is allowed takes too many states to be told apart");
}

uint16_t AutomatonRows::Add(bool accepts) {
  CHECK(next.size() < kDead);
  next.emplace_back().fill(kDead);
  accepting.push_back(accepts);
  return static_cast<uint16_t>(next.size() - 1);
}

Result<AutomatonPtr> Automaton::Make(AutomatonRows rows, AutomatonBudget* budget) {
  auto made = std::make_shared<Automaton>();
  if (rows.size() == 0) return made;
  if (!budget->Spend(static_cast<int64_t>(rows.size()) * 80)) return AutomatonTooLarge();
  const std::vector<bool> useful = FindUseful(rows);
  if (!useful[kStart]) return made;
  for (auto& row : rows.next)
    for (uint16_t& to : row)
      if (to != kDead && !useful[to]) to = kDead;

  std::array<uint8_t, 256> first_classes = {};
  const size_t count = FindClasses(rows, &first_classes);
  std::vector<uint8_t> representative(count);
  for (int byte = 255; byte >= 0; --byte)
    representative[first_classes[static_cast<size_t>(byte)]] = static_cast<uint8_t>(byte);
  const std::vector<uint16_t> block = FindBlocks(rows, representative, budget);

  // Breadth first, in the order of bytes.
  std::vector<uint16_t> number(rows.size(), kDead);
  std::vector<uint16_t> order = {kStart};
  number[block[kStart]] = 0;
  for (size_t at = 0; at < order.size(); ++at) {
    for (const uint8_t byte : representative) {
      const uint16_t to = rows.next[order[at]][byte];
      if (to == kDead || number[block[to]] != kDead) continue;
      number[block[to]] = static_cast<uint16_t>(order.size());
      order.push_back(to);
    }
  }
  if (order.size() > budget->states) return AutomatonTooLarge();
  budget->states -= order.size();

  AutomatonRows least;
  for (const uint16_t state : order) {
    least.Add(rows.accepting[state]);
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint16_t to = rows.next[state][byte];
      if (to != kDead) least.next.back()[byte] = number[block[to]];
    }
  }
  made->classes_ = FindClasses(least, &made->class_of_);
  made->next_.resize(order.size() * made->classes_, kDead);
  made->live_.resize(order.size());
  made->accepting_.resize(order.size());
  for (size_t state = 0; state < order.size(); ++state) {
    made->accepting_[state] = least.accepting[state];
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint16_t to = least.next[state][byte];
      made->next_[state * made->classes_ + made->class_of_[byte]] = to;
      if (to != kDead) made->live_[state].Add(static_cast<uint8_t>(byte));
    }
  }
  made->FindPlain();
  // Classes are numbered by their first bytes, so equal automata have equal tables.
  std::string bytes(reinterpret_cast<const char*>(made->class_of_.data()), 256);
  bytes.append(reinterpret_cast<const char*>(made->next_.data()), made->next_.size() * 2);
  bytes.append(reinterpret_cast<const char*>(made->accepting_.data()), made->accepting_.size());
  made->fingerprint_[0] = Hash64(bytes);
  bytes += "second";
  made->fingerprint_[1] = Hash64(bytes);
  return made;
}

Result<AutomatonPtr> Automaton::OfTexts(std::vector<std::string> texts, AutomatonBudget* budget) {
  AutomatonRows rows;
  rows.Add(false);
  for (const std::string& text : texts) {
    uint16_t state = kStart;
    for (const char c : text) {
      uint16_t to = rows.next[state][static_cast<uint8_t>(c)];
      if (to == kDead) {
        if (rows.size() >= limits::kAutomatonStatesMax || !budget->Spend(16))
          return AutomatonTooLarge();
        to = rows.Add(false);
        rows.next[state][static_cast<uint8_t>(c)] = to;
      }
      state = to;
    }
    rows.accepting[state] = true;
  }
  return Make(std::move(rows), budget);
}

bool Automaton::Matches(std::string_view text) const {
  if (empty()) return false;
  uint16_t state = kStart;
  for (const char c : text) {
    state = Next(state, static_cast<uint8_t>(c));
    if (state == kDead) return false;
  }
  return Accepts(state);
}

void Automaton::FindPlain() {
  // Plain characters: all but control characters, '"' and '\', which JSON escapes.
  static const std::vector<std::vector<ByteRange>> sequences = [] {
    std::vector<std::vector<ByteRange>> all;
    const auto add = [&all](std::span<const ByteRange> ranges) {
      all.emplace_back(ranges.begin(), ranges.end());
    };
    const CodePointSet plain =
        CodePointSet::All().Without(0, 0x1F).Without('"', '"').Without('\\', '\\');
    for (const auto& [first, last] : plain.ranges()) ForEachUtf8Sequence(first, last, add);
    return all;
  }();
  plain_.resize(states());
  for (size_t state = 0; state < states(); ++state) {
    const auto home = static_cast<uint16_t>(state);
    const auto leads_home = [&](const std::vector<ByteRange>& ranges) {
      std::vector<uint16_t> now = {home};
      for (const ByteRange& range : ranges) {
        std::vector<uint16_t> after;
        for (const uint16_t from : now) {
          for (int byte = range.first; byte <= range.last; ++byte) {
            const uint16_t to = Next(from, static_cast<uint8_t>(byte));
            if (to == kDead || Accepts(to)) return false;
            if (std::find(after.begin(), after.end(), to) == after.end()) after.push_back(to);
          }
        }
        now = std::move(after);
      }
      return now.size() == 1 && now[0] == home;
    };
    plain_[state] = !Accepts(home) && Next(home, 'a') == home &&
                    std::all_of(sequences.begin(), sequences.end(), leads_home);
  }
}

Result<AutomatonPtr> Intersect(const Automaton& left, const Automaton& right,
                               AutomatonBudget* budget) {
  return Product(
      left, right, false,
      [&](uint16_t a, uint16_t b) { return b != kDead && left.Accepts(a) && right.Accepts(b); },
      budget);
}

Result<AutomatonPtr> Subtract(const Automaton& left, const Automaton& right,
                              AutomatonBudget* budget) {
  return Product(
      left, right, true,
      [&](uint16_t a, uint16_t b) { return left.Accepts(a) && (b == kDead || !right.Accepts(b)); },
      budget);
}

}  // namespace perdure::text
