#include "text/tokenizer/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/limits.h"
#include "text/tokenizer/prepared_sections.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// Covers the byte-level alphabet and most of what Latin text uses.
constexpr char32_t kShortCharacters = 0x180;

uint64_t PairOf(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// Fibonacci hashing; the high half depends on all bits.
size_t HashOf(uint64_t pair) { return static_cast<size_t>((pair * 0x9E3779B97F4A7C15u) >> 32); }

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return std::nullopt;
}

constexpr std::string_view kBlank = "\u2581";

// Where the first blank stands that another character precedes; the text's size for none.
size_t InnerBlank(std::string_view text) {
  size_t at = 0;
  while (text.substr(at).starts_with(kBlank)) at += kBlank.size();
  return std::min(text.find(kBlank, at), text.size());
}

bool LooksLikeByteToken(std::string_view content) {
  return content.size() == 6 && content.starts_with("<0x") && content.back() == '>';
}

}  // namespace

std::optional<uint8_t> ByteOfToken(std::string_view content) {
  if (!LooksLikeByteToken(content)) return std::nullopt;
  const std::optional<int> high = HexDigit(content[3]), low = HexDigit(content[4]);
  if (!high || !low) return std::nullopt;
  return static_cast<uint8_t>(*high << 4 | *low);
}

Result<Bpe> Bpe::FromJson(const JsonField& model, const PreparedFile* prepared) {
  Bpe bpe;
  if (const Json& json = model.json(); json.contains("dropout") && !json["dropout"].is_null()) {
    const Json& dropout = json["dropout"];
    if (!dropout.is_number() || dropout.get<double>() != 0.0)
      return model.Unsupported("has a dropout that is not 0; only exact tokenization is supported");
  }
  for (const std::string_view affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const auto value, model.GetString(affix));
    if (value.value_or("") != "")
      return model.Unsupported(
          fmt::format("has the {} \"{}\"; only models without one are supported", affix, *value));
  }
  ASSIGN_OR_RETURN(bpe.settings_.fuse_unk, model.GetBool("fuse_unk", false));
  ASSIGN_OR_RETURN(bpe.settings_.byte_fallback, model.GetBool("byte_fallback", false));
  ASSIGN_OR_RETURN(bpe.settings_.ignore_merges, model.GetBool("ignore_merges", false));

  if (prepared != nullptr) {
    RETURN_IF_ERROR(bpe.MapLists(*prepared));
  } else {
    ASSIGN_OR_RETURN(const JsonField vocab, model.RequireMember("vocab"));
    ASSIGN_OR_RETURN(bpe.vocabulary_, Vocabulary::FromJson(vocab));
  }
  ASSIGN_OR_RETURN(const auto unk_token, model.GetString("unk_token"));
  if (unk_token) {
    bpe.settings_.unk = bpe.vocabulary_.Find(*unk_token);
    if (!bpe.settings_.unk)
      return model.Bad(fmt::format("has the unk_token \"{}\", which its vocab lacks", *unk_token));
  }
  if (bpe.settings_.byte_fallback) {
    RETURN_IF_ERROR(bpe.IndexByteTokens(fmt::format("{}: {}.vocab", model.file(), model.path())));
  }
  if (prepared == nullptr) {
    ASSIGN_OR_RETURN(const JsonField merges, model.RequireMember("merges"));
    RETURN_IF_ERROR(bpe.ReadMerges(merges));
  }
  bpe.Finish();
  return bpe;
}

Result<Bpe> Bpe::FromPrepared(const PreparedFile& prepared, const BpeSettings& settings) {
  Bpe bpe;
  bpe.settings_ = settings;
  RETURN_IF_ERROR(bpe.MapLists(prepared));
  if (settings.byte_fallback) RETURN_IF_ERROR(bpe.IndexByteTokens(prepared.path().string()));
  bpe.Finish();
  return bpe;
}

