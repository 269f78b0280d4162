#include "text/template/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/limits.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

std::string DigitsIn(unsigned base, Int value, bool upper) {
  auto magnitude = static_cast<unsigned __int128>(value);
  if (value < 0) magnitude = -magnitude;
  std::string digits;
  do {
    const auto digit = static_cast<unsigned>(magnitude % base);
    digits += digit < 10 ? static_cast<char>('0' + digit)
                         : static_cast<char>((upper ? 'A' : 'a') + digit - 10);
    magnitude /= base;
  } while (magnitude > 0);
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string Group(const std::string& digits, char separator, size_t size) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % size == 0) out += separator;
    out += digits[i];
  }
  return out;
}

// Without sign.
std::string FloatDigits(double value, char type, int precision, bool alternate) {
  const bool upper = type == 'E' || type == 'F' || type == 'G';
  if (!std::isfinite(value))
    return std::isnan(value) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
  value = std::fabs(value);
  switch (type) {
    case 'e':
    case 'E':
      return upper ? (alternate ? fmt::format("{:#.{}E}", value, precision)
                                : fmt::format("{:.{}E}", value, precision))
                   : (alternate ? fmt::format("{:#.{}e}", value, precision)
                                : fmt::format("{:.{}e}", value, precision));
    case 'g':
    case 'G': {
      const int digits = std::max(precision, 1);
      return upper ? (alternate ? fmt::format("{:#.{}G}", value, digits)
                                : fmt::format("{:.{}G}", value, digits))
                   : (alternate ? fmt::format("{:#.{}g}", value, digits)
                                : fmt::format("{:.{}g}", value, digits));
    }
    default:
      return alternate ? fmt::format("{:#.{}f}", value, precision)
                       : fmt::format("{:.{}f}", value, precision);
  }
}

std::string SignOf(bool negative, char sign) {
  if (negative) return "-";
  if (sign == '+' || sign == ' ') return std::string(1, sign);
  return {};
}

// Zeroes between sign (and prefix) and digits, up to the width.
std::string ZeroPadded(const std::string& sign, std::string digits, const FormatSpec& spec) {
  const auto width = static_cast<size_t>(std::max<int64_t>(spec.width, 0));
  if (spec.align == '=' && spec.fill.text() == "0" && sign.size() + digits.size() < width)
    digits.insert(0, width - sign.size() - digits.size(), '0');
  return sign + digits;
}

}  // namespace

Result<MarkedString> FormatNumber(const Value& value, const FormatSpec& spec) {
  if (spec.width > limits::kTemplateFormatWidthMax ||
      spec.precision > limits::kTemplateFormatWidthMax)
    return Fail(
        fmt::format("a format's width or precision is over {}", limits::kTemplateFormatWidthMax));
  char type = spec.type;
  if (type == 'n') type = value.IsIntegral() ? 'd' : 'g';  // "C" locale
  const bool whole = type == 0 ? value.IsIntegral()
                               : std::string_view("diubxXoc").find(type) != std::string_view::npos;
  if (whole) {
    if (!value.IsIntegral())
      return Fail(fmt::format("format '{}' needs an integer, not {}", type, TypeName(value)));
    const Int n = value.integral();
    if (type == 'c') {
      if (n < 0 || n > 0x10ffff || (n >= 0xd800 && n < 0xe000))
        return Fail("format 'c' needs a code point");
      std::string text;
      AppendCodePoint(&text, static_cast<char32_t>(n));
      return MarkedString(text);
    }
    const unsigned base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    std::string digits = DigitsIn(base, n, type == 'X');
    if (spec.precision > static_cast<int64_t>(digits.size()))
      digits.insert(0, static_cast<size_t>(spec.precision) - digits.size(), '0');
    if (spec.grouping != 0) digits = Group(digits, spec.grouping, base == 10 ? 3 : 4);
    std::string sign = SignOf(n < 0, spec.sign);
    if (spec.alternate && base != 10) sign += std::string("0") + type;
    return MarkedString(ZeroPadded(sign, std::move(digits), spec));
  }
  const double number = value.number();
  const bool percent = type == '%';
  std::string digits;
  if (type == 0 && spec.precision < 0) {
    digits = FloatRepr(std::fabs(number));
  } else {
    const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
    digits = FloatDigits(percent ? number * 100 : number,
                         percent     ? 'f'
                         : type == 0 ? 'g'
                                     : type,
                         precision, spec.alternate);
  }
  if (spec.grouping != 0) {
    const size_t point = std::min(digits.find('.'), digits.size());
    digits = Group(digits.substr(0, point), spec.grouping, 3) + digits.substr(point);
  }
  if (percent) digits += '%';
  return MarkedString(
      ZeroPadded(SignOf(std::signbit(number) && !std::isnan(number), spec.sign), digits, spec));
}

