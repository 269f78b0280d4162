// The tokenizer files. All read the file's bytes; `name` stands in errors (bad_model, unsupported),
// which name the place in the file and the reason. With `prepared`, the big lists (vocabulary,
// merges, texts of tokens) come from there and may be missing in the file.
#pragma once

#include <memory>
#include <string_view>

#include "base/result.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {

// tokenizer.json, as Hugging Face's `tokenizers` writes it.
Result<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json, std::string_view name,
                                                      std::shared_ptr<const PreparedFile> prepared);

// tekken.json (Mistral): the bytes of tokens by rank, merged as tiktoken merges them. The ids of
// special tokens come first. A raw text begins with <s>.
Result<std::unique_ptr<Tokenizer>> ParseTekken(
    std::string_view json, std::string_view name,
    std::shared_ptr<const PreparedFile> prepared = nullptr);

// tokenizer.model (SentencePiece): only BPE models without normalization rules, as Llama 2 and
// Mistral have them. Text behind a special token begins with a blank, as text at the start does
// (the "legacy" way of transformers). A raw text begins with the model's BOS.
Result<std::unique_ptr<Tokenizer>> ParseSentencePiece(std::string_view proto,
                                                      std::string_view name);

}  // namespace perdure::text
