#include "worker/splice.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/common_tokens.h"
#include "base/limits.h"

namespace perdure::worker {
namespace {

// One side of a stretch: its tokens so far and their bytes.
class Side {
 public:
  Side(const text::Tokenizer& tokenizer, std::span<const TokenId> tokens)
      : tokenizer_(tokenizer), tokens_(tokens) {}

  // False where there is no further token that may be part of a stretch.
  bool Take() {
    if (count_ == tokens_.size() || count_ == limits::kSpliceTokensMax) return false;
    const TokenId id = tokens_[count_];
    const std::string_view bytes = tokenizer_.TokenBytes(id);
    if (bytes.empty() || tokenizer_.IsSpecial(id)) return false;
    bytes_ += bytes;
    ++count_;
    return true;
  }
  size_t count() const { return count_; }
  std::string_view bytes() const { return bytes_; }

 private:
  const text::Tokenizer& tokenizer_;
  const std::span<const TokenId> tokens_;
  size_t count_ = 0;
  std::string bytes_;
};

struct Stretch {
  size_t prompt = 0, known = 0;  // tokens; 0: there is none
};

// The shortest beginnings of both that spell the same.
Stretch FindStretch(const text::Tokenizer& tokenizer, std::span<const TokenId> prompt,
                    std::span<const TokenId> known) {
  Side a(tokenizer, prompt), b(tokenizer, known);
  for (;;) {
    Side& shorter = a.bytes().size() <= b.bytes().size() ? a : b;
    if (!shorter.Take()) return {};
    const size_t both = std::min(a.bytes().size(), b.bytes().size());
    if (a.bytes().substr(0, both) != b.bytes().substr(0, both)) return {};
    if (a.bytes().size() == b.bytes().size()) return {a.count(), b.count()};
  }
}

}  // namespace

Agreement Agree(const text::Tokenizer& tokenizer, std::span<const TokenId> prompt,
                std::span<const TokenId> known, const std::vector<bool>& drawn) {
  Agreement agreed;
  for (;;) {
    const auto rest = prompt.subspan(agreed.prompt), known_rest = known.subspan(agreed.known);
    const size_t same = CommonTokens(rest, known_rest);
    agreed.prompt += same;
    agreed.known += same;
    if (agreed.prompt == prompt.size() || agreed.known == known.size()) return agreed;
    const auto first_drawn = drawn.begin() + static_cast<std::ptrdiff_t>(agreed.known);
    const auto not_drawn = std::find(first_drawn, drawn.end(), false);
    const Stretch stretch =
        FindStretch(tokenizer, prompt.subspan(agreed.prompt),
                    known.subspan(agreed.known, static_cast<size_t>(not_drawn - first_drawn)));
    if (stretch.known == 0) return agreed;
    agreed.prompt += stretch.prompt;
    agreed.known += stretch.known;
    agreed.spliced += stretch.known;
  }
}

}  // namespace perdure::worker
