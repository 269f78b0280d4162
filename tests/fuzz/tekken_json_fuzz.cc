// tekken.json, and behind a byte 0 a text to encode.

#include "fuzz_target.h"
#include "text/tokenizer/model_files.h"
#include "tokenizer_checks.h"

namespace perdure::fuzz {

FUZZ_TARGET(tekken_json) {
  const auto [file, text] = SplitAtZero(input);
  const auto tokenizer = text::ParseTekken(file, "tekken.json");
  if (!tokenizer) return CheckError(tokenizer.error());
  CheckTokenizer(**tokenizer, text);
}

}  // namespace perdure::fuzz
