#include "text/grammar/mask_maker.h"

#include <algorithm>

#include "text/grammar/json_automata.h"

namespace perdure::text {
namespace {

using Reading = MatchStates::Reading;
using State = MatchStates::State;

// A leaf with fewer bytes to go on with is walked anew each time.
constexpr int kBroadLeaf = 20;
// A leaf that may end nearly anywhere gains nothing from a mask of its own.
constexpr size_t kExitsMax = 16'384;
// A mask that took so much walking is kept at once, others when they are asked for again.
constexpr size_t kLongWalk = 4000;

}  // namespace

void MaskMaker::Clear() {
  leaves_.clear();
  bytes_ = 0;
}

void MaskMaker::Fill(MatchStates& states, State state, bool keep, std::span<uint64_t> mask) {
  const size_t words = tokens_->mask_words();
  if (keep) {
    if (const auto* known = states.FindMask(state)) {
      std::copy(known->begin(), known->end(), mask.begin());
      std::fill(mask.begin() + static_cast<ptrdiff_t>(words), mask.end(), 0);
      return;
    }
  }
  std::fill(mask.begin(), mask.end(), 0);
  walked_ = 0;
  Make(states, state, mask.first(words));
  if (keep && (states.CountAsked(state) > 1 || walked_ > kLongWalk))
    states.MaskOf(state).assign(mask.begin(), mask.begin() + static_cast<ptrdiff_t>(words));
}

void MaskMaker::Make(MatchStates& states, State state, std::span<uint64_t> mask) {
  const auto found = states.ReadingsOf(state);
  const std::vector<Reading> readings(found.begin(), found.end());  // making states moves them
  std::vector<Reading> narrow;
  for (const Reading& reading : readings) {
    if (states.LiveOf(reading).size() < kBroadLeaf) {
      narrow.push_back(reading);
      continue;
    }
    const LeafMask& leaf = MaskOfLeaf(states, reading);
    if (leaf.exits_everywhere) {
      narrow.push_back(reading);
      continue;
    }
    for (size_t i = 0; i < mask.size(); ++i) mask[i] |= leaf.mask[i];
    if (leaf.exits.empty()) continue;
    const State after = states.After(reading.stack);
    if (after == MatchStates::kDead || states.Live(after).empty()) continue;
    for (const uint32_t exit : leaf.exits)
      Walk(states, exit + 1, tokens_->nodes()[exit].end, after, mask, nullptr);
  }
  if (!narrow.empty()) {
    const State rest = narrow.size() == readings.size() ? state : states.Of(narrow);
    WalkTree(states, TokenTable::kPlain, rest, mask, nullptr);
    WalkTree(states, TokenTable::kOther, rest, mask, nullptr);
  }
  tokens_->AddTwins(mask);
}

const MaskMaker::LeafMask& MaskMaker::MaskOfLeaf(MatchStates& states, const Reading& reading) {
  // No token reaches further than its bytes.
  const uint32_t reach = tokens_->token_bytes_max();
  Reading alone = reading;
  alone.min = std::min(reading.min, reach + 1);
  if (reading.max > reach) alone.max = Grammar::kNoBound;
  alone.stack = MatchStates::kOutside;
  const Automaton& automaton = *states.grammar()->automata()[reading.automaton];
  const Key key = {automaton.fingerprint()[0], automaton.fingerprint()[1], reading.state,
                   uint64_t{alone.min} << 32 | alone.max};
  const auto [entry, is_new] = leaves_.try_emplace(key);
  LeafMask& leaf = entry->second;
  if (!is_new) return leaf;
  leaf.mask.resize(tokens_->mask_words());
  const State start = states.Of({&alone, 1});
  const auto in_automaton = static_cast<uint16_t>(reading.state);
  if (automaton.TakesPlainText(in_automaton))
    tokens_->AddPlain(alone.max, leaf.mask);
  else
    WalkTree(states, TokenTable::kPlain, start, leaf.mask, &leaf);
  if (!leaf.exits_everywhere) WalkTree(states, TokenTable::kOther, start, leaf.mask, &leaf);
  if (leaf.exits_everywhere) leaf = {.mask = {}, .exits = {}, .exits_everywhere = true};
  leaf.exits.shrink_to_fit();
  bytes_ += leaf.mask.capacity() * 8 + leaf.exits.capacity() * 4 + sizeof(LeafMask) + 80;
  return leaf;
}

void MaskMaker::WalkTree(MatchStates& states, TokenTable::Tree tree, State state,
                         std::span<uint64_t> mask, LeafMask* exits) {
  const ByteSet live = states.Live(state);
  for (int word = 0; word < 4; ++word) {
    for (uint64_t bits = live.words[word]; bits != 0; bits &= bits - 1) {
      const auto byte = static_cast<uint8_t>(word * 64 + std::countr_zero(bits));
      const uint32_t node = tokens_->TopNode(tree, byte);
      if (node == TokenTable::kNoNode) continue;
      Walk(states, node, tokens_->nodes()[node].end, state, mask, exits);
      if (exits && exits->exits_everywhere) return;
    }
  }
}

void MaskMaker::Walk(MatchStates& states, uint32_t begin, uint32_t end, State state,
                     std::span<uint64_t> mask, LeafMask* exits) {
  const TokenTable::Node* nodes = tokens_->nodes().data();
  levels_.clear();
  levels_.push_back({end, state});
  for (uint32_t at = begin; at < end;) {
    while (at >= levels_.back().end) levels_.pop_back();
    const TokenTable::Node node = nodes[at];
    const State to = states.Step(levels_.back().state, static_cast<uint8_t>(node.byte));
    ++walked_;
    if (to == MatchStates::kDead) {
      at = node.end;
      continue;
    }
    if (node.token != TokenTable::Node::kNoToken)
      mask[node.token / 64] |= uint64_t{1} << (node.token % 64);
    const bool has_children = at + 1 < node.end;
    if (exits && has_children && states.IsOutside(to)) {
      exits->exits.push_back(at);
      if (exits->exits.size() > kExitsMax) {
        exits->exits_everywhere = true;
        return;
      }
    }
    if (has_children) levels_.push_back({node.end, to});
    ++at;
  }
}

}  // namespace perdure::text
