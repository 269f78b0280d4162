#include "text/template/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace perdure::text::jinja {
namespace {

struct Casing {
  char32_t code_point;
  std::u32string_view upper;
  std::u32string_view title;
};
constexpr Casing kCasings[] = {
#define PERDURE_CASING(code_point, upper, title) {code_point, upper, title},
#include "text/template/special_casing.inc"
#undef PERDURE_CASING
};

const Casing* FindCasing(char32_t c) {
  const auto it = std::lower_bound(
      std::begin(kCasings), std::end(kCasings), c,
      [](const Casing& casing, char32_t value) { return casing.code_point < value; });
  return it != std::end(kCasings) && it->code_point == c ? it : nullptr;
}

using Range = std::pair<char32_t, char32_t>;

template <size_t n>
bool InRanges(const Range (&ranges)[n], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const Range& range) { return range.first <= c && c <= range.second; });
}

// Other_Lowercase, Other_Uppercase and Numeric_Type=Digit beyond the general categories.
constexpr Range kOtherLower[] = {
    {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},    {0x2e0, 0x2e4},
    {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},   {0x1d78, 0x1d78},  {0x1d9b, 0x1dbf},
    {0x2071, 0x2071},   {0x207f, 0x207f},   {0x2090, 0x209c},   {0x2170, 0x217f},  {0x24d0, 0x24e9},
    {0x2c7c, 0x2c7d},   {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},  {0xab5c, 0xab5f},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba}};
constexpr Range kOtherUpper[] = {
    {0x2160, 0x216f}, {0x24b6, 0x24cf}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
constexpr Range kOtherDigit[] = {
    {0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
    {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
    {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool IsAsciiUpper(char32_t c) { return c >= 'A' && c <= 'Z'; }
bool IsAsciiLower(char32_t c) { return c >= 'a' && c <= 'z'; }

bool IsCased(char32_t c) { return IsLower(c) || IsUpper(c) || IsTitle(c); }

bool IsCaseIgnorable(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x387 || c == 0x55f ||
             c == 0x5f4 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027 ||
             c == 0xfe13 || c == 0xfe52 || c == 0xfe55 || c == 0xff07 || c == 0xff0e || c == 0xff1a;
  }
}

// Unicode's Final_Sigma: a cased letter before, none after, case-ignorable characters skipped.
bool IsFinalSigma(std::string_view text, size_t begin, size_t end) {
  bool cased_before = false;
  for (size_t at = begin; at > 0;) {
    do --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
    size_t next = at;
    const char32_t c = NextCodePoint(text, &next);
    if (IsCaseIgnorable(c)) continue;
    cased_before = IsCased(c);
    break;
  }
  if (!cased_before) return false;
  for (size_t at = end; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    if (IsCaseIgnorable(c)) continue;
    return !IsCased(c);
  }
  return true;
}

void AppendLower(std::string* out, char32_t c, std::string_view text, size_t begin, size_t end) {
  if (c < 0x80) {
    *out += static_cast<char>(IsAsciiUpper(c) ? c + 0x20 : c);
  } else if (c == 0x130) {
    out->append("i\xcc\x87");
  } else if (c == 0x3a3) {
    AppendCodePoint(out, IsFinalSigma(text, begin, end) ? 0x3c2 : 0x3c3);
  } else {
    AppendCodePoint(out, static_cast<char32_t>(utf8proc_tolower(static_cast<int32_t>(c))));
  }
}

void AppendUpper(std::string* out, char32_t c) {
  if (c < 0x80) {
    *out += static_cast<char>(IsAsciiLower(c) ? c - 0x20 : c);
  } else if (const Casing* casing = FindCasing(c)) {
    for (const char32_t u : casing->upper) AppendCodePoint(out, u);
  } else {
    AppendCodePoint(out, static_cast<char32_t>(utf8proc_toupper(static_cast<int32_t>(c))));
  }
}

void AppendTitle(std::string* out, char32_t c) {
  if (c < 0x80) {
    AppendUpper(out, c);
  } else if (const Casing* casing = FindCasing(c)) {
    for (const char32_t u : casing->title) AppendCodePoint(out, u);
  } else {
    AppendCodePoint(out, static_cast<char32_t>(utf8proc_totitle(static_cast<int32_t>(c))));
  }
}

void AppendFolded(std::string* out, char32_t c) {
  // Full case folding of one code point has at most three.
  utf8proc_int32_t folded[8];
  int boundary = 0;
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, 8,
                                         UTF8PROC_CASEFOLD, &boundary);
  if (n <= 0 || n > 8) return AppendCodePoint(out, c);
  for (int i = 0; i < n; ++i) AppendCodePoint(out, static_cast<char32_t>(folded[i]));
}

}  // namespace

char32_t NextCodePoint(std::string_view text, size_t* at) {
  const auto first = static_cast<unsigned char>(text[*at]);
  if (first < 0x80) {
    ++*at;
    return first;
  }
  utf8proc_int32_t c = 0;
  const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + *at,
                                  static_cast<utf8proc_ssize_t>(text.size() - *at), &c);
  if (n <= 0) {
    ++*at;
    return 0xfffd;
  }
  *at += static_cast<size_t>(n);
  return static_cast<char32_t>(c);
}

void AppendCodePoint(std::string* out, char32_t c) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t before = at;
    if (NextCodePoint(text, &at) == 0xfffd && at == before + 1) return false;
  }
  return true;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

