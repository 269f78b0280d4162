#include "text/tokenizer/normalizer.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "base/limits.h"
#include "text/tokenizer/bert_characters.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// Upper case letters newer than utf8proc 2.8's tables (Unicode 15), as Rust's (17) has them.
struct NewCase {
  char32_t first;
  char32_t last;
  char32_t first_lower;
};
constexpr NewCase kNewCases[] = {{0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},
                                 {0xA7CC, 0xA7CC, 0xA7CD},    {0xA7CE, 0xA7CE, 0xA7CF},
                                 {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},
                                 {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},
                                 {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB}};

char32_t ToLower(char32_t c) {
  for (const NewCase& range : kNewCases) {
    if (c >= range.first && c <= range.last) return range.first_lower + (c - range.first);
  }
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

void AppendLower(char32_t c, std::string_view, std::string* out) {
  if (c == 0x130) {
    *out += "i\u0307";  // the one character whose lower case is two (SpecialCasing.txt)
  } else {
    AppendUtf8(ToLower(c), out);
  }
}

// Copies a text part by part into a changed one and carries the marks over.
class Rewriter {
 public:
  explicit Rewriter(const MarkedText& in) : in_(in) { out_.text.reserve(in.text.size()); }

  // `replacement` stands for in.text[begin, end), which lies behind all that was added before.
  void Add(size_t begin, size_t end, std::string_view replacement) {
    const size_t out_begin = out_.text.size();
    out_.text += replacement;
    if (in_.literal.empty()) return;
    while (next_ < in_.literal.size() && in_.literal[next_].end <= begin) ++next_;
    if (replacement.size() == end - begin && replacement == Part(begin, end)) {
      for (size_t i = next_; i < in_.literal.size() && in_.literal[i].begin < end; ++i) {
        Mark(out_begin + std::max(in_.literal[i].begin, begin) - begin,
             out_begin + std::min(in_.literal[i].end, end) - begin);
      }
    } else if (next_ < in_.literal.size() && in_.literal[next_].begin < end) {
      Mark(out_begin, out_.text.size());
    }
  }
  void Keep(size_t begin, size_t end) { Add(begin, end, Part(begin, end)); }

  MarkedText Take() {
    out_.at_start = in_.at_start;
    return std::move(out_);
  }
  size_t size() const { return out_.text.size(); }

 private:
  std::string_view Part(size_t begin, size_t end) const {
    return std::string_view(in_.text).substr(begin, end - begin);
  }
  void Mark(size_t begin, size_t end) {
    if (begin == end) return;
    if (!out_.literal.empty() && out_.literal.back().end == begin) {
      out_.literal.back().end = end;
    } else {
      out_.literal.push_back({begin, end});
    }
  }

  const MarkedText& in_;
  MarkedText out_;
  size_t next_ = 0;
};

Error TooLong(size_t bytes_max) {
  return Error{ErrorCode::invalid_request,
               fmt::format("the text is longer than {} bytes after normalization", bytes_max),
               {},
               0};
}

Result<std::string_view> RequireShortString(const JsonField& field, std::string_view key) {
  ASSIGN_OR_RETURN(const std::string_view text, field.RequireString(key));
  if (text.size() > limits::kTokenizerPatternBytesMax)
    return field.Bad(fmt::format("has a {} of {} bytes; at most {} are supported", key, text.size(),
                                 limits::kTokenizerPatternBytesMax));
  return text;
}

}  // namespace

Result<Regex> PatternFromJson(const JsonField& field) {
  ASSIGN_OR_RETURN(const auto literal, field.GetString("String"));
  const std::string where = fmt::format("{}: {}", field.file(), field.path());
  if (literal) return Regex::CompileLiteral(*literal, where);
  ASSIGN_OR_RETURN(const auto regex, field.GetString("Regex"));
  if (regex) return Regex::Compile(*regex, where);
  return field.Bad("must have a \"String\" or a \"Regex\"");
}

Result<Normalizer> Normalizer::FromJson(const std::optional<JsonField>& field) {
  Normalizer normalizer;
  if (field) RETURN_IF_ERROR(normalizer.Add(*field));
  return normalizer;
}

Status Normalizer::Add(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string_view type, field.RequireString("type"));
  if (steps_.size() >= limits::kTokenizerStepsMax)
    return field.Bad(
        fmt::format("is one step more than the {} that are supported", limits::kTokenizerStepsMax));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonField members, field.RequireMember("normalizers"));
    ASSIGN_OR_RETURN(const size_t count, members.Elements());
    for (size_t i = 0; i < count; ++i) RETURN_IF_ERROR(Add(members.At(i)));
  } else if (type == "NFC") {
    steps_.emplace_back(Unicode{NormalizationForm::kNfc});
  } else if (type == "NFD") {
    steps_.emplace_back(Unicode{NormalizationForm::kNfd});
  } else if (type == "NFKC") {
    steps_.emplace_back(Unicode{NormalizationForm::kNfkc});
  } else if (type == "NFKD") {
    steps_.emplace_back(Unicode{NormalizationForm::kNfkd});
  } else if (type == "Lowercase") {
    steps_.emplace_back(Characters{&AppendLower});
  } else if (type == "BertNormalizer") {
    return AddBert(field);
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(const JsonField pattern, field.RequireMember("pattern"));
    ASSIGN_OR_RETURN(Regex regex, PatternFromJson(pattern));
    ASSIGN_OR_RETURN(const std::string_view content, RequireShortString(field, "content"));
    steps_.emplace_back(Replace{std::move(regex), std::string(content)});
  } else if (type == "Prepend") {
    ASSIGN_OR_RETURN(const std::string_view content, RequireShortString(field, "prepend"));
    steps_.emplace_back(Prepend{std::string(content)});
  } else if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, field.GetBool("strip_left", true));
    ASSIGN_OR_RETURN(const bool right, field.GetBool("strip_right", true));
    steps_.emplace_back(Strip{left, right});
  } else {
    return field.Unsupported(
        fmt::format("is of type \"{}\"; supported are NFC, NFD, NFKC, NFKD, Lowercase, Replace, "
                    "Prepend, Strip, BertNormalizer and Sequence",
                    type));
  }
  return {};
}

