// The tokens of a vocabulary as a tree of their bytes, which a matcher walks to find those that may
// come next.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/token.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {

struct TokenText {
  TokenId id;
  std::string_view bytes;
};

// Whether a token begins a text of its own (Tokenizer::FirstTokenBytes) or continues one.
enum class TokenPlace { kFirst, kLater };

// Immutable and thread-safe. 8 bytes for each byte that the tree has, and the bytes themselves:
// about 6 MB for 151,936 tokens; made in less than 0.2 s.
class TokenTable {
 public:
  // Tokens without bytes, and those of more than kGrammarTokenBytesMax, are never in a mask. Ids
  // are below `vocab_size` and stand once each.
  static std::shared_ptr<const TokenTable> Make(int vocab_size, std::span<const TokenText> tokens);
  // All tokens of `tokenizer` but special ones. `markers` are special tokens that are taken as
  // text, spelled as they are ("<tool_call>").
  static std::shared_ptr<const TokenTable> Make(const Tokenizer& tokenizer,
                                                std::span<const TokenId> markers,
                                                TokenPlace place = TokenPlace::kLater);

  int vocab_size() const { return static_cast<int>(offsets_.size()) - 1; }
  size_t mask_words() const { return plain_mask_.size(); }
  // Empty for those that are in no mask.
  std::string_view BytesOf(TokenId id) const;
  size_t memory_bytes() const;

  // --- For the matcher ---

  // In the order of the bytes that lead to them; a node's own children stand behind it, up to
  // `end`.
  struct Node {
    static constexpr uint32_t kNoToken = 0xFFFFFF;
    uint32_t end;
    uint32_t byte : 8;
    uint32_t token : 24;
  };
  // Two trees: plain tokens are UTF-8 without '"', '\' and control characters, except that the last
  // character may be unfinished. So most are, and stay inside a JSON string.
  enum Tree { kPlain, kOther };
  const std::vector<Node>& nodes() const { return nodes_; }
  // The first node that stands for `byte`, at the top of a tree; kNoNode if none does.
  static constexpr uint32_t kNoNode = 0xFFFFFFFF;
  uint32_t TopNode(Tree tree, uint8_t byte) const { return top_[tree][byte]; }
  // Adds the plain tokens of at most so many characters.
  void AddPlain(uint32_t characters_max, std::span<uint64_t> mask) const;
  // Where a token's bit is set: those that spell the same get theirs.
  void AddTwins(std::span<uint64_t> mask) const;
  uint32_t token_bytes_max() const { return token_bytes_max_; }

 private:
  void AddTree(Tree tree, std::span<const TokenText> sorted);

  std::vector<uint32_t> offsets_;  // by id; of bytes_
  std::string bytes_;
  std::vector<Node> nodes_;
  uint32_t top_[2][256];
  std::vector<uint64_t> plain_mask_;
  std::vector<std::pair<uint32_t, TokenId>> plain_lengths_;  // in characters; longest first
  std::vector<std::pair<TokenId, TokenId>> twins_;           // in the tree; not in it
  uint32_t token_bytes_max_ = 0;
};

}  // namespace perdure::text