Status Bpe::MapLists(const PreparedFile& prepared) {
  ASSIGN_OR_RETURN(vocabulary_, Vocabulary::FromPrepared(prepared));
  ASSIGN_OR_RETURN(merges_view_, ReadSection<Merge>(prepared, "merges"));
  ASSIGN_OR_RETURN(const auto cuts, ReadSection<uint8_t>(prepared, "cuts at blanks"));
  if (!std::has_single_bit(merges_view_.size()) || cuts.size() != 1)
    return Err(ErrorCode::io_error,
               fmt::format("{}: the merges make no sense", prepared.path().string()));
  cuts_at_blanks_ = cuts[0] != 0;
  return {};
}

Status Bpe::Prepare(PreparedWriter& writer) const {
  CHECK(!merges_.empty());  // not from a prepared file itself
  RETURN_IF_ERROR(vocabulary_.Prepare(writer));
  RETURN_IF_ERROR(AddSection<Merge>(writer, "merges", merges_));
  const uint8_t cuts[] = {cuts_at_blanks_};
  return AddSection<uint8_t>(writer, "cuts at blanks", cuts);
}

Result<Bpe> Bpe::FromRanks(Vocabulary vocabulary, std::span<const uint32_t> ranks,
                           const BpeSettings& settings, std::string_view where) {
  CHECK(ranks.size() == static_cast<size_t>(vocabulary.size()));
  Bpe bpe;
  bpe.vocabulary_ = std::move(vocabulary);
  bpe.settings_ = settings;
  if (settings.byte_fallback) RETURN_IF_ERROR(bpe.IndexByteTokens(where));
  const auto find = [&](std::string_view content) -> std::optional<TokenId> {
    const auto id = bpe.vocabulary_.Find(content);
    return id && ranks[static_cast<size_t>(*id)] != kNoRank ? id : std::nullopt;
  };
  std::vector<Merge> merges;
  for (TokenId id = 0; id < bpe.vocabulary_.size(); ++id) {
    const uint32_t rank = ranks[static_cast<size_t>(id)];
    if (rank == kNoRank) continue;
    const std::string_view content = bpe.vocabulary_.ContentOf(id);
    if (content.size() > limits::kRankedTokenBytesMax)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: the token {} has {} bytes; at most {} are supported", where, id,
                             content.size(), limits::kRankedTokenBytesMax));
    for (size_t cut = 1; cut < content.size(); ++cut) {
      const auto left = find(content.substr(0, cut));
      const auto right = left ? find(content.substr(cut)) : std::nullopt;
      if (right) merges.push_back({PairOf(*left, *right), rank, id});
    }
    if (merges.size() > limits::kRankedMergesMax)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: its tokens can be cut in two in more than {} ways", where,
                             limits::kRankedMergesMax));
  }
  bpe.ReserveMerges(merges.size());
  for (const Merge& merge : merges) bpe.InsertMerge(merge);
  bpe.Finish();
  return bpe;
}

void Bpe::Finish() {
  short_characters_.assign(kShortCharacters, -1);
  for (char32_t c = 0; c < kShortCharacters; ++c) {
    std::string utf8;
    AppendUtf8(c, &utf8);
    short_characters_[c] = vocabulary_.Find(utf8).value_or(-1);
  }
  if (!merges_.empty()) {  // else a prepared file has them, and this
    merges_view_ = merges_;
    cuts_at_blanks_ = !settings_.ignore_merges && vocabulary_.Find(kBlank) &&
                      std::none_of(merges_.begin(), merges_.end(), [this](const Merge& merge) {
                        const std::string_view made = vocabulary_.ContentOf(merge.merged);
                        return merge.pair != kNoPair && InnerBlank(made) < made.size();
                      });
  }
  whole_ = std::make_unique<std::atomic<uint8_t>[]>(static_cast<size_t>(vocabulary_.size()));
}

Status Bpe::IndexByteTokens(std::string_view where) {
  byte_tokens_.assign(256, -1);
  for (TokenId id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view content = vocabulary_.ContentOf(id);
    if (!LooksLikeByteToken(content)) continue;
    const std::optional<uint8_t> byte = ByteOfToken(content);
    if (!byte)
      return Err(
          ErrorCode::bad_model,
          fmt::format("{} has the byte token \"{}\", which is not hexadecimal", where, content));
    // Only upper case is used for encoding.
    if (content == fmt::format("<0x{:02X}>", *byte)) byte_tokens_[*byte] = id;
  }
  return {};
}

