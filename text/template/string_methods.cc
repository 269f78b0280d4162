// Methods of str.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "text/template/format.h"
#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

template <Case mode>
Result<Value> CaseMethod(Runtime& rt, const Value& self, const Args& args) {
  RETURN_IF_ERROR(Bind("the case method", args, {}));
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  return rt.NewString(MapCase(self.string(), mode));
}

template <Side side>
Result<Value> StripMethod(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("strip", args, {"chars"}));
  std::optional<std::string_view> chars;
  if (bound[0].IsString())
    chars = bound[0].text();
  else if (!bound[0].IsNone() && !bound[0].IsAbsent())
    return Fail(
        fmt::format("strip: the argument must be none or a string, not {}", TypeName(bound[0])));
  return rt.NewString(Strip(self.string(), chars, side));
}

// str.split and rsplit without a separator: runs of white space.
Result<Value> SplitSpace(Runtime& rt, const MarkedString& text, Int limit, bool from_right) {
  const std::string_view all = text.text();
  std::vector<TextRange> words;
  size_t begin = 0;
  bool inside = false;
  for (size_t at = 0; at < all.size();) {
    const size_t here = at;
    const bool space = IsSpace(NextCodePoint(all, &at));
    if (!space && !inside) begin = here;
    if (space && inside) {
      RETURN_IF_ERROR(rt.ProduceObjects(1));
      words.push_back({begin, here});
    }
    inside = !space;
  }
  if (inside) words.push_back({begin, all.size()});
  std::vector<MarkedString> parts;
  const auto count = static_cast<Int>(words.size());
  if (limit < 0 || limit >= count) {
    for (const TextRange& word : words) parts.push_back(text.Slice(word.begin, word.end));
  } else if (!from_right) {
    for (Int i = 0; i < limit; ++i)
      parts.push_back(
          text.Slice(words[static_cast<size_t>(i)].begin, words[static_cast<size_t>(i)].end));
    // The rest keeps its inner and trailing white space.
    if (limit < count)
      parts.push_back(text.Slice(words[static_cast<size_t>(limit)].begin, all.size()));
  } else {
    const auto first = static_cast<size_t>(count - limit);
    if (first > 0) parts.push_back(text.Slice(0, words[first - 1].end));
    for (size_t i = first; i < words.size(); ++i)
      parts.push_back(text.Slice(words[i].begin, words[i].end));
  }
  return StringList(rt, std::move(parts));
}

