// tokenizer.model (SentencePiece's protocol buffer), which encodes a text of its own bytes.

#include "fuzz_target.h"
#include "text/tokenizer/model_files.h"
#include "tokenizer_checks.h"

namespace perdure::fuzz {

FUZZ_TARGET(tokenizer_model) {
  const auto tokenizer = text::ParseSentencePiece(input, "tokenizer.model");
  if (!tokenizer) return CheckError(tokenizer.error());
  CheckTokenizer(**tokenizer, input);
}

}  // namespace perdure::fuzz
