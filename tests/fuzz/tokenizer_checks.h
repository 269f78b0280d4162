// What must hold of any tokenizer that was accepted.
#pragma once

#include <string_view>

#include "text/tokenizer/tokenizer.h"

namespace perdure::fuzz {

// Encodes `text`, as a template's and as a user's, and looks at every token.
void CheckTokenizer(const text::Tokenizer& tokenizer, std::string_view text);

}  // namespace perdure::fuzz
