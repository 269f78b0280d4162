// int, float, abs, round and filesizeformat.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "text/template/filters.h"
#include "text/template/operators.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

// White space stripped, other scripts' decimal digits as ASCII; underscores only between digits.
std::optional<std::string> PlainNumber(const MarkedString& marked) {
  const MarkedString stripped = Strip(marked, std::nullopt, Side::kBoth);
  std::string out;
  bool after_digit = false;
  const std::string_view text = stripped.text();
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    if (c == '_') {
      if (!after_digit || at >= text.size() || !std::isalnum(static_cast<unsigned char>(text[at])))
        return std::nullopt;
      after_digit = false;
      continue;
    }
    if (c >= 0x80) {
      if (!IsDecimal(c)) return std::nullopt;
      // Decimal digits of a script stand in tens, in order.
      char32_t zero = c;
      while (zero > 0 && c - zero < 9 && IsDecimal(zero - 1)) --zero;
      out += static_cast<char>('0' + (c - zero) % 10);
      after_digit = true;
      continue;
    }
    out += static_cast<char>(c);
    after_digit = std::isalnum(static_cast<unsigned char>(c)) != 0;
  }
  return out;
}

std::optional<double> ParseFloat(const MarkedString& marked) {
  const auto text = PlainNumber(marked);
  if (!text || text->empty()) return std::nullopt;
  // strtod also takes hexadecimal and "nan(…)", Python does not.
  for (const char c : *text)
    if (c == 'x' || c == 'X' || c == '(' || c == 'p' || c == 'P') return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(text->c_str(), &end);
  if (end != text->c_str() + text->size()) return std::nullopt;
  return value;
}

// nullopt: not an integer; an error: one that is too large.
Result<std::optional<Int>> ParseInt(const MarkedString& marked, unsigned base) {
  const auto plain = PlainNumber(marked);
  if (!plain) return std::optional<Int>();
  std::string_view text = *plain;
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const auto prefix_base = [&]() -> unsigned {
    if (text.size() < 2 || text[0] != '0') return 0;
    const char mark = static_cast<char>(text[1] | 0x20);
    return mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  }();
  if (prefix_base != 0 && (base == 0 || base == prefix_base)) {
    base = prefix_base;
    text.remove_prefix(2);
  }
  if (base == 0) base = 10;
  if (text.empty()) return std::optional<Int>();
  Int value = 0;
  for (const char c : text) {
    const char lower = static_cast<char>(c | 0x20);
    const unsigned digit = c >= '0' && c <= '9'           ? static_cast<unsigned>(c - '0')
                           : lower >= 'a' && lower <= 'z' ? static_cast<unsigned>(lower - 'a') + 10
                                                          : 99;
    if (digit >= base) return std::optional<Int>();
    if (__builtin_mul_overflow(value, Int{base}, &value) ||
        __builtin_add_overflow(value, Int{digit}, &value))
      return Fail("int: the number is too large");
  }
  return std::optional<Int>(negative ? -value : value);
}

// int(number); nullopt for NaN, an error for what is too large.
Result<std::optional<Int>> Truncated(double value) {
  if (std::isnan(value)) return std::optional<Int>();
  if (std::fabs(value) >= 1e38) return Fail("int: the number is too large");
  return std::optional<Int>(static_cast<Int>(value));
}

Result<Value> IntFilter(Runtime&, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("int", args, {"default", "base"}));
  if (value.IsUndefined()) return FailUndefined(value);
  const Value fallback = bound[0].IsAbsent() ? Value::Integer(0) : bound[0];
  if (value.IsIntegral()) return Value::Integer(value.integral());
  std::optional<Int> number;
  if (value.IsFloat()) {
    ASSIGN_OR_RETURN(number, Truncated(value.number()));
  } else if (value.IsString()) {
    ASSIGN_OR_RETURN(const Int base, IntArg(bound[1], 10, "int: base"));
    if (base == 1 || base < 0 || base > 36) return fallback;
    ASSIGN_OR_RETURN(number, ParseInt(value.string(), static_cast<unsigned>(base)));
    if (!number) {
      const auto parsed = ParseFloat(value.string());
      if (parsed && std::isfinite(*parsed)) {
        ASSIGN_OR_RETURN(number, Truncated(*parsed));
      }
    }
  }
  return number ? Value::Integer(*number) : fallback;
}

Result<Value> FloatFilter(Runtime&, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("float", args, {"default"}));
  if (value.IsUndefined()) return FailUndefined(value);
  if (value.IsNumber()) return Value::Float(value.number());
  if (value.IsString()) {
    if (const auto number = ParseFloat(value.string())) return Value::Float(*number);
  }
  return bound[0].IsAbsent() ? Value::Float(0) : bound[0];
}

