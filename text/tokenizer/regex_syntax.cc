// Oniguruma's pattern syntax in PCRE2's words (see TranslateOniguruma in regex.h).
#include <fmt/format.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/limits.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode_members.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

constexpr std::string_view kSpace = "\\p{White_Space}";
constexpr std::string_view kNotSpace = "\\P{White_Space}";
constexpr std::string_view kHexMembers = "0-9a-fA-F";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view where) : in_(pattern), where_(where) {}

  Result<std::string> Run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        RETURN_IF_ERROR(Escape(/*in_class=*/false));
      } else if (c == '[') {
        RETURN_IF_ERROR(CharacterClass());
      } else if (c == '(') {
        RETURN_IF_ERROR(OpenGroup());
      } else if (c == '{') {
        RETURN_IF_ERROR(Brace());
      } else {
        Copy(1);
      }
    }
    return std::move(out_);
  }

 private:
  tl::unexpected<Error> Unsupported(std::string_view what) const {
    return Err(ErrorCode::unsupported,
               fmt::format("{} uses {} (at {}), which is not supported", where_, what, at_));
  }
  void Copy(size_t n) {
    out_ += in_.substr(at_, n);
    at_ += n;
  }
  void Replace(size_t n, std::string_view by) {
    out_ += by;
    at_ += n;
  }
  bool LookingAt(std::string_view s) const { return in_.substr(at_).starts_with(s); }

  Status Escape(bool in_class) {
    if (at_ + 1 >= in_.size()) {
      return Err(ErrorCode::bad_model, fmt::format("{} ends in a backslash", where_));
    }
    const char c = in_[at_ + 1];
    switch (c) {
      case 's':
        Replace(2, kSpace);
        return {};
      case 'S':
        Replace(2, kNotSpace);
        return {};
      case 'w':
        Replace(2, in_class ? OnigurumaWordMembersInClass() : fmt::format("[{}]", word_members_));
        return {};
      case 'd':
        Replace(2, in_class ? *PropertyMembers("Nd") : fmt::format("[{}]", *PropertyMembers("Nd")));
        return {};
      case 'D':
        if (in_class) return Unsupported("\\D inside a character class");
        Replace(2, fmt::format("[^{}]", *PropertyMembers("Nd")));
        return {};
      case 'h':
        Replace(2, in_class ? std::string(kHexMembers) : fmt::format("[{}]", kHexMembers));
        return {};
      case 'W':
      case 'H':
        if (in_class) return Unsupported("\\W or \\H inside a character class");
        Replace(2, fmt::format("[^{}]", c == 'W' ? word_members_ : kHexMembers));
        return {};
      case 'b':
      case 'B':
        if (in_class && c == 'b') break;  // a backspace in both
        if (c == 'b') {
          Replace(2, fmt::format("(?:(?<=[{0}])(?![{0}])|(?<![{0}])(?=[{0}]))", word_members_));
        } else {
          Replace(2, fmt::format("(?:(?<=[{0}])(?=[{0}])|(?<![{0}])(?![{0}]))", word_members_));
        }
        return {};
      case 'u':
        if (at_ + 6 > in_.size()) return Unsupported("an incomplete \\u escape");
        out_ += fmt::format("\\x{{{}}}", in_.substr(at_ + 2, 4));
        at_ += 6;
        return {};
      // The same letters with other meanings, or meanings that PCRE2 lacks.
      case 'C':
      case 'M':
      case 'N':
      case 'O':
      case 'Q':
      case 'E':
      case 'X':
      case 'y':
      case 'Y':
      case 'g':
        return Unsupported(fmt::format("the escape \\{}", c));
      default:
        break;
    }
    if (c == 'p' || c == 'P') return Property(in_class);
    Copy(1 + static_cast<size_t>(DecodeUtf8(in_, at_ + 1).length));
    return {};
  }

  // \p{Name}, \P{Name}, \p{^Name}.
  Status Property(bool in_class) {
    bool negated = in_[at_ + 1] == 'P';
    const size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos)
      return Unsupported("\\p without a name in braces");
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const std::optional<std::string> members = PropertyMembers(name);
    if (!members) return Unsupported(fmt::format("the property \\p{{{}}}", name));
    if (negated && in_class) return Unsupported("a negated property inside a character class");
    Replace(close + 1 - at_,
            in_class ? *members : fmt::format("[{}{}]", negated ? "^" : "", *members));
    return {};
  }

  Status CharacterClass() {
    Copy(1);
    if (LookingAt("^")) Copy(1);
    if (LookingAt("]")) return Unsupported("an empty character class");
    while (at_ < in_.size()) {
      if (in_[at_] == ']') {
        Copy(1);
        return {};
      }
      if (in_[at_] == '\\') {
        RETURN_IF_ERROR(Escape(/*in_class=*/true));
      } else if (LookingAt("[:space:]")) {
        Replace(9, kSpace);
      } else if (LookingAt("[:digit:]")) {
        Replace(9, *PropertyMembers("Nd"));
      } else if (in_[at_] == '[') {
        return Unsupported("a class inside a class");
      } else if (LookingAt("&&")) {
        return Unsupported("an intersection of classes");
      } else {
        Copy(1);
      }
    }
    return Err(ErrorCode::bad_model,
               fmt::format("{} has a character class without an end", where_));
  }

  Status OpenGroup() {
    if (LookingAt("(*")) return Unsupported("(*…)");
    if (!LookingAt("(?")) {
      Copy(1);
      return {};
    }
    Copy(2);
    for (const std::string_view plain : {":", "=", "!", ">", "<=", "<!"}) {
      if (LookingAt(plain)) {
        Copy(plain.size());
        return {};
      }
    }
    // Options: Oniguruma's m is what PCRE2 calls s.
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == ':' || c == ')') {
        Copy(1);
        return {};
      }
      if (c == 'm') {
        Replace(1, "s");
      } else if (c == 'i' || c == '-') {
        Copy(1);
      } else {
        break;
      }
    }
    return Unsupported("this kind of (?…) group");
  }

  // {n}, {n,}, {,m} and {n,m} are repeats, other braces stand for themselves in both.
  Status Brace() {
    size_t end = at_ + 1;
    size_t commas = 0, digits = 0;
    while (end < in_.size() && (IsDigit(in_[end]) || in_[end] == ',')) {
      (in_[end] == ',' ? commas : digits) += 1;
      ++end;
    }
    if (end >= in_.size() || in_[end] != '}' || commas > 1 || digits == 0) {
      Copy(1);
      return {};
    }
    const char next = end + 1 < in_.size() ? in_[end + 1] : '\0';
    if (next == '+' || (next == '?' && commas == 0)) {
      return Unsupported("a repeat of a {…} repeat");
    }
    if (LookingAt("{,")) Replace(1, "{0");
    Copy(end + 1 - at_);
    return {};
  }

  std::string_view in_;
  std::string_view where_;
  size_t at_ = 0;
  std::string out_;
  const std::string word_members_ = OnigurumaWordMembers();
};

}  // namespace

Result<std::string> TranslateOniguruma(std::string_view pattern, std::string_view where) {
  if (pattern.size() > limits::kTokenizerPatternBytesMax) {
    return Err(ErrorCode::bad_model,
               fmt::format("{} is {} bytes long; at most {} are supported", where, pattern.size(),
                           limits::kTokenizerPatternBytesMax));
  }
  return Translator(pattern, where).Run();
}

}  // namespace perdure::text
