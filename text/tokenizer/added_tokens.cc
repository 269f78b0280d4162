#include "text/tokenizer/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "base/check.h"
#include "base/limits.h"
#include "text/tokenizer/unicode_members.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

size_t SkipWhiteSpaceBackward(std::string_view text, size_t end) {
  while (end > 0) {
    const Utf8Char c = DecodeUtf8Before(text, end);
    if (!IsWhiteSpace(c.code_point)) break;
    end -= static_cast<size_t>(c.length);
  }
  return end;
}

size_t SkipWhiteSpace(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Char c = DecodeUtf8(text, begin);
    if (!IsWhiteSpace(c.code_point)) break;
    begin += static_cast<size_t>(c.length);
  }
  return begin;
}

}  // namespace

Result<std::vector<AddedToken>> AddedTokensFromJson(const JsonField& document) {
  std::vector<AddedToken> tokens;
  ASSIGN_OR_RETURN(const auto list, document.Member("added_tokens"));
  if (!list) return tokens;
  ASSIGN_OR_RETURN(const size_t count, list->Elements());
  std::unordered_set<std::string_view> contents;
  std::unordered_set<TokenId> ids;
  for (size_t i = 0; i < count; ++i) {
    const JsonField field = list->At(i);
    AddedToken token;
    ASSIGN_OR_RETURN(const int64_t id, field.GetInt("id", 0, limits::kVocabMax - 1, std::nullopt));
    token.id = static_cast<TokenId>(id);
    ASSIGN_OR_RETURN(const std::string_view content, field.RequireString("content"));
    if (content.empty()) continue;  // ignored by `tokenizers` too
    if (content.size() > limits::kAddedTokenBytesMax)
      return field.Bad(fmt::format("has a content of {} bytes; at most {} are supported",
                                   content.size(), limits::kAddedTokenBytesMax));
    token.content = content;
    ASSIGN_OR_RETURN(token.single_word, field.GetBool("single_word", false));
    ASSIGN_OR_RETURN(token.lstrip, field.GetBool("lstrip", false));
    ASSIGN_OR_RETURN(token.rstrip, field.GetBool("rstrip", false));
    ASSIGN_OR_RETURN(token.special, field.GetBool("special", false));
    ASSIGN_OR_RETURN(token.normalized, field.GetBool("normalized", !token.special));
    if (!contents.insert(content).second)
      return field.Bad(fmt::format("has the content \"{}\", which stands twice", content));
    if (!ids.insert(token.id).second)
      return field.Bad(fmt::format("has the id {}, which stands twice", id));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

Result<AddedTokenFinder> AddedTokenFinder::Build(std::vector<Pattern> patterns) {
  ASSIGN_OR_RETURN(Regex word_character,
                   Regex::CompilePcre2(fmt::format("[{}]", RustWordMembers()), "a word character"));
  AddedTokenFinder finder(std::move(word_character));
  std::erase_if(patterns, [](const Pattern& p) { return p.text.empty(); });
  std::stable_sort(patterns.begin(), patterns.end(),
                   [](const Pattern& a, const Pattern& b) { return a.text < b.text; });
  patterns.erase(std::unique(patterns.begin(), patterns.end(),
                             [](const Pattern& a, const Pattern& b) { return a.text == b.text; }),
                 patterns.end());
  for (uint32_t i = 0; i < patterns.size(); ++i) {
    Span& span = finder.by_first_byte_[static_cast<uint8_t>(patterns[i].text[0])];
    if (span.begin == span.end) span.begin = i;
    span.end = i + 1;
  }
  finder.patterns_ = std::move(patterns);
  return finder;
}

// Narrows the range of sorted patterns that agree with the text, byte by byte.
const AddedTokenFinder::Pattern* AddedTokenFinder::MatchAt(std::string_view text) const {
  const Span span = by_first_byte_[static_cast<uint8_t>(text[0])];
  auto begin = patterns_.begin() + span.begin;
  auto end = patterns_.begin() + span.end;
  const Pattern* longest = nullptr;
  for (size_t depth = 1; begin != end; ++depth) {
    if (begin->text.size() == depth) {
      longest = &*begin;
      ++begin;
    }
    if (depth == text.size()) break;
    const auto c = static_cast<unsigned char>(text[depth]);
    begin = std::partition_point(begin, end, [&](const Pattern& p) {
      return static_cast<unsigned char>(p.text[depth]) < c;
    });
    end = std::partition_point(begin, end, [&](const Pattern& p) {
      return static_cast<unsigned char>(p.text[depth]) == c;
    });
  }
  return longest;
}

Result<bool> AddedTokenFinder::IsWordCharacter(std::string_view character,
                                               RegexRunner& runner) const {
  std::vector<TextRange> matches;
  RETURN_IF_ERROR(runner.FindAll(word_character_, character, &matches));
  return !matches.empty();
}

Result<bool> AddedTokenFinder::StandsAlone(std::string_view text, size_t begin, size_t end,
                                           RegexRunner& runner) const {
  if (begin > 0) {
    const auto length = static_cast<size_t>(DecodeUtf8Before(text, begin).length);
    ASSIGN_OR_RETURN(const bool word, IsWordCharacter(text.substr(begin - length, length), runner));
    if (word) return false;
  }
  if (end < text.size()) {
    const auto length = static_cast<size_t>(DecodeUtf8(text, end).length);
    ASSIGN_OR_RETURN(const bool word, IsWordCharacter(text.substr(end, length), runner));
    if (word) return false;
  }
  return true;
}

Status AddedTokenFinder::Find(std::string_view text, std::span<const TextRange> literal,
                              RegexRunner& runner, std::vector<TextPart>* parts) const {
  size_t done = 0;          // end of the last part
  size_t next_literal = 0;  // the first range that ends behind `at`
  for (size_t at = 0; at < text.size() && !patterns_.empty();) {
    while (next_literal < literal.size() &&
           (literal[next_literal].end <= at ||
            literal[next_literal].begin == literal[next_literal].end))
      ++next_literal;
    size_t limit = text.size();
    if (next_literal < literal.size()) {
      if (literal[next_literal].begin <= at) {
        at = literal[next_literal].end;
        continue;
      }
      limit = std::min(limit, literal[next_literal].begin);
    }
    const Pattern* pattern = MatchAt(text.substr(at, limit - at));
    if (pattern == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + pattern->text.size();
    at = end;
    if (pattern->single_word) {
      ASSIGN_OR_RETURN(const bool alone, StandsAlone(text, begin, end, runner));
      if (!alone) continue;
    }
    // Taking white space along may overlap the neighbours' own: each part begins where the last
    // one ended, but a token that lies in its predecessor's white space still counts.
    if (pattern->lstrip) begin = std::max(SkipWhiteSpaceBackward(text, begin), done);
    if (pattern->rstrip) end = SkipWhiteSpace(text, end);
    if (done < begin) parts->push_back({{done, begin}, -1});
    parts->push_back({{begin, end}, pattern->id});
    done = end;
  }
  if (done < text.size()) parts->push_back({{done, text.size()}, -1});
  return {};
}

}  // namespace perdure::text
