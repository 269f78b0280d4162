#include "text/tokenizer/unicode_normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

struct CodePointRange {
  char32_t first;
  char32_t last;
};

// Characters newer than Unicode 9 that utf8proc 2.8 (Unicode 15) gives a combining class, a
// decomposition or a part in a composition. Found by comparing both over all code points; the
// golden strings of the tests contain every one of them.
constexpr CodePointRange kNewerThanUnicode9[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
    {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

// Characters of combining class 0 that compose with what stands before them (UnicodeData.txt: the
// second characters of canonical decompositions; Hangul vowels and trailing consonants).
constexpr CodePointRange kComposesWithPrevious[] = {
    {0x9BE, 0x9BE},     {0x9D7, 0x9D7},     {0xB3E, 0xB3E},     {0xB56, 0xB57},
    {0xBBE, 0xBBE},     {0xBD7, 0xBD7},     {0xCC2, 0xCC2},     {0xCD5, 0xCD6},
    {0xD3E, 0xD3E},     {0xD57, 0xD57},     {0xDCF, 0xDCF},     {0xDDF, 0xDDF},
    {0x102E, 0x102E},   {0x1161, 0x1175},   {0x11A8, 0x11C2},   {0x1B35, 0x1B35},
    {0x11127, 0x11127}, {0x1133E, 0x1133E}, {0x11357, 0x11357}, {0x114B0, 0x114B0},
    {0x114BA, 0x114BA}, {0x114BD, 0x114BD}, {0x115AF, 0x115AF}};

template <size_t n>
bool InTable(const CodePointRange (&table)[n], char32_t c) {
  const auto* it =
      std::upper_bound(std::begin(table), std::end(table), c,
                       [](char32_t value, const CodePointRange& r) { return value < r.first; });
  return it != std::begin(table) && c <= std::prev(it)->last;
}

// The longest decomposition (U+FDFA) has 18 characters.
constexpr int kDecomposedMax = 32;

class FormBuilder {
 public:
  explicit FormBuilder(NormalizationForm form)
      : composes_(form == NormalizationForm::kNfc || form == NormalizationForm::kNfkc),
        options_(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE) {
    if (form == NormalizationForm::kNfkc || form == NormalizationForm::kNfkd)
      options_ |= UTF8PROC_COMPAT;
  }

  template <class Sink>
  void Run(std::string_view text, const Sink& sink) {
    size_t begin = 0;  // of the part that buffer_ holds, decomposed
    size_t i = 0;
    while (i < text.size()) {
      // Below U+00A0 nothing changes in any form, unless a mark follows.
      size_t ascii_end = i;
      while (ascii_end < text.size() && static_cast<unsigned char>(text[ascii_end]) < 0x80)
        ++ascii_end;
      if (ascii_end > i + 1) {
        Flush(begin, i, sink);
        begin = ascii_end - 1;
        sink(i, begin, text.substr(i, begin - i));
        i = begin;
      }

      const Utf8Char c = DecodeUtf8(text, i);
      if (InTable(kNewerThanUnicode9, c.code_point)) {
        Flush(begin, i, sink);
        sink(i, i + c.length, text.substr(i, c.length));
        i += c.length;
        begin = i;
        continue;
      }
      utf8proc_int32_t decomposed[kDecomposedMax];
      int boundary = 0;
      const utf8proc_ssize_t n = utf8proc_decompose_char(
          static_cast<utf8proc_int32_t>(c.code_point), decomposed, kDecomposedMax,
          static_cast<utf8proc_option_t>(options_), &boundary);
      CHECK(n > 0 && n <= kDecomposedMax);
      if (utf8proc_get_property(decomposed[0])->combining_class == 0 &&
          !InTable(kComposesWithPrevious, static_cast<char32_t>(decomposed[0]))) {
        Flush(begin, i, sink);
        begin = i;
      }
      buffer_.insert(buffer_.end(), decomposed, decomposed + n);
      i += static_cast<size_t>(c.length);
    }
    Flush(begin, i, sink);
  }

 private:
  // Canonical ordering: marks between two starters by class, stable. utf8proc's own exchange sort
  // takes quadratic time for long runs of marks.
  void Reorder() {
    const auto class_of = [](utf8proc_int32_t c) {
      return utf8proc_get_property(c)->combining_class;
    };
    for (auto it = buffer_.begin(); it != buffer_.end();) {
      if (class_of(*it) == 0) {
        ++it;
        continue;
      }
      auto end = it;
      while (end != buffer_.end() && class_of(*end) != 0) ++end;
      std::stable_sort(it, end, [&](auto a, auto b) { return class_of(a) < class_of(b); });
      it = end;
    }
  }

  template <class Sink>
  void Flush(size_t begin, size_t end, const Sink& sink) {
    if (buffer_.empty()) return;
    if (buffer_.size() > 1) {
      Reorder();
      if (composes_) {
        const utf8proc_ssize_t n = utf8proc_normalize_utf32(
            buffer_.data(), static_cast<utf8proc_ssize_t>(buffer_.size()),
            static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
        CHECK(n > 0);
        buffer_.resize(static_cast<size_t>(n));
      }
    }
    utf8_.clear();
    for (const utf8proc_int32_t c : buffer_) AppendUtf8(static_cast<char32_t>(c), &utf8_);
    buffer_.clear();
    sink(begin, end, utf8_);
  }

  bool composes_;
  int options_;
  std::vector<utf8proc_int32_t> buffer_;
  std::string utf8_;
};

}  // namespace

void NormalizeParts(
    std::string_view text, NormalizationForm form,
    const std::function<void(size_t begin, size_t end, std::string_view normalized)>& sink) {
  FormBuilder(form).Run(text, sink);
}

std::string NormalizeUnicode(std::string_view text, NormalizationForm form) {
  std::string out;
  out.reserve(text.size());
  FormBuilder(form).Run(text,
                        [&out](size_t, size_t, std::string_view normalized) { out += normalized; });
  return out;
}

}  // namespace perdure::text
