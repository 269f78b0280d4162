// Which tokens may follow a state of matching.
//
// Inside of a string or of free text nearly all tokens may follow, whatever comes behind it. So the
// mask of a leaf's state alone is kept, for all grammars that have this leaf, with the few places
// in the tokens' tree where the leaf ends; only there the walk goes on with what really follows.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar/match_states.h"
#include "text/grammar/token_table.h"

namespace perdure::text {

// Of one token table. Not thread-safe.
class MaskMaker {
 public:
  explicit MaskMaker(std::shared_ptr<const TokenTable> tokens) : tokens_(std::move(tokens)) {}

  // Overwrites `mask`. `keep`: whole masks that are asked for again are kept in `states`.
  void Fill(MatchStates& states, MatchStates::State state, bool keep, std::span<uint64_t> mask);

  const TokenTable& tokens() const { return *tokens_; }
  size_t memory_bytes() const { return bytes_; }
  void Clear();

 private:
  // A leaf's automaton, its state, and what is counted: min and max as far as a token can reach.
  using Key = std::array<uint64_t, 4>;
  struct KeyHash {
    size_t operator()(const Key& key) const {
      return key[0] ^ key[2] * 0x9E3779B97F4A7C15 ^ key[3] * 0xBF58476D1CE4E5B9;
    }
  };
  struct LeafMask {
    std::vector<uint64_t> mask;
    std::vector<uint32_t> exits;  // nodes with children, behind which something else follows
    bool exits_everywhere = false;
  };
  struct Level {
    uint32_t end;
    MatchStates::State state;
  };

  const LeafMask& MaskOfLeaf(MatchStates& states, const MatchStates::Reading& reading);
  void Make(MatchStates& states, MatchStates::State state, std::span<uint64_t> mask);
  // Tokens of a tree that can follow; exits are noted where asked for.
  void WalkTree(MatchStates& states, TokenTable::Tree tree, MatchStates::State state,
                std::span<uint64_t> mask, LeafMask* exits);
  // The same of the nodes from `begin` to `end`.
  void Walk(MatchStates& states, uint32_t begin, uint32_t end, MatchStates::State state,
            std::span<uint64_t> mask, LeafMask* exits);

  std::shared_ptr<const TokenTable> tokens_;
  std::unordered_map<Key, LeafMask, KeyHash> leaves_;
  size_t bytes_ = 0;
  size_t walked_ = 0;  // nodes, by the mask that is made
  std::vector<Level> levels_;
};

}  // namespace perdure::text
