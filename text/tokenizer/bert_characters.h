// What BertNormalizer asks of a character, as `tokenizers` answers it: by Unicode 8's categories.
#pragma once

#include <string>
#include <string_view>

namespace perdure::text {

// Each appends to `out` what becomes of the character `c`, whose UTF-8 is `utf8`.

// clean_text: control, format and private-use characters go, white space is a blank.
void AppendBertCleaned(char32_t c, std::string_view utf8, std::string* out);
// handle_chinese_chars: CJK ideographs stand between blanks.
void AppendBertSpaced(char32_t c, std::string_view utf8, std::string* out);
// strip_accents, behind NFD: nonspacing marks go.
void AppendBertUnaccented(char32_t c, std::string_view utf8, std::string* out);

}  // namespace perdure::text