Result<MarkedString> Pad(Runtime& rt, MarkedString text, const FormatSpec& spec,
                         char default_align) {
  if (spec.width > limits::kTemplateFormatWidthMax)
    return Fail(fmt::format("a format's width is over {}", limits::kTemplateFormatWidthMax));
  const size_t length = CountCodePoints(text.text());
  if (spec.width <= static_cast<int64_t>(length)) return text;
  const size_t missing = static_cast<size_t>(spec.width) - length;
  RETURN_IF_ERROR(rt.Fits(text.size() + missing * spec.fill.size()));
  const char align = spec.align != 0 ? spec.align : default_align;
  const size_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  MarkedString out;
  for (size_t i = 0; i < left; ++i) out.Append(spec.fill);
  out.Append(text);
  for (size_t i = left; i < missing; ++i) out.Append(spec.fill);
  return out;
}

namespace {

class PercentFormatter {
 public:
  PercentFormatter(Runtime& rt, const MarkedString& format, const Value& values)
      : rt_(rt), format_(format), text_(format.text()), values_(values) {}

  Result<Value> Run() {
    while (at_ < text_.size()) {
      const size_t percent = std::min(text_.find('%', at_), text_.size());
      out_.AppendSlice(format_, at_, percent);
      at_ = percent;
      if (at_ < text_.size()) RETURN_IF_ERROR(Directive());
      RETURN_IF_ERROR(rt_.Fits(out_.bytes()));
    }
    const size_t given = values_.IsTuple() ? values_.items().size() : values_.IsDict() ? 0 : 1;
    // A list, dict or undefined may go unused, as in Python; a plain value may not.
    const bool may_be_unused = values_.IsDict() || values_.IsList() || values_.IsUndefined() ||
                               AsRange(values_) != nullptr;
    if (!may_be_unused && used_ < given)
      return Fail("not all arguments converted during string formatting");
    out_.set_escaped(format_.escaped());
    return rt_.NewString(std::move(out_));
  }

 private:
  Result<Value> Next() {
    if (values_.IsTuple()) {
      if (used_ >= values_.items().size()) return Fail("not enough arguments for format string");
      return values_.items()[used_++];
    }
    if (used_ > 0) return Fail("not enough arguments for format string");
    ++used_;
    return values_;
  }

  Result<int64_t> Number() {
    if (at_ < text_.size() && text_[at_] == '*') {
      ++at_;
      ASSIGN_OR_RETURN(const Value value, Next());
      if (!value.IsIntegral() || !FitsInt64(value.integral())) return Fail("* wants an integer");
      return static_cast<int64_t>(value.integral());
    }
    int64_t number = 0;
    const char* begin = text_.data() + at_;
    const auto parsed = std::from_chars(begin, text_.data() + text_.size(), number);
    if (parsed.ec == std::errc::result_out_of_range) return Fail("a format's width is too large");
    at_ += static_cast<size_t>(parsed.ptr - begin);
    return number;
  }