Result<Value> SplitMethod(Runtime& rt, const Value& self, const Args& args, bool from_right) {
  ASSIGN_OR_RETURN(const auto bound, Bind("split", args, {"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(Int limit, IntArg(bound[1], -1, "split: maxsplit"));
  const MarkedString& text = self.string();
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  if (bound[0].IsAbsent() || bound[0].IsNone()) return SplitSpace(rt, text, limit, from_right);
  ASSIGN_OR_RETURN(const MarkedString separator, StringArg(bound[0], "split: the separator"));
  if (separator.empty()) return Fail("empty separator");
  const std::string_view all = text.text();
  const size_t width = separator.size();
  std::vector<MarkedString> parts;
  if (!from_right) {
    size_t begin = 0;
    for (; limit != 0; --limit) {
      const size_t found = FindText(all, separator.text(), begin);
      if (found == std::string_view::npos) break;
      RETURN_IF_ERROR(rt.ProduceObjects(1));
      parts.push_back(text.Slice(begin, found));
      begin = found + width;
    }
    parts.push_back(text.Slice(begin, all.size()));
  } else {
    size_t end = all.size();
    for (; limit != 0 && end >= width; --limit) {
      ASSIGN_OR_RETURN(const size_t found,
                       FindTextBackwards(rt, all.substr(0, end), separator.text()));
      if (found == std::string_view::npos) break;
      RETURN_IF_ERROR(rt.ProduceObjects(1));
      parts.push_back(text.Slice(found + width, end));
      end = found;
    }
    parts.push_back(text.Slice(0, end));
    std::reverse(parts.begin(), parts.end());
  }
  return StringList(rt, std::move(parts));
}

Result<Value> Split(Runtime& rt, const Value& self, const Args& args) {
  return SplitMethod(rt, self, args, false);
}
Result<Value> RightSplit(Runtime& rt, const Value& self, const Args& args) {
  return SplitMethod(rt, self, args, true);
}

Result<Value> SplitLinesMethod(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("splitlines", args, {"keepends"}));
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  ASSIGN_OR_RETURN(std::vector<MarkedString> lines,
                   SplitLines(rt, self.string(), IsTrue(bound[0])));
  return StringList(rt, std::move(lines));
}

Result<Value> PartitionMethod(Runtime& rt, const Value& self, const Args& args, bool from_right) {
  ASSIGN_OR_RETURN(const auto bound, Bind("partition", args, {"sep"}, 1));
  ASSIGN_OR_RETURN(const MarkedString separator, StringArg(bound[0], "partition: the separator"));
  if (separator.empty()) return Fail("empty separator");
  const MarkedString& text = self.string();
  size_t found = FindText(text.text(), separator.text());
  if (from_right && found != std::string::npos) {
    ASSIGN_OR_RETURN(found, FindTextBackwards(rt, text.text(), separator.text()));
  }
  const MarkedString none = text.Slice(0, 0);
  MarkedString parts[3] = {none, none, none};
  if (found == std::string::npos) {
    parts[from_right ? 2 : 0] = text;
  } else {
    parts[0] = text.Slice(0, found);
    parts[1] = text.Slice(found, found + separator.size());
    // Python hands back the separator itself.
    parts[1].set_escaped(text.escaped() || separator.escaped());
    parts[2] = text.Slice(found + separator.size(), text.size());
  }
  std::vector<Value> items;
  for (MarkedString& part : parts) {
    ASSIGN_OR_RETURN(Value item, rt.NewString(std::move(part)));
    items.push_back(std::move(item));
  }
  return rt.NewTuple(std::move(items));
}

Result<Value> Partition(Runtime& rt, const Value& self, const Args& args) {
  return PartitionMethod(rt, self, args, false);
}
Result<Value> RightPartition(Runtime& rt, const Value& self, const Args& args) {
  return PartitionMethod(rt, self, args, true);
}

// The byte range that the optional code-point bounds of startswith, find and count name; nothing
// when they are out of order.
Result<std::optional<TextRange>> BoundedRange(const std::string& text, const Value& start,
                                              const Value& stop) {
  const auto length = static_cast<Int>(CountCodePoints(text));
  const auto resolve = [&](const Value& value, Int absent) -> Result<Int> {
    if (value.IsNone()) return absent;
    ASSIGN_OR_RETURN(Int at, IntArg(value, absent, "a bound"));
    if (at < 0) at = std::max(at + length, Int{0});
    return at;
  };
  ASSIGN_OR_RETURN(const Int first, resolve(start, 0));
  ASSIGN_OR_RETURN(Int last, resolve(stop, length));
  last = std::min(last, length);
  if (first > last) return std::optional<TextRange>();
  return std::optional<TextRange>({OffsetOfCodePoint(text, static_cast<size_t>(first)),
                                   OffsetOfCodePoint(text, static_cast<size_t>(last))});
}

Result<Value> AffixMethod(const Value& self, const Args& args, bool at_end) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind(at_end ? "endswith" : "startswith", args, {"affix", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const auto range, BoundedRange(self.text(), bound[1], bound[2]));
  std::vector<Value> affixes{bound[0]};
  if (bound[0].IsTuple()) affixes = bound[0].items();
  bool matches = false;
  for (const Value& affix : affixes) {
    if (!affix.IsString())
      return Fail(fmt::format("{}: the argument must be a string or a tuple of strings, not {}",
                              at_end ? "endswith" : "startswith", TypeName(affix)));
    if (!range) continue;
    const std::string_view part =
        std::string_view(self.text()).substr(range->begin, range->end - range->begin);
    matches = at_end ? part.ends_with(affix.text()) : part.starts_with(affix.text());
    if (matches) break;  // what follows is not even looked at
  }
  return Value::Bool(matches);
}

Result<Value> StartsWith(Runtime&, const Value& self, const Args& args) {
  return AffixMethod(self, args, false);
}
Result<Value> EndsWith(Runtime&, const Value& self, const Args& args) {
  return AffixMethod(self, args, true);
}

Result<Value> RemovePrefix(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("removeprefix", args, {"prefix"}, 1));
  ASSIGN_OR_RETURN(const MarkedString prefix, StringArg(bound[0], "removeprefix: the prefix"));
  if (!self.text().starts_with(prefix.text())) return self;
  return rt.NewString(self.string().Slice(prefix.size(), self.string().size()));
}

Result<Value> RemoveSuffix(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("removesuffix", args, {"suffix"}, 1));
  ASSIGN_OR_RETURN(const MarkedString suffix, StringArg(bound[0], "removesuffix: the suffix"));
  if (!self.text().ends_with(suffix.text())) return self;
  return rt.NewString(self.string().Slice(0, self.string().size() - suffix.size()));
}

