// tokenizer.json, and behind a byte 0 a text to encode.

#include "fuzz_target.h"
#include "text/tokenizer/tokenizer.h"
#include "tokenizer_checks.h"

namespace perdure::fuzz {

FUZZ_TARGET(tokenizer_json) {
  const auto [file, text] = SplitAtZero(input);
  const auto tokenizer = text::Tokenizer::Parse(file, "tokenizer.json");
  if (!tokenizer) return CheckError(tokenizer.error());
  CheckTokenizer(**tokenizer, text);
}

}  // namespace perdure::fuzz