  Status Directive() {
    ++at_;
    std::optional<Value> named;
    if (at_ < text_.size() && text_[at_] == '(') {
      const size_t close = text_.find(')', at_);
      if (close == std::string_view::npos) return Fail("incomplete format key");
      if (!values_.IsDict()) return Fail("format requires a mapping");
      const Value* found = values_.dict().Find(text_.substr(at_ + 1, close - at_ - 1));
      if (found == nullptr)
        return Fail(fmt::format("format: no key '{}'", text_.substr(at_ + 1, close - at_ - 1)));
      named = *found;
      at_ = close + 1;
    }
    FormatSpec spec;
    bool zero = false;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '-')
        spec.align = '<';
      else if (c == '0')
        zero = true;
      else if (c == '+' || (c == ' ' && spec.sign != '+'))
        spec.sign = c;
      else if (c == '#')
        spec.alternate = true;
      else if (c != ' ')
        break;
    }
    if (at_ < text_.size() && (text_[at_] == '*' || (text_[at_] >= '0' && text_[at_] <= '9'))) {
      ASSIGN_OR_RETURN(spec.width, Number());
      if (spec.width < 0) {
        spec.align = '<';
        spec.width = -spec.width;
      }
    }
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      ASSIGN_OR_RETURN(spec.precision, Number());
    }
    while (at_ < text_.size() && (text_[at_] == 'l' || text_[at_] == 'h' || text_[at_] == 'L'))
      ++at_;
    if (at_ >= text_.size()) return Fail("incomplete format");
    const char type = text_[at_++];
    if (type == '%') {
      out_.Append("%");
      return {};
    }
    Value value;
    if (named) {
      value = *named;
    } else {
      ASSIGN_OR_RETURN(value, Next());
    }
    return Convert(value, type, spec, zero);
  }

  Status Convert(const Value& value, char type, FormatSpec spec, bool zero) {
    MarkedString text;
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        if (type == 's') {
          ASSIGN_OR_RETURN(text, ToStr(rt_, value));
        } else {
          RETURN_IF_ERROR(AppendRepr(rt_, value, &text));
        }
        if (format_.escaped()) text = Escaped(text);
        if (spec.precision >= 0)
          text = text.Slice(0, OffsetOfCodePoint(text.text(), static_cast<size_t>(spec.precision)));
        break;
      }
      case 'c':
        if (format_.escaped()) return Fail("%c requires int or char");
        if (value.IsString()) {
          if (CountCodePoints(value.text()) != 1) return Fail("%c requires int or char");
          text = value.string();
          break;
        }
        [[fallthrough]];
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        if (value.IsUndefined()) return FailUndefined(value);
        if (format_.escaped() && (type == 'x' || type == 'X' || type == 'o'))
          return Fail(fmt::format("%{} format: an integer is required", type));
        if (!value.IsNumber())
          return Fail(
              fmt::format("%{} format: a number is required, not {}", type, TypeName(value)));
        Value number = value;
        if (type == 'd' || type == 'i' || type == 'u') {
          spec.type = 'd';
          if (value.IsFloat()) {
            const double whole = std::trunc(value.number());
            if (!(std::fabs(whole) < 1e38)) return Fail("%d format: the number is too large");
            number = Value::Integer(static_cast<Int>(whole));
          }
        } else {
          spec.type = type;
        }
        if (zero && spec.align == 0) {
          spec.fill = MarkedString("0");
          spec.align = '=';
        }
        ASSIGN_OR_RETURN(text, FormatNumber(number, spec));
        if (spec.align == '=') spec.width = 0;
        break;
      }
      default:
        return Fail(fmt::format("unsupported format character '{}'", type));
    }
    ASSIGN_OR_RETURN(text, Pad(rt_, std::move(text), spec, '>'));
    out_.Append(text);
    return {};
  }

  Runtime& rt_;
  const MarkedString& format_;
  std::string_view text_;
  const Value& values_;
  MarkedString out_;
  size_t at_ = 0;
  size_t used_ = 0;
};

}  // namespace

Result<Value> PercentFormat(Runtime& rt, const MarkedString& format, const Value& values) {
  RETURN_IF_ERROR(rt.Charge(static_cast<int64_t>(format.size())));
  return PercentFormatter(rt, format, values).Run();
}

}  // namespace perdure::text::jinja
