#include "text/template/text_functions.h"

#include <fmt/format.h>

#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {

MarkedString Strip(const MarkedString& text, const std::optional<std::string_view>& chars,
                   Side side) {
  const std::string_view all = text.text();
  const auto drops = [&](size_t begin, size_t end, char32_t c) {
    if (!chars) return IsSpace(c);
    const std::string_view one = all.substr(begin, end - begin);
    // In UTF-8 a character is found only where it stands.
    return chars->find(one) != std::string_view::npos;
  };
  size_t begin = 0;
  size_t end = all.size();
  while (side != Side::kRight && begin < end) {
    size_t next = begin;
    const char32_t c = NextCodePoint(all, &next);
    if (!drops(begin, next, c)) break;
    begin = next;
  }
  while (side != Side::kLeft && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(all[last]) & 0xc0) == 0x80) --last;
    size_t next = last;
    const char32_t c = NextCodePoint(all, &next);
    if (!drops(last, end, c)) break;
    end = last;
  }
  return text.Slice(begin, end);
}

Result<MarkedString> ReplaceAll(Runtime& rt, const MarkedString& text, const MarkedString& from,
                                const MarkedString& to, Int count) {
  MarkedString out;
  size_t done = 0;
  const std::string_view all = text.text();
  if (from.empty()) {
    // Python puts `to` before every character and at the end.
    for (size_t at = 0; count != 0; --count) {
      RETURN_IF_ERROR(rt.Fits(out.size() + to.size()));
      out.Append(to);
      if (at >= all.size()) return out;
      NextCodePoint(all, &at);
      out.AppendSlice(text, done, at);
      done = at;
    }
    out.AppendSlice(text, done, all.size());
    return out;
  }
  while (count != 0) {
    const size_t found = all.find(from.text(), done);
    if (found == std::string_view::npos) break;
    out.AppendSlice(text, done, found);
    RETURN_IF_ERROR(rt.Fits(out.size() + to.size()));
    out.Append(to);
    done = found + from.size();
    --count;
  }
  out.AppendSlice(text, done, all.size());
  return out;
}

Result<MarkedString> JoinAll(Runtime& rt, const MarkedString& separator,
                             const std::vector<Value>& items, bool strings_only) {
  MarkedString out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (strings_only && !items[i].IsString())
      return Fail(
          fmt::format("sequence item {}: expected str instance, {} found", i, TypeName(items[i])));
    RETURN_IF_ERROR(rt.Fits(out.size() + separator.size()));
    if (i > 0) out.Append(separator);
    RETURN_IF_ERROR(AppendStr(rt, items[i], &out));
  }
  return out;
}

std::vector<MarkedString> SplitLines(const MarkedString& text, bool keep_ends) {
  std::vector<MarkedString> lines;
  const std::string_view all = text.text();
  size_t begin = 0;
  for (size_t at = 0; at < all.size();) {
    const size_t line_end = at;
    const char32_t c = NextCodePoint(all, &at);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && at < all.size() && all[at] == '\n') ++at;
    lines.push_back(text.Slice(begin, keep_ends ? at : line_end));
    begin = at;
  }
  if (begin < all.size()) lines.push_back(text.Slice(begin, all.size()));
  return lines;
}

Result<Value> StringList(Runtime& rt, std::vector<MarkedString> parts) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (MarkedString& part : parts) {
    ASSIGN_OR_RETURN(Value item, rt.NewString(std::move(part)));
    items.push_back(std::move(item));
  }
  return rt.NewList(std::move(items));
}

Result<Int> IntArg(const Value& value, Int absent, std::string_view what) {
  if (value.IsAbsent()) return absent;
  if (value.IsUndefined()) return FailUndefined(value);
  if (!value.IsIntegral() || !FitsInt64(value.integral()))
    return Fail(fmt::format("{} must be an integer, not {}", what, TypeName(value)));
  return value.integral();
}

Result<MarkedString> StringArg(const Value& value, std::string_view what) {
  if (!value.IsString())
    return Fail(fmt::format("{} must be a string, not {}", what, TypeName(value)));
  return value.string();
}

}  // namespace perdure::text::jinja