Result<Value> Replace(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("replace", args, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const MarkedString from, StringArg(bound[0], "replace: the old text"));
  ASSIGN_OR_RETURN(const MarkedString to, StringArg(bound[1], "replace: the new text"));
  ASSIGN_OR_RETURN(const Int count, IntArg(bound[2], -1, "replace: count"));
  const bool escaped = self.string().escaped();
  ASSIGN_OR_RETURN(MarkedString text,
                   ReplaceAll(rt, self.string(), from, escaped ? Escaped(to) : to, count));
  text.set_escaped(escaped);
  return rt.NewString(std::move(text));
}

Result<Value> JoinMethod(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("join", args, {"iterable"}, 1));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, bound[0]));
  const bool escaped = self.string().escaped();
  for (size_t i = 0; escaped && i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const MarkedString item, ToStr(rt, items[i]));
    ASSIGN_OR_RETURN(items[i], rt.NewString(Escaped(item)));
  }
  ASSIGN_OR_RETURN(MarkedString text, JoinAll(rt, self.string(), items, true));
  text.set_escaped(escaped);
  return rt.NewString(std::move(text));
}

enum class Search { kFind, kRightFind, kIndex, kRightIndex };
template <Search search>
Result<Value> FindMethodOf(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("find", args, {"sub", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const MarkedString sub, StringArg(bound[0], "find: the text"));
  ASSIGN_OR_RETURN(const auto range, BoundedRange(self.text(), bound[1], bound[2]));
  size_t found = std::string_view::npos;
  if (range) {
    const std::string_view part =
        std::string_view(self.text()).substr(range->begin, range->end - range->begin);
    found = FindText(part, sub.text());
    if ((search == Search::kRightFind || search == Search::kRightIndex) &&
        found != std::string_view::npos) {
      ASSIGN_OR_RETURN(found, FindTextBackwards(rt, part, sub.text()));
    }
  }
  if (found == std::string_view::npos) {
    if (search == Search::kIndex || search == Search::kRightIndex)
      return Fail("substring not found");
    return Value::Integer(-1);
  }
  return Value::Integer(static_cast<Int>(
      CountCodePoints(std::string_view(self.text()).substr(0, range->begin + found))));
}

Result<Value> CountMethod(Runtime&, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("count", args, {"sub", "start", "end"}, 1));
  ASSIGN_OR_RETURN(const MarkedString sub, StringArg(bound[0], "count: the text"));
  ASSIGN_OR_RETURN(const auto range, BoundedRange(self.text(), bound[1], bound[2]));
  if (!range) return Value::Integer(0);
  const std::string_view part =
      std::string_view(self.text()).substr(range->begin, range->end - range->begin);
  if (sub.empty()) return Value::Integer(static_cast<Int>(CountCodePoints(part)) + 1);
  Int count = 0;
  for (size_t at = FindText(part, sub.text()); at != std::string_view::npos;
       at = FindText(part, sub.text(), at + sub.size()))
    ++count;
  return Value::Integer(count);
}

Result<Value> FormatMethod(Runtime& rt, const Value& self, const Args& args) {
  return BraceFormat(rt, self.string(), args);
}