Result<Value> Abs(Runtime&, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("abs", args, {}));
  if (value.IsUndefined()) return FailUndefined(value);
  if (value.IsFloat()) return Value::Float(std::fabs(value.number()));
  if (!value.IsIntegral())
    return Fail(fmt::format("bad operand type for abs(): '{}'", TypeName(value)));
  return value.integral() < 0 ? Negate(value) : Plus(value);
}

// Python's round(): to the nearest, ties to even, by the exact decimal value.
Result<Value> Rounded(const Value& value, Int precision) {
  constexpr Int kDigitsMax = 300;  // beyond it a double has no digit to change
  if (value.IsIntegral()) {
    const Int n = value.integral();
    if (precision >= 0) return Value::Integer(n);
    if (precision < -37) return Value::Integer(0);
    Int unit = 1;
    for (Int i = 0; i < -precision; ++i) unit *= 10;
    Int quotient = n / unit;
    Int rest = n % unit;
    if (rest < 0) {
      rest += unit;
      --quotient;
    }
    const Int twice = rest - (unit - rest);
    if (twice > 0 || (twice == 0 && (quotient & 1) != 0)) ++quotient;
    Int result = 0;
    if (__builtin_mul_overflow(quotient, unit, &result))
      return Fail("an integer result is too large");
    return Value::Integer(result);
  }
  const double x = value.number();
  if (!std::isfinite(x) || precision > kDigitsMax) return value;
  if (precision < -kDigitsMax) return Value::Float(std::copysign(0.0, x));
  if (precision >= 0) {
    const std::string text = fmt::format("{:.{}f}", x, static_cast<int>(precision));
    return Value::Float(std::strtod(text.c_str(), nullptr));
  }
  const double unit = std::pow(10.0, static_cast<double>(-precision));
  return Value::Float(std::nearbyint(x / unit) * unit);
}

Result<Value> Round(Runtime&, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("round", args, {"precision", "method"}));
  ASSIGN_OR_RETURN(const Int precision, IntArg(bound[0], 0, "round: precision"));
  const std::string method = bound[1].IsString() ? bound[1].text() : "common";
  if ((!bound[1].IsAbsent() && !bound[1].IsString()) ||
      (method != "common" && method != "ceil" && method != "floor"))
    return Fail("round: method must be common, ceil or floor");
  if (value.IsUndefined()) return FailUndefined(value);
  if (!value.IsNumber()) return Fail(fmt::format("round needs a number, not {}", TypeName(value)));
  if (method == "common") return Rounded(value, precision);
  const double unit = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.number() * unit;
  if (!std::isfinite(scaled) || unit == 0) return Fail("round: the number is too large");
  // Python's ceil and floor are integers: no negative zero.
  return Value::Float(((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) + 0.0) / unit);
}

Result<Value> FileSizeFormat(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("filesizeformat", args, {"binary"}));
  if (value.IsUndefined()) return FailUndefined(value);
  const auto parsed = value.IsString()   ? ParseFloat(value.string())
                      : value.IsNumber() ? std::optional<double>(value.number())
                                         : std::nullopt;
  if (!parsed) return Fail(fmt::format("filesizeformat needs a number, not {}", TypeName(value)));
  const double bytes = *parsed;
  const bool binary = IsTrue(bound[0]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return Value::String("1 Byte");
  if (bytes < base) {
    if (!std::isfinite(bytes)) return Fail("filesizeformat: the number is not finite");
    return rt.NewString(MarkedString(fmt::format("{:.0f} Bytes", std::trunc(bytes) + 0.0)));
  }
  constexpr std::string_view kPrefixes = "kMGTPEZY";
  // Powers of 1000 up to the ninth are exact in 64 bits of mantissa, as Python's integers are.
  long double unit = base * base;
  size_t i = 0;
  for (; i + 1 < kPrefixes.size() && !(bytes < unit); ++i) unit *= base;
  const char prefix = binary && i == 0 ? 'K' : kPrefixes[i];
  return rt.NewString(MarkedString(fmt::format(
      "{:.1f} {}{}", base * bytes / static_cast<double>(unit), prefix, binary ? "iB" : "B")));
}

constexpr FilterEntry kFilters[] = {{"abs", Abs},
                                    {"filesizeformat", FileSizeFormat},
                                    {"float", FloatFilter},
                                    {"int", IntFilter},
                                    {"round", Round}};

}  // namespace

Function FindNumberFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
