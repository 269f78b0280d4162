// Unicode normalization forms (UAX #15) as Hugging Face's `tokenizers` computes them: its tables
// are Unicode 9's, so characters that came later neither decompose, compose nor reorder.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace perdure::text {

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

// Calls sink(begin, end, normalized) for consecutive parts text[begin, end) of `text` (valid
// UTF-8), which cover it: the form of the text is the concatenation of `normalized`. Parts are as
// short as the form allows (a character with its marks), except that unchanged ASCII may come in
// one part.
void NormalizeParts(
    std::string_view text, NormalizationForm form,
    const std::function<void(size_t begin, size_t end, std::string_view normalized)>& sink);

// The form of `text`.
std::string NormalizeUnicode(std::string_view text, NormalizationForm form);

}  // namespace perdure::text