size_t CountCodePoints(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

size_t OffsetOfCodePoint(std::string_view text, size_t index) {
  size_t seen = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) continue;
    if (seen++ == index) return at;
  }
  return text.size();
}

bool IsSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool IsLineBreak(char32_t c) {
  return (c >= 0xa && c <= 0xd) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool IsAlpha(char32_t c) {
  if (c < 0x80) return IsAsciiUpper(c) || IsAsciiLower(c);
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
bool IsDecimal(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }
bool IsDigit(char32_t c) { return IsDecimal(c) || InRanges(kOtherDigit, c); }
bool IsNumeric(char32_t c) {
  const auto category = Category(c);
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}
bool IsUpper(char32_t c) {
  if (c < 0x80) return IsAsciiUpper(c);
  return Category(c) == UTF8PROC_CATEGORY_LU || InRanges(kOtherUpper, c);
}
bool IsLower(char32_t c) {
  if (c < 0x80) return IsAsciiLower(c);
  return Category(c) == UTF8PROC_CATEGORY_LL || InRanges(kOtherLower, c);
}
bool IsTitle(char32_t c) { return c >= 0x80 && Category(c) == UTF8PROC_CATEGORY_LT; }

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

bool IsIdentifier(std::string_view text) {
  bool first = true;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = NextCodePoint(text, &at);
    const auto category = Category(c);
    const bool start = c == '_' || IsAlpha(c) || category == UTF8PROC_CATEGORY_NL;
    const bool part = start || category == UTF8PROC_CATEGORY_ND ||
                      category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                      category == UTF8PROC_CATEGORY_PC;
    if (first ? !start : !part) return false;
    first = false;
  }
  return !first;
}

MarkedString MapCase(const MarkedString& text, Case mode) {
  MarkedString result;
  result.Reserve(text.size());
  MarkCursor marks(text);
  std::string piece;
  bool word_start = true;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(text.text(), &at);
    piece.clear();
    switch (mode) {
      case Case::kLower:
        AppendLower(&piece, c, text.text(), begin, at);
        break;
      case Case::kUpper:
        AppendUpper(&piece, c);
        break;
      case Case::kTitle:
      case Case::kCapitalize:
        if (word_start)
          AppendTitle(&piece, c);
        else
          AppendLower(&piece, c, text.text(), begin, at);
        word_start = mode == Case::kTitle && !IsCased(c);
        break;
      case Case::kSwap:
        if (IsUpper(c))
          AppendLower(&piece, c, text.text(), begin, at);
        else if (IsLower(c))
          AppendUpper(&piece, c);
        else
          AppendCodePoint(&piece, c);
        break;
      case Case::kFold:
        AppendFolded(&piece, c);
        break;
    }
    result.Append(piece, marks.At(begin));
  }
  result.set_escaped(text.escaped());
  return result;
}

std::string MapCase(std::string_view text, Case mode) {
  return MapCase(MarkedString(std::string(text)), mode).text();
}

}  // namespace perdure::text::jinja
