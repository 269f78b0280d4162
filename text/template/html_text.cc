#include "text/template/html_text.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

struct Entity {
  std::string_view name;
  bool bare;  // known without its semicolon, too
  std::string_view text;
};
constexpr Entity kEntities[] = {
#define ENTITY(name, bare, text) {name, bare, text},
#include "text/template/html_entities.inc"
#undef ENTITY
};

// What numbers from 0x80 stand for: Windows-1252's characters where it has one.
constexpr char32_t kWindows1252[] = {
    0x20ac, 0x81,   0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x8d,   0x017d, 0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d,   0x017e, 0x0178};

// A character reference and what it stands for.
struct Reference {
  size_t size = 0;
  std::string text;
};

const Entity* FindEntity(std::string_view name) {
  const auto it =
      std::lower_bound(std::begin(kEntities), std::end(kEntities), name,
                       [](const Entity& entity, std::string_view n) { return entity.name < n; });
  return it != std::end(kEntities) && it->name == name ? it : nullptr;
}

bool IsLeftOut(char32_t c) {
  return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
         (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

std::string TextOfNumber(char32_t c) {
  std::string text;
  if (c >= 0x80 && c <= 0x9f)
    AppendCodePoint(&text, kWindows1252[c - 0x80]);
  else if (c == 0 || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
    AppendCodePoint(&text, 0xfffd);
  else if (!IsLeftOut(c))
    AppendCodePoint(&text, c);
  return text;
}

// `text` begins with "&#".
std::optional<Reference> Number(std::string_view text) {
  size_t at = 2;
  const bool hex = text.size() > at && (text[at] == 'x' || text[at] == 'X');
  if (hex) ++at;
  const size_t begin = at;
  char32_t value = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at], lower = static_cast<char>(c | 0x20);
    const bool is_digit = c >= '0' && c <= '9';
    if (!is_digit && !(hex && lower >= 'a' && lower <= 'f')) break;
    const auto digit = static_cast<char32_t>(is_digit ? c - '0' : lower - 'a' + 10);
    value = std::min<char32_t>(value * (hex ? 16 : 10) + digit, 0x110000);
  }
  if (at == begin) return std::nullopt;
  if (at < text.size() && text[at] == ';') ++at;
  return Reference{at, TextOfNumber(value)};
}

// `text` begins with "&". The longest known name counts.
std::optional<Reference> Name(std::string_view text) {
  constexpr size_t kNameMax = 32;
  size_t end = 1;
  while (end < text.size() && end <= kNameMax &&
         std::string_view("\t\n\f <&#;").find(text[end]) == std::string_view::npos)
    ++end;
  const std::string_view name = text.substr(1, end - 1);
  if (end < text.size() && text[end] == ';')
    if (const Entity* entity = FindEntity(name))
      return Reference{end + 1, std::string(entity->text)};
  for (size_t size = name.size(); size >= 2; --size) {
    const Entity* entity = FindEntity(name.substr(0, size));
    if (entity != nullptr && entity->bare) return Reference{1 + size, std::string(entity->text)};
  }
  return std::nullopt;
}

MarkedString Unescaped(const MarkedString& text) {
  const std::string_view all = text.text();
  MarkedString out;
  size_t done = 0;
  for (size_t at = all.find('&'); at != std::string_view::npos; at = all.find('&', at)) {
    const std::string_view rest = all.substr(at);
    const auto reference = rest.starts_with("&#") ? Number(rest) : Name(rest);
    if (!reference) {
      ++at;
      continue;
    }
    out.AppendSlice(text, done, at);
    done = at + reference->size;
    out.Append(reference->text, text.Slice(at, done).AnyInput());
    at = done;
  }
  out.AppendSlice(text, done, all.size());
  return out;
}

MarkedString WithoutTags(const MarkedString& text) {
  const std::string_view all = text.text();
  MarkedString out;
  size_t done = 0;
  for (size_t at = all.find('<'); at != std::string_view::npos; at = all.find('<', done)) {
    const bool comment = all.substr(at).starts_with("<!--");
    const size_t end = comment ? FindText(all, "-->", at + 4) : all.find('>', at);
    if (end == std::string_view::npos) break;
    out.AppendSlice(text, done, at);
    done = end + (comment ? 3 : 1);
  }
  out.AppendSlice(text, done, all.size());
  return out;
}

MarkedString WithSingleSpaces(const MarkedString& text) {
  const std::string_view all = text.text();
  MarkedString out;
  size_t begin = 0;
  const auto add_word = [&](size_t end) {
    if (begin == end) return;
    if (!out.empty()) out.Append(" ");
    out.AppendSlice(text, begin, end);
  };
  for (size_t at = 0; at < all.size();) {
    const size_t here = at;
    if (!IsSpace(NextCodePoint(all, &at))) continue;
    add_word(here);
    begin = at;
  }
  add_word(all.size());
  return out;
}

}  // namespace

MarkedString StripTags(const MarkedString& text) {
  return Unescaped(WithSingleSpaces(WithoutTags(text)));
}

}  // namespace perdure::text::jinja
