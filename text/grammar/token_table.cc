#include "text/grammar/token_table.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "base/limits.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// How many characters a plain text begins; nullopt for others.
std::optional<uint32_t> PlainCharacters(std::string_view bytes) {
  uint32_t count = 0;
  for (size_t at = 0; at < bytes.size(); ++count) {
    const auto byte = static_cast<uint8_t>(bytes[at]);
    if (byte < 0x20 || byte == '"' || byte == '\\') return std::nullopt;
    if (byte < 0x80) {
      ++at;
      continue;
    }
    const Utf8Char c = DecodeUtf8(bytes, at);
    if (!c.valid && !c.incomplete) return std::nullopt;
    at += static_cast<size_t>(c.length);
  }
  return count;
}

}  // namespace

std::shared_ptr<const TokenTable> TokenTable::Make(int vocab_size,
                                                   std::span<const TokenText> tokens) {
  CHECK(vocab_size >= 0 && vocab_size < static_cast<int>(Node::kNoToken));
  auto table = std::make_shared<TokenTable>();
  std::vector<std::string_view> by_id(static_cast<size_t>(vocab_size));
  for (const TokenText& token : tokens) {
    CHECK(token.id >= 0 && token.id < vocab_size);
    if (token.bytes.size() <= limits::kGrammarTokenBytesMax)
      by_id[static_cast<size_t>(token.id)] = token.bytes;
  }
  table->plain_mask_.resize((by_id.size() + 63) / 64);
  table->offsets_.reserve(by_id.size() + 1);
  std::vector<TokenText> sorted[2];
  for (size_t id = 0; id < by_id.size(); ++id) {
    const std::string_view bytes = by_id[id];
    table->offsets_.push_back(static_cast<uint32_t>(table->bytes_.size()));
    table->bytes_ += bytes;
    if (bytes.empty()) continue;
    table->token_bytes_max_ =
        std::max(table->token_bytes_max_, static_cast<uint32_t>(bytes.size()));
    const auto characters = PlainCharacters(bytes);
    sorted[characters ? kPlain : kOther].push_back({static_cast<TokenId>(id), bytes});
    if (!characters) continue;
    table->plain_mask_[id / 64] |= uint64_t{1} << (id % 64);
    table->plain_lengths_.emplace_back(*characters, static_cast<TokenId>(id));
  }
  table->offsets_.push_back(static_cast<uint32_t>(table->bytes_.size()));
  std::sort(table->plain_lengths_.begin(), table->plain_lengths_.end(), std::greater<>());
  for (const Tree tree : {kPlain, kOther}) table->AddTree(tree, sorted[tree]);
  table->nodes_.shrink_to_fit();
  return table;
}

std::shared_ptr<const TokenTable> TokenTable::Make(const Tokenizer& tokenizer,
                                                   std::span<const TokenId> markers,
                                                   TokenPlace place) {
  std::vector<TokenText> tokens;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    const bool marker = std::find(markers.begin(), markers.end(), id) != markers.end();
    if (tokenizer.IsSpecial(id) && !marker) continue;
    tokens.push_back({id, place == TokenPlace::kFirst && !marker ? tokenizer.FirstTokenBytes(id)
                                                                 : tokenizer.TokenBytes(id)});
  }
  return Make(tokenizer.vocab_size(), tokens);
}

void TokenTable::AddTree(Tree tree, std::span<const TokenText> tokens) {
  std::fill(std::begin(top_[tree]), std::end(top_[tree]), kNoNode);
  // Most comparisons end within the first eight bytes.
  struct Key {
    uint64_t first;
    const TokenText* token;
  };
  std::vector<Key> keys;
  keys.reserve(tokens.size());
  for (const TokenText& token : tokens) {
    uint64_t first = 0;
    std::memcpy(&first, token.bytes.data(), std::min<size_t>(8, token.bytes.size()));
    keys.push_back({__builtin_bswap64(first), &token});
  }
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    if (a.first != b.first) return a.first < b.first;
    if (a.token->bytes != b.token->bytes) return a.token->bytes < b.token->bytes;
    return a.token->id < b.token->id;
  });

  std::vector<uint32_t> path;  // nodes that lead to the token before
  std::string_view before;
  for (const Key& key : keys) {
    const std::string_view bytes = key.token->bytes;
    if (bytes == before) {
      twins_.emplace_back(static_cast<TokenId>(nodes_[path.back()].token), key.token->id);
      continue;
    }
    size_t common = 0;
    while (common < before.size() && common < bytes.size() && before[common] == bytes[common])
      ++common;
    for (; path.size() > common; path.pop_back())
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
    for (size_t i = common; i < bytes.size(); ++i) {
      const auto byte = static_cast<uint8_t>(bytes[i]);
      const auto node = static_cast<uint32_t>(nodes_.size());
      if (i == 0) top_[tree][byte] = node;
      nodes_.push_back({.end = 0, .byte = byte, .token = Node::kNoToken});
      path.push_back(node);
    }
    nodes_[path.back()].token = static_cast<uint32_t>(key.token->id) & Node::kNoToken;
    before = bytes;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
}

std::string_view TokenTable::BytesOf(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const size_t begin = offsets_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(begin, offsets_[static_cast<size_t>(id) + 1] - begin);
}

size_t TokenTable::memory_bytes() const {
  return nodes_.capacity() * sizeof(Node) + bytes_.capacity() + offsets_.capacity() * 4 +
         plain_mask_.size() * 8 + plain_lengths_.capacity() * 8 + twins_.capacity() * 8 +
         sizeof(TokenTable);
}

void TokenTable::AddPlain(uint32_t characters_max, std::span<uint64_t> mask) const {
  if (characters_max == 0) return;
  for (size_t i = 0; i < plain_mask_.size(); ++i) mask[i] |= plain_mask_[i];
  for (const auto& [characters, id] : plain_lengths_) {
    if (characters <= characters_max) break;
    mask[static_cast<size_t>(id) / 64] &= ~(uint64_t{1} << (id % 64));
  }
}

void TokenTable::AddTwins(std::span<uint64_t> mask) const {
  for (const auto& [in_tree, twin] : twins_)
    if ((mask[static_cast<size_t>(in_tree) / 64] >> (in_tree % 64)) & 1)
      mask[static_cast<size_t>(twin) / 64] |= uint64_t{1} << (twin % 64);
}

}  // namespace perdure::text
