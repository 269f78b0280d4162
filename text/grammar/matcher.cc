#include "text/grammar/matcher.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "text/grammar/mask_maker.h"

namespace perdure::text {

// A name of its own for the member that the header does not tell of.
class MatcherContext::Masks : public MaskMaker {
 public:
  using MaskMaker::MaskMaker;
};

void Matcher::Refresh() {
  context_->Bound();
  if (!states_->retired()) return;
  const std::shared_ptr<MatchStates> now = context_->StatesOf(states_->grammar());
  state_ = now->Import(*states_, state_);
  states_ = now;
}

bool Matcher::Accept(std::string_view bytes) {
  Refresh();
  MatchStates::State state = state_;
  for (const char c : bytes) {
    state = states_->Step(state, static_cast<uint8_t>(c));
    if (state == MatchStates::kDead) return false;
  }
  state_ = state;
  return true;
}

bool Matcher::AcceptToken(TokenId id, TokenPlace place) {
  const std::string_view bytes = context_->tokens(place).BytesOf(id);
  return !bytes.empty() && Accept(bytes);
}

bool Matcher::FillMask(std::span<uint64_t> mask, TokenPlace place) {
  Refresh();
  return context_->FillMask(*states_, state_, mask, place);
}

std::string Matcher::ForcedBytes() {
  Refresh();
  std::string forced;
  MatchStates::State state = state_;
  while (forced.size() < limits::kGrammarForcedBytesMax && !states_->CanEnd(state) &&
         states_->Live(state).size() == 1) {
    const uint8_t byte = states_->Live(state).first();
    state = states_->Step(state, byte);
    if (state == MatchStates::kDead) break;
    forced.push_back(static_cast<char>(byte));
  }
  return forced;
}

MatcherContext::MatcherContext(std::shared_ptr<const TokenTable> tokens,
                               std::shared_ptr<const TokenTable> first_tokens,
                               size_t cache_bytes_max)
    : cache_bytes_max_(cache_bytes_max), later_(std::make_unique<Masks>(std::move(tokens))) {
  if (first_tokens) first_ = std::make_unique<Masks>(std::move(first_tokens));
}

MatcherContext::~MatcherContext() = default;

Matcher MatcherContext::Start(const GrammarPtr& grammar) {
  Bound();
  const auto states = StatesOf(grammar);
  const MatchStates::State state = states->Start();
  CHECK(state != MatchStates::kDead);
  return Matcher(this, states, state);
}

const TokenTable& MatcherContext::tokens(TokenPlace place) const {
  return place == TokenPlace::kFirst && first_ ? first_->tokens() : later_->tokens();
}

std::shared_ptr<MatchStates> MatcherContext::StatesOf(const GrammarPtr& grammar) {
  auto& states = states_[grammar.get()];
  if (!states) states = std::make_shared<MatchStates>(grammar);
  return states;
}

size_t MatcherContext::memory_bytes() const {
  size_t bytes = later_->memory_bytes() + (first_ ? first_->memory_bytes() : 0);
  for (const auto& [grammar, states] : states_) bytes += states->memory_bytes();
  return bytes;
}

void MatcherContext::Bound() {
  // Adding it all up takes a while where grammars are many; meanwhile little can come.
  if (++calls_ % 32 != 0 || memory_bytes() <= cache_bytes_max_) return;
  for (const auto& [grammar, states] : states_) states->Retire();
  states_.clear();
  later_->Clear();
  if (first_) first_->Clear();
}

bool MatcherContext::FillMask(MatchStates& states, MatchStates::State state,
                              std::span<uint64_t> mask, TokenPlace place) {
  const bool is_first = place == TokenPlace::kFirst && first_;
  Masks& masks = is_first ? *first_ : *later_;
  CHECK(mask.size() >= masks.tokens().mask_words());
  // Whole masks are kept for the places where most tokens stand.
  masks.Fill(states, state, !is_first, mask);
  return std::any_of(mask.begin(), mask.end(), [](uint64_t word) { return word != 0; });
}

}  // namespace perdure::text
