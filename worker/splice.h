// Where a prompt repeats a conversation, and how: a model's answer, tokenized again, may come out
// as other tokens than those that it has drawn. Pure.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/token.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::worker {

struct Agreement {
  size_t known = 0;    // tokens of the conversation, from its first, whose text the prompt repeats
  size_t prompt = 0;   // tokens of the prompt that stand for the same text
  size_t spliced = 0;  // of `known`: in stretches that the prompt has other tokens for
};

// Tokens agree where they are equal, and in stretches that spell the same bytes, of which all known
// tokens were drawn and none is special. `drawn` is as long as `known`.
Agreement Agree(const text::Tokenizer& tokenizer, std::span<const TokenId> prompt,
                std::span<const TokenId> known, const std::vector<bool>& drawn);

}  // namespace perdure::worker