Status Bpe::ReadMerges(const JsonField& field) {
  ASSIGN_OR_RETURN(const size_t count, field.Elements());
  // Each merge makes a token, so more of them cannot all be of use.
  if (count > static_cast<size_t>(limits::kVocabMax))
    return field.Bad(
        fmt::format("has {} entries; at most {} are supported", count, limits::kVocabMax));
  ReserveMerges(count);
  const Json& json = field.json();
  std::string joined;
  uint32_t rank = 0;
  for (size_t i = 0; i < count; ++i) {
    const Json& entry = json[i];
    std::string_view left, right;
    if (entry.is_string()) {
      const std::string_view text = entry.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
        return field.At(i).Bad(fmt::format("is \"{}\", not two tokens with a blank between", text));
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() &&
               entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else {
      return field.At(i).Bad("is neither \"a b\" nor [\"a\", \"b\"]");
    }
    if (left.empty() || right.empty()) return field.At(i).Bad("merges an empty token");
    joined.assign(left).append(right);
    Merge merge;
    TokenId ids[3];
    const std::string_view contents[3] = {left, right, joined};
    for (int k = 0; k < 3; ++k) {
      const std::optional<TokenId> id = vocabulary_.Find(contents[k]);
      if (!id)
        return field.At(i).Bad(
            fmt::format("names the token \"{}\", which the vocab lacks", contents[k]));
      ids[k] = *id;
    }
    merge.pair = PairOf(ids[0], ids[1]);
    merge.merged = ids[2];
    merge.rank = rank++;
    InsertMerge(merge);
  }
  return {};
}

void Bpe::ReserveMerges(size_t count) {
  merges_.assign(std::bit_ceil(std::max<size_t>(count, 1) * 2), Merge{});
}

// Of a pair that stands twice the last counts, as in `tokenizers`.
void Bpe::InsertMerge(Merge merge) {
  const size_t mask = merges_.size() - 1;
  size_t slot = HashOf(merge.pair) & mask;
  while (merges_[slot].pair != kNoPair && merges_[slot].pair != merge.pair)
    slot = (slot + 1) & mask;
  merges_[slot] = merge;
}

const Bpe::Merge* Bpe::FindMerge(TokenId left, TokenId right) const {
  const uint64_t pair = PairOf(left, right);
  const auto& merges = merges_view_;
  const size_t mask = merges.size() - 1;
  for (size_t slot = HashOf(pair) & mask; merges[slot].pair != kNoPair; slot = (slot + 1) & mask) {
    if (merges[slot].pair == pair) return &merges[slot];
  }
  return nullptr;
}

std::optional<TokenId> Bpe::FindCharacter(std::string_view character, char32_t code_point) const {
  if (code_point >= kShortCharacters) return vocabulary_.Find(character);
  const TokenId id = short_characters_[code_point];
  if (id < 0) return std::nullopt;
  return id;
}

void Bpe::SplitIntoSymbols(std::string_view word, WordScratch* scratch) const {
  auto& symbols = scratch->symbols;
  symbols.clear();
  const auto add = [&symbols](TokenId id) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  };
  // An unknown character becomes a symbol only when what follows is known, or at the end, so that
  // fuse_unk can make one of many.
  bool unk_pending = false;
  for (size_t i = 0; i < word.size();) {
    const Utf8Char c = DecodeUtf8(word, i);
    const std::string_view character = word.substr(i, static_cast<size_t>(c.length));
    i += character.size();
    if (const std::optional<TokenId> id = FindCharacter(character, c.code_point)) {
      if (unk_pending) add(*settings_.unk);
      unk_pending = false;
      add(*id);
      continue;
    }
    if (settings_.byte_fallback && std::all_of(character.begin(), character.end(), [this](char b) {
          return byte_tokens_[static_cast<uint8_t>(b)] >= 0;
        })) {
      for (const char b : character) add(byte_tokens_[static_cast<uint8_t>(b)]);
      continue;
    }
    if (!settings_.unk) continue;  // dropped, as `tokenizers` does
    if (unk_pending && !settings_.fuse_unk) add(*settings_.unk);
    unk_pending = true;
  }
  if (unk_pending) add(*settings_.unk);
  if (!symbols.empty()) symbols.back().next = -1;
}

