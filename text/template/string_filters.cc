// Filters that see their value as text.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/filters.h"
#include "text/template/format.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/pretty_print.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"
#include "text/template/word_wrap.h"

namespace perdure::text::jinja {
namespace {

template <Case mode>
Result<Value> CaseFilter(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("the case filter", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  return rt.NewString(MapCase(text, mode));
}

// Words begin after white space, '-' and opening brackets.
Result<Value> Title(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("title", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  MarkedString out;
  size_t begin = 0;
  const auto add_word = [&](size_t end) {
    if (begin == end) return;
    size_t second = begin;
    NextCodePoint(text.text(), &second);
    out.Append(MapCase(text.Slice(begin, second), Case::kUpper));
    out.Append(MapCase(text.Slice(second, end), Case::kLower));
  };
  for (size_t at = 0; at < text.size();) {
    const size_t here = at;
    const char32_t c = NextCodePoint(text.text(), &at);
    if (!IsSpace(c) && c != '-' && c != '(' && c != '{' && c != '[' && c != '<') continue;
    add_word(here);
    out.AppendSlice(text, here, at);
    begin = at;
  }
  add_word(text.size());
  return rt.NewString(std::move(out));
}

Result<Value> Trim(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("trim", args, {"chars"}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  std::optional<std::string_view> chars;
  if (bound[0].IsString())
    chars = bound[0].text();
  else if (!bound[0].IsAbsent() && !bound[0].IsNone())
    return Fail(fmt::format("trim: chars must be a string, not {}", TypeName(bound[0])));
  return rt.NewString(Strip(text, chars, Side::kBoth));
}

Result<Value> StringFilter(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("string", args, {}));
  if (value.IsString()) return value;
  ASSIGN_OR_RETURN(MarkedString text, ToStr(rt, value));
  return rt.NewString(std::move(text));
}

Result<Value> Replace(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("replace", args, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  ASSIGN_OR_RETURN(const MarkedString from, ToStr(rt, bound[0]));
  ASSIGN_OR_RETURN(const MarkedString to, ToStr(rt, bound[1]));
  ASSIGN_OR_RETURN(const Int count,
                   IntArg(bound[2].IsNone() ? Value() : bound[2], -1, "replace: count"));
  ASSIGN_OR_RETURN(MarkedString out, ReplaceAll(rt, text, from, to, count));
  return rt.NewString(std::move(out));
}

Result<Value> Indent(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("indent", args, {"width", "first", "blank"}));
  if (value.IsUndefined()) return FailUndefined(value);
  ASSIGN_OR_RETURN(const MarkedString text, StringArg(value, "indent: the value"));
  MarkedString indention;
  if (bound[0].IsString()) {
    indention = bound[0].string();
  } else {
    ASSIGN_OR_RETURN(const Int width, IntArg(bound[0], 4, "indent: width"));
    if (width > 0) {
      if (width > static_cast<Int>(SIZE_MAX / 2)) return Fail("indent: the width is too large");
      RETURN_IF_ERROR(rt.Fits(static_cast<size_t>(width)));
      indention = MarkedString(std::string(static_cast<size_t>(width), ' '));
    }
  }
  const bool blank = IsTrue(bound[2]);
  // As in Jinja, a newline is added before the lines are split.
  MarkedString with_newline = text;
  with_newline.Append("\n");
  ASSIGN_OR_RETURN(const std::vector<MarkedString> lines, SplitLines(rt, with_newline, false));
  MarkedString out;
  if (IsTrue(bound[1])) out.Append(indention);
  for (size_t i = 0; i < lines.size(); ++i) {
    RETURN_IF_ERROR(rt.Fits(out.bytes() + indention.bytes() + lines[i].bytes() + 1));
    if (i > 0) {
      out.Append("\n");
      if (blank || !lines[i].empty()) out.Append(indention);
    }
    out.Append(lines[i]);
  }
  out.set_escaped(text.escaped());
  return rt.NewString(std::move(out));
}

Result<Value> Truncate(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind("truncate", args, {"length", "killwords", "end", "leeway"}));
  ASSIGN_OR_RETURN(const size_t given, Length(rt, value));
  ASSIGN_OR_RETURN(const Int length, IntArg(bound[0], 255, "truncate: length"));
  MarkedString end("...");
  if (!bound[2].IsAbsent()) {
    ASSIGN_OR_RETURN(end, StringArg(bound[2], "truncate: end"));
  }
  ASSIGN_OR_RETURN(const Int leeway,
                   IntArg(bound[3].IsNone() ? Value() : bound[3], 5, "truncate: leeway"));
  const auto end_length = static_cast<Int>(CountCodePoints(end.text()));
  if (length < end_length) return Fail("truncate: the length is below that of the end");
  if (leeway < 0) return Fail("truncate: the leeway is negative");
  if (static_cast<Int>(given) <= length + leeway) return value;
  ASSIGN_OR_RETURN(const MarkedString text, StringArg(value, "truncate: the value"));
  MarkedString out =
      text.Slice(0, OffsetOfCodePoint(text.text(), static_cast<size_t>(length - end_length)));
  if (!IsTrue(bound[1])) {
    const size_t space = out.text().rfind(' ');
    if (space != std::string::npos) out = out.Slice(0, space);
  }
  out.Append(text.escaped() ? Escaped(end) : end);
  return rt.NewString(std::move(out));
}

// Lines that are there stay apart.
Result<Value> WordWrap(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(
      const auto bound,
      Bind("wordwrap", args, {"width", "break_long_words", "wrapstring", "break_on_hyphens"}));
  if (value.IsUndefined()) return FailUndefined(value);
  ASSIGN_OR_RETURN(const MarkedString text, StringArg(value, "wordwrap: the value"));
  ASSIGN_OR_RETURN(const Int width, IntArg(bound[0], 79, "wordwrap: width"));
  MarkedString separator("\n");
  if (!bound[2].IsAbsent() && !bound[2].IsNone()) {
    ASSIGN_OR_RETURN(separator, StringArg(bound[2], "wordwrap: wrapstring"));
  }
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  ASSIGN_OR_RETURN(const std::vector<MarkedString> paragraphs, SplitLines(rt, text, false));
  if (width <= 0 && !paragraphs.empty()) return Fail("wordwrap: the width must be positive");
  // A wider one changes nothing.
  const auto width_max = static_cast<Int>(text.size()) + 1;
  const WrapStyle style{.width = static_cast<size_t>(std::min(width, width_max)),
                        .break_long_words = bound[1].IsAbsent() || IsTrue(bound[1]),
                        .break_on_hyphens = bound[3].IsAbsent() || IsTrue(bound[3])};
  std::vector<Value> wrapped;
  for (const MarkedString& paragraph : paragraphs) {
    ASSIGN_OR_RETURN(std::vector<MarkedString> lines, WrapWords(rt, paragraph, style));
    if (lines.empty()) lines.emplace_back();
    for (MarkedString& line : lines) {
      line.set_escaped(false);
      wrapped.push_back(Value::String(separator.escaped() ? Escaped(line) : std::move(line)));
    }
  }
  ASSIGN_OR_RETURN(MarkedString out, JoinAll(rt, separator, wrapped, true));
  out.set_escaped(separator.escaped());
  return rt.NewString(std::move(out));
}

Result<Value> PPrint(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("pprint", args, {}));
  ASSIGN_OR_RETURN(MarkedString text, PrettyPrint(rt, value));
  return rt.NewString(std::move(text));
}

Result<Value> Center(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("center", args, {"width"}));
  ASSIGN_OR_RETURN(const Value text, StringFilter(rt, value, {}));
  Args width;
  width.positional.push_back(bound[0].IsAbsent() ? Value::Integer(80) : bound[0]);
  return FindStringMethod("center")(rt, text, width);
}

Result<Value> WordCount(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("wordcount", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  Int words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text.text(), &at);
    const bool word = c == '_' || IsAlpha(c) || IsNumeric(c);
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::Integer(words);
}

Result<Value> Format(Runtime& rt, const Value& value, const Args& args) {
  if (!args.positional.empty() && !args.named.empty())
    return Fail("format: positional and keyword arguments cannot be mixed");
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  if (!args.named.empty()) {
    Dict dict;
    for (const auto& [name, named] : args.named)
      RETURN_IF_ERROR(dict.Set(Value::String(name), named));
    return PercentFormat(rt, text, Value::FromDict(std::make_shared<const Dict>(std::move(dict))));
  }
  ASSIGN_OR_RETURN(const Value tuple, rt.NewTuple(args.positional));
  return PercentFormat(rt, text, tuple);
}

constexpr FilterEntry kFilters[] = {
    {"capitalize", CaseFilter<Case::kCapitalize>},
    {"center", Center},
    {"format", Format},
    {"indent", Indent},
    {"lower", CaseFilter<Case::kLower>},
    {"pprint", PPrint},
    {"replace", Replace},
    {"string", StringFilter},
    {"title", Title},
    {"trim", Trim},
    {"truncate", Truncate},
    {"upper", CaseFilter<Case::kUpper>},
    {"wordcount", WordCount},
    {"wordwrap", WordWrap},
};

}  // namespace

Function FindStringFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