Result<Value> FormatMapMethod(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("format_map", args, {"mapping"}, 1));
  if (!bound[0].IsDict()) return Fail("format_map: the argument must be a mapping");
  Args named;
  for (const auto& [key, value] : bound[0].dict().entries())
    if (key.IsString()) named.named.emplace_back(key.text(), value);
  return BraceFormat(rt, self.string(), named);
}

template <char align>
Result<Value> Justify(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("the padding method", args, {"width", "fillchar"}, 1));
  ASSIGN_OR_RETURN(const Int width, IntArg(bound[0], 0, "the width"));
  FormatSpec spec;
  spec.width = static_cast<int64_t>(width);
  spec.align = align;
  if (!bound[1].IsAbsent()) {
    ASSIGN_OR_RETURN(spec.fill, StringArg(bound[1], "the fill character"));
    if (self.string().escaped()) spec.fill = Escaped(spec.fill);
    if (CountCodePoints(spec.fill.text()) != 1)
      return Fail("the fill character must be exactly one character long");
  }
  if (align == '^') {
    // str.center puts the odd space on the left when the width is odd.
    const auto length = static_cast<int64_t>(CountCodePoints(self.text()));
    const int64_t missing = std::max<int64_t>(spec.width - length, 0);
    const int64_t left = missing / 2 + (missing & spec.width & 1);
    FormatSpec right = spec;
    right.align = '<';
    spec.align = '>';
    spec.width = length + left;
    ASSIGN_OR_RETURN(MarkedString text, Pad(rt, self.string(), spec, '>'));
    ASSIGN_OR_RETURN(text, Pad(rt, std::move(text), right, '<'));
    text.set_escaped(self.string().escaped());
    return rt.NewString(std::move(text));
  }
  ASSIGN_OR_RETURN(MarkedString text, Pad(rt, self.string(), spec, align));
  text.set_escaped(self.string().escaped());
  return rt.NewString(std::move(text));
}

Result<Value> ZeroFill(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("zfill", args, {"width"}, 1));
  ASSIGN_OR_RETURN(const Int width, IntArg(bound[0], 0, "zfill: the width"));
  const MarkedString& text = self.string();
  const bool signed_text = !text.empty() && (text.text()[0] == '-' || text.text()[0] == '+');
  FormatSpec spec;
  spec.fill = MarkedString("0");
  spec.width = static_cast<int64_t>(width) - (signed_text ? 1 : 0);
  MarkedString out = text.Slice(0, signed_text ? 1 : 0);
  ASSIGN_OR_RETURN(const MarkedString digits,
                   Pad(rt, text.Slice(out.size(), text.size()), spec, '>'));
  out.Append(digits);
  return rt.NewString(std::move(out));
}

Result<Value> ExpandTabs(Runtime& rt, const Value& self, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("expandtabs", args, {"tabsize"}));
  ASSIGN_OR_RETURN(const Int size, IntArg(bound[0], 8, "expandtabs: the size"));
  const MarkedString& text = self.string();
  MarkedString out;
  Int column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(text.text(), &at);
    if (c == '\t') {
      if (size <= 0) continue;
      const Int spaces = size - column % size;
      RETURN_IF_ERROR(rt.Fits(out.bytes() + static_cast<size_t>(spaces)));
      out.Append(std::string(static_cast<size_t>(spaces), ' '));
      column += spaces;
      continue;
    }
    out.AppendSlice(text, begin, at);
    column = c == '\n' || c == '\r' ? 0 : column + 1;
  }
  out.set_escaped(text.escaped());
  return rt.NewString(std::move(out));
}

template <bool (*matches)(char32_t)>
Result<Value> AllOf(Runtime& rt, const Value& self, const Args& args) {
  RETURN_IF_ERROR(Bind("the character test", args, {}));
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  const std::string_view all = self.text();
  for (size_t at = 0; at < all.size();)
    if (!matches(NextCodePoint(all, &at))) return Value::Bool(false);
  return Value::Bool(!all.empty());
}

bool IsAlnum(char32_t c) { return IsAlpha(c) || IsNumeric(c); }

