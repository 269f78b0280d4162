#include "text/template/word_wrap.h"

#include <algorithm>
#include <string_view>

#include "text/template/unicode.h"
#include "text/text_range.h"

namespace perdure::text::jinja {
namespace {

bool IsGap(char32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsWordChar(char32_t c) { return c == '_' || IsAlpha(c) || IsNumeric(c); }
bool IsLetter(char32_t c) { return IsWordChar(c) && !IsDecimal(c); }
// What a dash may follow.
bool IsWordEnd(char32_t c) {
  return IsWordChar(c) || (c < 0x80 && std::string_view("!\"'&.,?").find(static_cast<char>(c)) !=
                                           std::string_view::npos);
}

// Ranges are of characters, but for Slice's.
class Wrapper {
 public:
  Wrapper(Runtime& rt, const MarkedString& text, const WrapStyle& style)
      : rt_(rt), text_(text), style_(style) {}

  Result<std::vector<MarkedString>> Wrap() {
    RETURN_IF_ERROR(rt_.Fits(text_.size() * (sizeof(char32_t) + sizeof(size_t) + 16)));
    for (size_t at = 0; at < text_.size();) {
      offsets_.push_back(at);
      chars_.push_back(NextCodePoint(text_.text(), &at));
    }
    offsets_.push_back(text_.size());
    for (size_t at = 0; at < chars_.size(); at = chunks_.back().end)
      chunks_.push_back({at, ChunkEnd(at)});
    while (next_ < chunks_.size()) {
      const TextRange line = NextLine();
      if (line.begin == line.end) continue;
      RETURN_IF_ERROR(rt_.ProduceObjects(1));
      lines_.push_back(text_.Slice(offsets_[line.begin], offsets_[line.end]));
    }
    return std::move(lines_);
  }

 private:
  // 0 beyond either end.
  char32_t At(size_t at) const { return at < chars_.size() ? chars_[at] : 0; }

  // The end of the dash ("--" or longer, between words) that begins here, 0 where none does.
  size_t DashEnd(size_t at) const {
    if (at == 0 || At(at) != '-' || At(at + 1) != '-' || !IsWordEnd(At(at - 1))) return 0;
    size_t end = at;
    while (At(end) == '-') ++end;
    return IsWordChar(At(end)) ? end : 0;
  }

  // "goof-ball" may be broken behind its hyphen, "-b" and "2-3" may not.
  bool IsHyphenOfWord(size_t at) const {
    if (At(at) != '-' || at < 2 || !IsLetter(At(at - 1)) || !IsLetter(At(at + 1))) return false;
    const bool before =
        IsLetter(At(at - 2)) || (at >= 3 && At(at - 2) == '-' && IsLetter(At(at - 3)));
    return before && (IsLetter(At(at + 2)) || (At(at + 2) == '-' && IsLetter(At(at + 3))));
  }

  // Chunks are gaps, dashes and words or their parts; a line ends with one.
  size_t ChunkEnd(size_t begin) const {
    size_t end = begin;
    if (IsGap(chars_[begin])) {
      while (end < chars_.size() && IsGap(chars_[end])) ++end;
      return end;
    }
    const bool hyphens = style_.break_on_hyphens;
    if (const size_t dash = DashEnd(begin); hyphens && dash != 0) return dash;
    for (end = begin + 1; end < chars_.size() && !IsGap(chars_[end]); ++end) {
      if (!hyphens) continue;
      if (IsHyphenOfWord(end)) return end + 1;
      if (DashEnd(end) != 0) return end;
    }
    return end;
  }

  bool IsBlank(const TextRange& chunk) const {
    return std::all_of(chars_.begin() + static_cast<ptrdiff_t>(chunk.begin),
                       chars_.begin() + static_cast<ptrdiff_t>(chunk.end), IsSpace);
  }

  // May be empty.
  TextRange NextLine() {
    if (!lines_.empty() && IsBlank(chunks_[next_])) ++next_;
    std::vector<TextRange> line;
    size_t length = 0;
    for (; next_ < chunks_.size(); ++next_) {
      const size_t chunk = chunks_[next_].end - chunks_[next_].begin;
      if (length + chunk > style_.width) break;
      line.push_back(chunks_[next_]);
      length += chunk;
    }
    if (next_ < chunks_.size() && chunks_[next_].end - chunks_[next_].begin > style_.width)
      AddOfLongWord(style_.width - length, &line);
    if (!line.empty() && IsBlank(line.back())) line.pop_back();
    return line.empty() ? TextRange{0, 0} : TextRange{line.front().begin, line.back().end};
  }

  // As much of the next chunk, which fits into no line, as this one has room for; that may be
  // nothing.
  void AddOfLongWord(size_t room, std::vector<TextRange>* line) {
    TextRange& chunk = chunks_[next_];
    if (!style_.break_long_words) {
      if (!line->empty()) return;
      line->push_back(chunk);
      ++next_;
      return;
    }
    size_t end = chunk.begin + room;
    if (style_.break_on_hyphens) {
      size_t hyphen = end;
      while (hyphen > chunk.begin && chars_[hyphen - 1] != '-') --hyphen;
      const auto first = chars_.begin() + static_cast<ptrdiff_t>(chunk.begin);
      const bool has_more = std::any_of(first, first + static_cast<ptrdiff_t>(hyphen - chunk.begin),
                                        [](char32_t c) { return c != '-'; });
      if (has_more) end = hyphen;
    }
    line->push_back({chunk.begin, end});
    chunk.begin = end;
  }

  Runtime& rt_;
  const MarkedString& text_;
  const WrapStyle& style_;
  std::vector<char32_t> chars_;
  std::vector<size_t> offsets_;  // of each character and of the end, in bytes
  std::vector<TextRange> chunks_;
  size_t next_ = 0;  // chunk
  std::vector<MarkedString> lines_;
};

}  // namespace

Result<std::vector<MarkedString>> WrapWords(Runtime& rt, const MarkedString& text,
                                            const WrapStyle& style) {
  return Wrapper(rt, text, style).Wrap();
}

}  // namespace perdure::text::jinja
