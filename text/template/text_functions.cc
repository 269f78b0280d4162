#include "text/template/text_functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {

size_t FindText(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

Result<size_t> FindTextBackwards(Runtime& rt, std::string_view text, std::string_view part) {
  constexpr size_t kShort = 64;
  if (part.size() > kShort && part.size() <= text.size())
    RETURN_IF_ERROR(rt.Charge(
        static_cast<int64_t>(text.size() * std::min(part.size(), size_t{1} << 20) / 4096)));
  return text.rfind(part);
}

MarkedString Strip(const MarkedString& text, const std::optional<std::string_view>& chars,
                   Side side) {
  const std::string_view all = text.text();
  std::vector<char32_t> set;
  for (size_t at = 0; chars && at < chars->size();) set.push_back(NextCodePoint(*chars, &at));
  std::sort(set.begin(), set.end());
  const auto drops = [&](char32_t c) {
    return chars ? std::binary_search(set.begin(), set.end(), c) : IsSpace(c);
  };
  size_t begin = 0;
  size_t end = all.size();
  while (side != Side::kRight && begin < end) {
    size_t next = begin;
    const char32_t c = NextCodePoint(all, &next);
    if (!drops(c)) break;
    begin = next;
  }
  while (side != Side::kLeft && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(all[last]) & 0xc0) == 0x80) --last;
    size_t next = last;
    const char32_t c = NextCodePoint(all, &next);
    if (!drops(c)) break;
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
      RETURN_IF_ERROR(rt.Fits(out.bytes() + to.bytes()));
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
    const size_t found = FindText(all, from.text(), done);
    if (found == std::string_view::npos) break;
    out.AppendSlice(text, done, found);
    RETURN_IF_ERROR(rt.Fits(out.bytes() + to.bytes()));
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
    RETURN_IF_ERROR(rt.Fits(out.bytes() + separator.bytes()));
    if (i > 0) out.Append(separator);
    RETURN_IF_ERROR(AppendStr(rt, items[i], &out));
  }
  return out;
}

MarkedString Escaped(const MarkedString& text) {
  if (text.escaped()) return text;
  const auto entity = [](char c) -> std::string_view {
    switch (c) {
      case '&':
        return "&amp;";
      case '<':
        return "&lt;";
      case '>':
        return "&gt;";
      case '\'':
        return "&#39;";
      case '"':
        return "&#34;";
      default:
        return {};
    }
  };
  MarkedString out;
  MarkCursor marks(text);
  const std::string_view all = text.text();
  for (size_t at = 0; at < all.size();) {
    const size_t next = std::min(all.find_first_of("&<>'\"", at), all.size());
    out.AppendSlice(text, at, next);
    if (next < all.size()) out.Append(entity(all[next]), marks.At(next));
    at = next + 1;
  }
  out.set_escaped(true);
  return out;
}

Result<std::vector<MarkedString>> SplitLines(Runtime& rt, const MarkedString& text,
                                             bool keep_ends) {
  std::vector<MarkedString> lines;
  const std::string_view all = text.text();
  size_t begin = 0;
  for (size_t at = 0; at < all.size();) {
    const size_t line_end = at;
    const char32_t c = NextCodePoint(all, &at);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && at < all.size() && all[at] == '\n') ++at;
    RETURN_IF_ERROR(rt.ProduceObjects(1));
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
