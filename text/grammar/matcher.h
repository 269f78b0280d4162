// Follows an answer through a grammar and tells which tokens may come next.
//
//   MatcherContext context(tokens);              once a thread
//   Matcher matcher = context.Start(grammar);    once a sequence
//   for each token: matcher.FillMask(mask) … choose … matcher.AcceptToken(id)
//
// What a matcher answers depends on its grammar and the bytes it has accepted, on nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/limits.h"
#include "text/grammar/grammar.h"
#include "text/grammar/match_states.h"
#include "text/grammar/token_table.h"

namespace perdure::text {

class MatcherContext;

// A value: copies are independent, and cost three pointers. Used by the thread of its context,
// which outlives it.
class Matcher {
 public:
  // Takes the bytes that a token has added to the answer. False if they cannot follow; then nothing
  // has changed.
  bool Accept(std::string_view bytes);
  // The same with the bytes of a token, as it stands in its place.
  bool AcceptToken(TokenId id, TokenPlace place = TokenPlace::kLater);

  // The answer may end here: the caller allows its EOS tokens then, which no mask contains.
  bool can_end() const { return states_->CanEnd(state_); }
  // It must: nothing else may come.
  bool must_end() const { return states_->Live(state_).empty(); }

  // Sets the bits of exactly the tokens all of whose bytes can follow; of words that are too many
  // for the vocabulary, none. `mask` has mask_words() words at least. False if there is none: then
  // the answer ends, or, if it cannot, the vocabulary has no token to go on with (only one that
  // lacks some byte as a token can come to that).
  bool FillMask(std::span<uint64_t> mask, TokenPlace place = TokenPlace::kLater);

  // The bytes that must come next, as many as are certain, at most kGrammarForcedBytesMax.
  std::string ForcedBytes();

 private:
  friend class MatcherContext;
  Matcher(MatcherContext* context, std::shared_ptr<MatchStates> states, MatchStates::State state)
      : context_(context), states_(std::move(states)), state_(state) {}
  // Moves on to the states that the context uses by now.
  void Refresh();

  MatcherContext* context_;
  std::shared_ptr<MatchStates> states_;
  MatchStates::State state_;
};

// What the matchers of one thread share: states and masks that were found, for all grammars, within
// kGrammarCacheBytesMax. Not thread-safe.
class MatcherContext {
 public:
  // `first_tokens`: the same vocabulary made for TokenPlace::kFirst, where that differs.
  explicit MatcherContext(std::shared_ptr<const TokenTable> tokens,
                          std::shared_ptr<const TokenTable> first_tokens = nullptr,
                          size_t cache_bytes_max = limits::kGrammarCacheBytesMax);
  ~MatcherContext();
  MatcherContext(const MatcherContext&) = delete;
  MatcherContext& operator=(const MatcherContext&) = delete;

  Matcher Start(const GrammarPtr& grammar);

  const TokenTable& tokens(TokenPlace place = TokenPlace::kLater) const;
  size_t memory_bytes() const;

 private:
  friend class Matcher;
  class Masks;

  std::shared_ptr<MatchStates> StatesOf(const GrammarPtr& grammar);
  // Starts anew when there is too much.
  void Bound();
  bool FillMask(MatchStates& states, MatchStates::State state, std::span<uint64_t> mask,
                TokenPlace place);

  size_t cache_bytes_max_;
  unsigned calls_ = 0;
  std::unique_ptr<Masks> later_, first_;
  std::unordered_map<const Grammar*, std::shared_ptr<MatchStates>> states_;
};

}  // namespace perdure::text