Result<Value> IsPrintableMethod(Runtime& rt, const Value& self, const Args& args) {
  if (self.text().empty()) return Value::Bool(true);
  return AllOf<IsPrintable>(rt, self, args);
}

Result<Value> IsAsciiMethod(Runtime&, const Value& self, const Args& args) {
  RETURN_IF_ERROR(Bind("isascii", args, {}));
  return Value::Bool(IsAscii(self.text()));
}

Result<Value> IsIdentifierMethod(Runtime& rt, const Value& self, const Args& args) {
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  RETURN_IF_ERROR(Bind("isidentifier", args, {}));
  return Value::Bool(IsIdentifier(self.text()));
}

Result<Value> IsLowerMethod(Runtime& rt, const Value& self, const Args&) {
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  return Value::Bool(HasCase(self.text(), false));
}
Result<Value> IsUpperMethod(Runtime& rt, const Value& self, const Args&) {
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  return Value::Bool(HasCase(self.text(), true));
}

Result<Value> IsTitleMethod(Runtime& rt, const Value& self, const Args&) {
  RETURN_IF_ERROR(rt.ChargeForCharacters(self.string()));
  bool cased = false;
  bool previous_cased = false;
  const std::string_view all = self.text();
  for (size_t at = 0; at < all.size();) {
    const char32_t c = NextCodePoint(all, &at);
    if (IsUpper(c) || IsTitle(c)) {
      if (previous_cased) return Value::Bool(false);
      cased = previous_cased = true;
    } else if (IsLower(c)) {
      if (!previous_cased) return Value::Bool(false);
    } else {
      previous_cased = false;
    }
  }
  return Value::Bool(cased);
}

struct Entry {
  std::string_view name;
  Function function;
};
constexpr Entry kMethods[] = {
    {"capitalize", CaseMethod<Case::kCapitalize>},
    {"casefold", CaseMethod<Case::kFold>},
    {"center", Justify<'^'>},
    {"count", CountMethod},
    {"endswith", EndsWith},
    {"expandtabs", ExpandTabs},
    {"find", FindMethodOf<Search::kFind>},
    {"format", FormatMethod},
    {"format_map", FormatMapMethod},
    {"index", FindMethodOf<Search::kIndex>},
    {"isalnum", AllOf<IsAlnum>},
    {"isalpha", AllOf<IsAlpha>},
    {"isascii", IsAsciiMethod},
    {"isdecimal", AllOf<IsDecimal>},
    {"isdigit", AllOf<IsDigit>},
    {"isidentifier", IsIdentifierMethod},
    {"islower", IsLowerMethod},
    {"isnumeric", AllOf<IsNumeric>},
    {"isprintable", IsPrintableMethod},
    {"isspace", AllOf<IsSpace>},
    {"istitle", IsTitleMethod},
    {"isupper", IsUpperMethod},
    {"join", JoinMethod},
    {"ljust", Justify<'<'>},
    {"lower", CaseMethod<Case::kLower>},
    {"lstrip", StripMethod<Side::kLeft>},
    {"partition", Partition},
    {"removeprefix", RemovePrefix},
    {"removesuffix", RemoveSuffix},
    {"replace", Replace},
    {"rfind", FindMethodOf<Search::kRightFind>},
    {"rindex", FindMethodOf<Search::kRightIndex>},
    {"rjust", Justify<'>'>},
    {"rpartition", RightPartition},
    {"rsplit", RightSplit},
    {"rstrip", StripMethod<Side::kRight>},
    {"split", Split},
    {"splitlines", SplitLinesMethod},
    {"startswith", StartsWith},
    {"strip", StripMethod<Side::kBoth>},
    {"swapcase", CaseMethod<Case::kSwap>},
    {"title", CaseMethod<Case::kTitle>},
    {"upper", CaseMethod<Case::kUpper>},
    {"zfill", ZeroFill},
};

}  // namespace

bool HasCase(std::string_view text, bool upper) {
  bool cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    if (IsTitle(c) || (upper ? IsLower(c) : IsUpper(c))) return false;
    cased |= upper ? IsUpper(c) : IsLower(c);
  }
  return cased;
}

Function FindStringMethod(std::string_view name) {
  for (const Entry& entry : kMethods)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
