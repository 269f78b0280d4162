#include "text/template/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view name) : source_(source), name_(name) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) RETURN_IF_ERROR(Root());
    Add(TokenType::kEnd, source_.size(), {});
    return std::move(tokens_);
  }

 private:
  tl::unexpected<Error> ErrorAt(size_t at, std::string_view what) {
    return Err(ErrorCode::bad_model, fmt::format("{}, line {}: {}", name_, LineAt(at), what));
  }

  // Positions ascend but for errors about an opening.
  int LineAt(size_t at) {
    if (at < counted_) {
      counted_ = 0;
      line_ = 1;
    }
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(counted_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    counted_ = at;
    return line_;
  }

  Token& Add(TokenType type, size_t begin, std::string text) {
    Token token;
    token.type = type;
    token.text = std::move(text);
    token.begin = begin;
    token.end = at_;
    token.line = LineAt(begin);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  bool At(std::string_view text, size_t at) const {
    return source_.substr(std::min(at, source_.size())).starts_with(text);
  }

  size_t SkipSpace(size_t at) const {
    while (at < source_.size()) {
      size_t next = at;
      if (!IsSpace(NextCodePoint(source_, &next))) break;
      at = next;
    }
    return at;
  }

  static size_t TrimmedEnd(std::string_view text) {
    size_t end = text.size();
    while (end > 0) {
      size_t begin = end - 1;
      while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
      size_t next = begin;
      if (!IsSpace(NextCodePoint(text, &next))) break;
      end = begin;
    }
    return end;
  }

  // Data in front of a tag whose sign is `sign`, by the rules of "-", "+" and lstrip_blocks.
  void AddData(size_t begin, size_t end, char sign, bool is_variable) {
    std::string_view text = source_.substr(begin, end - begin);
    if (sign == '-') {
      text = text.substr(0, TrimmedEnd(text));
    } else if (sign != '+' && !is_variable) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && TrimmedEnd(text.substr(line_begin)) == 0)
        text = text.substr(0, line_begin);
    }
    if (!text.empty()) Add(TokenType::kData, begin, std::string(text));
  }

  // "%}" and "+%}" drop one newline behind them, "-%}" all white space. 0: not here.
  size_t BlockEnd(size_t at, std::string_view close) const {
    if (At("-", at) && At(close, at + 1)) return SkipSpace(at + 1 + close.size());
    if (At("+", at) && At(close, at + 1)) return at + 1 + close.size();
    if (!At(close, at)) return 0;
    at += close.size();
    return At("\n", at) ? at + 1 : at;
  }

  void MoveTo(size_t at) {
    line_starting_ = at > 0 && source_[at - 1] == '\n';
    at_ = at;
  }

  Status Root() {
    const size_t begin = at_;
    size_t tag = begin;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        at_ = source_.size();
        Add(TokenType::kData, begin, std::string(source_.substr(begin)));
        return {};
      }
      const char c = source_[tag + 1];
      if (c == '%' || c == '{' || c == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = At("-", tag + 2) ? '-' : At("+", tag + 2) ? '+' : 0;
    const size_t inside = tag + 2 + (sign != 0);
    at_ = tag;
    AddData(begin, tag, sign, kind == '{');
    if (kind == '#') return Comment(tag, inside);
    if (kind == '{') {
      at_ = inside;
      Add(TokenType::kVariableBegin, tag, {});
      return Tag(tag, "}}", TokenType::kVariableEnd);
    }
    if (const size_t raw = RawBegin(inside); raw != 0) return Raw(tag, raw);
    at_ = inside;
    Add(TokenType::kBlockBegin, tag, {});
    return Tag(tag, "%}", TokenType::kBlockEnd);
  }

  Status Comment(size_t tag, size_t inside) {
    for (size_t at = inside; at < source_.size(); ++at) {
      at = source_.find('#', at);
      if (at == std::string_view::npos) break;
      if (!At("#}", at)) continue;
      // The sign belongs to the closing unless it is the opening's own.
      const bool has_sign = at > inside && (source_[at - 1] == '-' || source_[at - 1] == '+');
      MoveTo(BlockEnd(has_sign ? at - 1 : at, "#}"));
      return {};
    }
    return ErrorAt(tag, "the comment is not closed");
  }

  // Behind "{% raw %}", or 0.
  size_t RawBegin(size_t at) const {
    at = SkipSpace(at);
    if (!At("raw", at)) return 0;
    at = SkipSpace(at + 3);
    if (At("-%}", at)) return SkipSpace(at + 3);
    return At("%}", at) ? at + 2 : 0;
  }

  Status Raw(size_t tag, size_t begin) {
    line_starting_ = source_[begin - 1] == '\n';
    for (size_t at = begin;; at += 2) {
      at = source_.find("{%", at);
      if (at == std::string_view::npos) return ErrorAt(tag, "the raw block is not closed");
      const char sign = At("-", at + 2) ? '-' : At("+", at + 2) ? '+' : 0;
      size_t inside = SkipSpace(at + 2 + (sign != 0));
      if (!At("endraw", inside)) continue;
      inside = SkipSpace(inside + 6);
      const size_t end = BlockEnd(inside, "%}");
      if (end == 0) continue;
      at_ = at;
      AddData(begin, at, sign, false);
      MoveTo(end);
      return {};
    }
  }

  // The tokens of one {{ … }} or {% … %}.
  Status Tag(size_t tag, std::string_view close, TokenType end_type) {
    std::string open_brackets;
    while (true) {
      if (open_brackets.empty()) {
        const size_t begin = at_;
        size_t end = 0;
        if (end_type == TokenType::kBlockEnd)
          end = BlockEnd(at_, close);
        else if (At("-", at_) && At(close, at_ + 1))
          end = SkipSpace(at_ + 3);
        else if (At(close, at_))
          end = at_ + 2;
        if (end != 0) {
          MoveTo(end);
          Add(end_type, begin, {});
          return {};
        }
      }
      at_ = SkipSpace(at_);
      if (at_ >= source_.size())
        return ErrorAt(tag, fmt::format("'{}' expected before the end of the template", close));
      // White space may have led to the end of the tag.
      if (open_brackets.empty() &&
          (At(close, at_) || ((At("-", at_) || At("+", at_)) && At(close, at_ + 1)))) {
        if (end_type == TokenType::kBlockEnd || !At("+", at_)) continue;
      }
      RETURN_IF_ERROR(Lexeme(&open_brackets));
    }
  }

  Status Lexeme(std::string* open_brackets) {
    const char c = source_[at_];
    if (IsDigitChar(c)) return Number();
    if (c == '\'' || c == '"') return String();
    if (c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        static_cast<unsigned char>(c) >= 0x80)
      return Name();
    for (const std::string_view op : kOperators) {
      if (!At(op, at_)) continue;
      if (op == "(" || op == "[" || op == "{")
        open_brackets->push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
      if (op == ")" || op == "]" || op == "}") {
        if (open_brackets->empty()) return ErrorAt(at_, fmt::format("unexpected '{}'", op));
        if (open_brackets->back() != op[0])
          return ErrorAt(at_,
                         fmt::format("unexpected '{}', expected '{}'", op, open_brackets->back()));
        open_brackets->pop_back();
      }
      const size_t begin = at_;
      at_ += op.size();
      Add(TokenType::kOperator, begin, std::string(op));
      return {};
    }
    return ErrorAt(at_, fmt::format("unexpected character '{}'", c));
  }

  Status Name() {
    const size_t begin = at_;
    while (at_ < source_.size()) {
      size_t next = at_;
      const char32_t c = NextCodePoint(source_, &next);
      if (c < 0x80 && c != '_' && !IsDigitChar(static_cast<char>(c)) && !IsAlpha(c)) break;
      if (c >= 0x80 && IsSpace(c)) break;
      at_ = next;
    }
    const std::string_view text = source_.substr(begin, at_ - begin);
    if (!IsIdentifier(text))
      return ErrorAt(begin, fmt::format("invalid character in the name '{}'", text));
    Add(TokenType::kName, begin, std::string(text));
    return {};
  }

  // Digits with single underscores between them.
  size_t Digits(size_t at) const {
    while (at < source_.size() &&
           (IsDigitChar(source_[at]) ||
            (source_[at] == '_' && at + 1 < source_.size() && IsDigitChar(source_[at + 1]))))
      ++at;
    return at;
  }

  Status Number() {
    const size_t begin = at_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    size_t end = Digits(begin);
    bool is_float = false;
    if (!after_dot) {
      if (At(".", end) && end + 1 < source_.size() && IsDigitChar(source_[end + 1])) {
        end = Digits(end + 1);
        is_float = true;
      }
      if (At("e", end) || At("E", end)) {
        size_t exponent = end + 1;
        if (At("+", exponent) || At("-", exponent)) ++exponent;
        if (exponent < source_.size() && IsDigitChar(source_[exponent])) {
          end = Digits(exponent);
          is_float = true;
        }
      }
    }
    if (!is_float) return Integer(begin);
    std::string digits(source_.substr(begin, end - begin));
    std::erase(digits, '_');
    at_ = end;
    Add(TokenType::kFloat, begin, {}).number = std::strtod(digits.c_str(), nullptr);
    return {};
  }

  Status Integer(size_t begin) {
    unsigned base = 10;
    size_t at = begin;
    if (source_[at] == '0' && at + 2 <= source_.size()) {
      const char mark = at + 1 < source_.size() ? static_cast<char>(source_[at + 1] | 0x20) : ' ';
      if (mark == 'x') base = 16;
      if (mark == 'o') base = 8;
      if (mark == 'b') base = 2;
    }
    if (base != 10) at += 2;
    const bool zeroes = base == 10 && source_[begin] == '0';
    Int value = 0;
    size_t digits = 0;
    for (; at < source_.size(); ++at) {
      const char c = source_[at];
      if (c == '_' && (digits > 0 || base != 10)) continue;
      const char lower = static_cast<char>(c | 0x20);
      const unsigned digit = IsDigitChar(c) ? static_cast<unsigned>(c - '0')
                             : (lower >= 'a' && lower <= 'f')
                                 ? static_cast<unsigned>(lower - 'a') + 10
                                 : 99;
      if (digit >= base || (zeroes && digit != 0)) break;
      if (__builtin_mul_overflow(value, Int{base}, &value) ||
          __builtin_add_overflow(value, Int{digit}, &value))
        return ErrorAt(begin, "the integer is too large");
      ++digits;
    }
    if (digits == 0) return ErrorAt(begin, "a number without digits");
    at_ = at;
    Add(TokenType::kInteger, begin, std::string(source_.substr(begin, at - begin))).integer = value;
    return {};
  }

  Status String() {
    const size_t begin = at_;
    const char quote = source_[begin];
    std::string text;
    size_t at = begin + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\') {
        text += source_[at++];
        continue;
      }
      RETURN_IF_ERROR(Escape(&at, &text));
    }
    if (at >= source_.size()) return ErrorAt(begin, "the string is not closed");
    at_ = at + 1;
    Add(TokenType::kString, begin, std::move(text));
    return {};
  }

  Status Escape(size_t* at, std::string* out) {
    const size_t begin = *at;
    if (begin + 1 >= source_.size()) return ErrorAt(begin, "the string is not closed");
    const char c = source_[begin + 1];
    *at = begin + 2;
    constexpr std::string_view kFrom = "\\'\"abfnrtv";
    constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    if (c == '\n') return {};
    if (const size_t i = kFrom.find(c); i != std::string_view::npos) {
      *out += kTo[i];
      return {};
    }
    if (c >= '0' && c <= '7') {
      char32_t value = 0;
      size_t end = begin + 1;
      while (end < source_.size() && end < begin + 4 && source_[end] >= '0' && source_[end] <= '7')
        value = value * 8 + static_cast<char32_t>(source_[end++] - '0');
      *at = end;
      AppendCodePoint(out, value);
      return {};
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length > 0) {
      const std::string_view digits = source_.substr(*at, length);
      uint32_t value = 0;
      const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
      if (digits.size() < length || read.ptr != digits.data() + length || value > 0x10ffff ||
          (value >= 0xd800 && value < 0xe000))
        return ErrorAt(begin, fmt::format("'\\{}{}' is not a character", c, digits));
      *at += length;
      AppendCodePoint(out, value);
      return {};
    }
    if (c == 'N') return ErrorAt(begin, "characters by name (\\N) are not supported");
    *out += '\\';
    *out += c;
    return {};
  }

  std::string_view source_;
  std::string_view name_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t counted_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

std::string NormalizeSource(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text += source[i];
      continue;
    }
    text += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

Result<std::vector<Token>> Tokenize(std::string_view source, std::string_view name) {
  return Lexer(source, name).Run();
}

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kData:
      return "text";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "'}}'";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "'%}'";
    case TokenType::kString:
      return "a string";
    case TokenType::kInteger:
    case TokenType::kFloat:
      return "a number";
    case TokenType::kName:
    case TokenType::kOperator:
      return "'" + token.text + "'";
    case TokenType::kEnd:
      return "the end of the template";
  }
  return "a token";
}

}  // namespace perdure::text::jinja