Status Normalizer::AddBert(const JsonField& field) {
  ASSIGN_OR_RETURN(const bool clean_text, field.GetBool("clean_text", true));
  ASSIGN_OR_RETURN(const bool chinese, field.GetBool("handle_chinese_chars", true));
  ASSIGN_OR_RETURN(const bool lowercase, field.GetBool("lowercase", true));
  ASSIGN_OR_RETURN(const bool strip_accents, field.GetBool("strip_accents", lowercase));
  if (clean_text) steps_.emplace_back(Characters{&AppendBertCleaned});
  if (chinese) steps_.emplace_back(Characters{&AppendBertSpaced});
  if (strip_accents) {
    steps_.emplace_back(Unicode{NormalizationForm::kNfd});
    steps_.emplace_back(Characters{&AppendBertUnaccented});
  }
  if (lowercase) steps_.emplace_back(Characters{&AppendLower});
  return {};
}

Status Normalizer::Apply(MarkedText* text, RegexRunner& runner) const {
  const size_t bytes_max =
      text->text.size() * limits::kNormalizedGrowthMax + limits::kNormalizedSlackBytes;
  for (const Step& step : steps_) {
    RETURN_IF_ERROR(
        std::visit([&](const auto& alternative) { return Do(alternative, text, runner); }, step));
    if (text->text.size() > bytes_max) return Err(TooLong(bytes_max));
  }
  return {};
}

Status Normalizer::Do(const Unicode& step, MarkedText* text, RegexRunner&) {
  if (text->literal.empty()) {
    text->text = NormalizeUnicode(text->text, step.form);
    return {};
  }
  Rewriter out(*text);
  NormalizeParts(text->text, step.form, [&out](size_t begin, size_t end, std::string_view part) {
    out.Add(begin, end, part);
  });
  *text = out.Take();
  return {};
}

Status Normalizer::Do(const Characters& step, MarkedText* text, RegexRunner&) {
  Rewriter out(*text);
  std::string changed;
  for (size_t i = 0; i < text->text.size();) {
    const Utf8Char c = DecodeUtf8(text->text, i);
    const auto length = static_cast<size_t>(c.length);
    changed.clear();
    step.append(c.code_point, std::string_view(text->text).substr(i, length), &changed);
    if (i == 0 && changed.empty()) text->at_start = false;
    out.Add(i, i + length, changed);
    i += length;
  }
  *text = out.Take();
  return {};
}

Status Normalizer::Do(const Replace& step, MarkedText* text, RegexRunner& runner) {
  std::vector<TextRange> matches;
  RETURN_IF_ERROR(runner.FindAll(step.pattern, text->text, &matches));
  if (matches.empty()) return {};
  if (matches[0].begin == 0 && matches[0].end > 0 && step.content.empty()) text->at_start = false;
  // No step of its own makes more than this of what it was given; Apply() bounds all together.
  const size_t bytes_max =
      text->text.size() * limits::kNormalizedGrowthMax + limits::kNormalizedSlackBytes;
  Rewriter out(*text);
  size_t at = 0;
  for (const TextRange match : matches) {
    out.Keep(at, match.begin);
    out.Add(match.begin, match.end, step.content);
    if (out.size() > bytes_max) return Err(TooLong(bytes_max));
    at = match.end;
  }
  out.Keep(at, text->text.size());
  *text = out.Take();
  return {};
}

Status Normalizer::Do(const Prepend& step, MarkedText* text, RegexRunner&) {
  if (text->text.empty()) return {};
  text->text.insert(0, step.content);
  for (TextRange& range : text->literal) {
    range.begin += step.content.size();
    range.end += step.content.size();
  }
  return {};
}

Status Normalizer::Do(const Strip& step, MarkedText* text, RegexRunner&) {
  size_t begin = 0, end = text->text.size();
  while (step.left && begin < end) {
    const Utf8Char c = DecodeUtf8(text->text, begin);
    if (!IsWhiteSpace(c.code_point)) break;
    begin += static_cast<size_t>(c.length);
  }
  while (step.right && end > begin) {
    const Utf8Char c = DecodeUtf8Before(text->text, end);
    if (!IsWhiteSpace(c.code_point)) break;
    end -= static_cast<size_t>(c.length);
  }
  if (begin > 0) text->at_start = false;
  Rewriter out(*text);
  out.Keep(begin, end);
  *text = out.Take();
  return {};
}

}  // namespace perdure::text