void Bpe::MergeSymbols(WordScratch* scratch) const {
  auto& symbols = scratch->symbols;
  auto& heap = scratch->heap;
  heap.clear();
  // The smallest rank first, of equal ranks the leftmost.
  const auto later = [](const WordScratch::Candidate& a, const WordScratch::Candidate& b) {
    return a.rank_and_position > b.rank_and_position;
  };
  const auto candidate = [&](int32_t left) -> std::optional<WordScratch::Candidate> {
    const int32_t right = symbols[static_cast<size_t>(left)].next;
    if (right < 0) return std::nullopt;
    const Merge* merge =
        FindMerge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge == nullptr) return std::nullopt;
    return WordScratch::Candidate{uint64_t{merge->rank} << 32 | static_cast<uint32_t>(left),
                                  merge->merged};
  };
  const auto push = [&](int32_t left) {
    if (const auto c = candidate(left)) {
      heap.push_back(*c);
      std::push_heap(heap.begin(), heap.end(), later);
    }
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (const auto c = candidate(static_cast<int32_t>(i))) heap.push_back(*c);
  }
  std::make_heap(heap.begin(), heap.end(), later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const WordScratch::Candidate top = heap.back();
    heap.pop_back();
    const auto at = static_cast<int32_t>(top.rank_and_position & UINT32_MAX);
    WordScratch::Symbol& left = symbols[static_cast<size_t>(at)];
    // Outdated: one of the two was merged otherwise since. As in `tokenizers`, a candidate stays
    // good as long as the pair now there makes the same token.
    if (left.id == WordScratch::kGone || left.next < 0) continue;
    WordScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->merged != top.merged) continue;
    left.id = top.merged;
    left.next = right.next;
    right.id = WordScratch::kGone;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = at;
    if (left.previous >= 0) push(left.previous);
    push(at);
  }
}

void Bpe::NeverWhole(TokenId id) {
  if (vocabulary_.Has(id)) whole_[static_cast<size_t>(id)] = kIsOther;
}

void Bpe::Encode(std::string_view word, WordScratch* scratch, std::vector<TokenId>* out) const {
  while (cuts_at_blanks_ && !word.empty()) {
    const size_t size = InnerBlank(word);
    EncodePart(word.substr(0, size), scratch, out);
    word.remove_prefix(size);
  }
  if (!word.empty()) EncodePart(word, scratch, out);
}

void Bpe::EncodePart(std::string_view word, WordScratch* scratch, std::vector<TokenId>* out) const {
  CHECK(word.size() < INT32_MAX);
  // Most words are tokens, and what a token's content encodes to never changes.
  const std::optional<TokenId> whole = vocabulary_.Find(word);
  std::atomic<uint8_t>* known = nullptr;
  if (whole) {
    known = &whole_[static_cast<size_t>(*whole)];
    const uint8_t what = known->load(std::memory_order_relaxed);
    if (what == kIsItself || (settings_.ignore_merges && what != kIsOther)) {
      out->push_back(*whole);
      return;
    }
  }
  SplitIntoSymbols(word, scratch);
  MergeSymbols(scratch);
  const size_t before = out->size();
  for (const WordScratch::Symbol& symbol : scratch->symbols) {
    if (symbol.id != WordScratch::kGone) out->push_back(symbol.id);
  }
  if (known != nullptr) {
    const bool itself = out->size() == before + 1 && out->back() == *whole;
    known->store(itself ? kIsItself : kIsOther, std::memory_order_relaxed);
  }
}

}  // namespace perdure::text
