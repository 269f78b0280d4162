// The "post_processor" of tokenizer.json, as far as it adds tokens around one text.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {

struct AroundText {
  std::vector<TokenId> before;  // BOS, [CLS]
  std::vector<TokenId> after;   // EOS, [SEP]
};

// Supported: TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence; null adds
// nothing. bad_model: ids outside of [0, limits::kVocabMax), a template without its text.
Result<AroundText> AroundTextFromJson(const std::optional<JsonField>& field);

}  // namespace perdure::text
