// The tokenizer that its parts make, whatever file they were read from: added tokens, normalizer,
// pre-tokenizer, model, and back by the decoder.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/prepared_file.h"
#include "base/result.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/decoder.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/post_processor.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/word_model.h"

namespace perdure::text {

struct TokenizerParts {
  std::unique_ptr<WordModel> model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Decoder decoder;
  std::vector<AddedToken> added;  // no id and no content twice; they go before the model's own
  AroundText around;
  // Where the model's lists lie, and the texts of tokens; nothing: they are made here.
  std::shared_ptr<const PreparedFile> prepared = nullptr;
};

// `file` stands in errors. bad_model: tokens around the text that do not exist, added tokens or
// token bytes that grow beyond all bounds.
Result<std::unique_ptr<Tokenizer>> AssembleTokenizer(TokenizerParts parts, std::string_view file);

}  // namespace perdure::text
