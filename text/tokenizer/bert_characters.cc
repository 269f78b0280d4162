#include "text/tokenizer/bert_characters.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "text/utf8.h"

namespace perdure::text {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

// Nonspacing marks of utf8proc 2.8 (Unicode 15) that `tokenizers` does not take for such; found by
// asking both for every code point.
constexpr CodePointRange kNoMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x8E1},     {0x9FE, 0x9FE},     {0xAFA, 0xAFF},
    {0xB55, 0xB55},     {0xC04, 0xC3C},     {0xD00, 0xD00},     {0xD3B, 0xD3C},
    {0xD81, 0xD81},     {0xEBA, 0xEBA},     {0xECE, 0xECE},     {0x180F, 0x1886},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFB},   {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},
    {0xA8FF, 0xA8FF},   {0xA9BD, 0xA9BD},   {0x10D24, 0x10F85}, {0x11070, 0x11074},
    {0x110C2, 0x110C2}, {0x111C9, 0x111C9}, {0x111CF, 0x111CF}, {0x1123E, 0x11241},
    {0x1133B, 0x1133B}, {0x11438, 0x1145E}, {0x1182F, 0x13455}, {0x16F4F, 0x16F4F},
    {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF46}, {0x1E000, 0x1E4EF}, {0x1E944, 0x1E94A}};

// Format characters that are newer.
constexpr CodePointRange kNoFormat[] = {
    {0x890, 0x891}, {0x8E2, 0x8E2}, {0x110CD, 0x110CD}, {0x13430, 0x1343F}};

// The blocks of ideographs (BERT's own list).
constexpr CodePointRange kIdeographs[] = {
    {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
    {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};

template <size_t n>
bool InTable(const CodePointRange (&table)[n], char32_t c) {
  const auto* it = std::partition_point(std::begin(table), std::end(table),
                                        [c](const CodePointRange& r) { return r.last < c; });
  return it != std::end(table) && c >= it->first;
}

bool IsCleanedAway(char32_t c) {
  if (c == kReplacementChar) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
      return true;
    case UTF8PROC_CATEGORY_CF:
      return !InTable(kNoFormat, c);
    default:
      return false;
  }
}

bool IsMark(char32_t c) {
  if (c == 0x1734) return true;  // Mc since Unicode 14
  return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_MN &&
         !InTable(kNoMarks, c);
}

}  // namespace

void AppendBertCleaned(char32_t c, std::string_view utf8, std::string* out) {
  // These are control characters too, but white space first.
  const bool line = c == '\t' || c == '\n' || c == '\r';
  if (line || (!IsCleanedAway(c) && IsWhiteSpace(c))) {
    *out += ' ';
  } else if (!IsCleanedAway(c)) {
    *out += utf8;
  }
}

void AppendBertSpaced(char32_t c, std::string_view utf8, std::string* out) {
  const bool ideograph = InTable(kIdeographs, c);
  if (ideograph) *out += ' ';
  *out += utf8;
  if (ideograph) *out += ' ';
}

void AppendBertUnaccented(char32_t c, std::string_view utf8, std::string* out) {
  if (!IsMark(c)) *out += utf8;
}

}  // namespace perdure::text
