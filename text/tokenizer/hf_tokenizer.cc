// tokenizer.json, as Hugging Face's `tokenizers` writes it.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/wordpiece.h"

namespace perdure::text {
namespace {

Result<std::unique_ptr<WordModel>> ModelFromJson(const JsonField& model,
                                                 const PreparedFile* prepared) {
  ASSIGN_OR_RETURN(const auto type, model.GetString("type"));
  // Files of old versions leave the type out.
  if (type.value_or("BPE") == "BPE") {
    ASSIGN_OR_RETURN(Bpe bpe, Bpe::FromJson(model, prepared));
    return std::make_unique<Bpe>(std::move(bpe));
  }
  if (*type == "WordPiece") {
    ASSIGN_OR_RETURN(WordPiece word_piece, WordPiece::FromJson(model, prepared));
    return std::make_unique<WordPiece>(std::move(word_piece));
  }
  return model.Unsupported(
      fmt::format("is of type \"{}\"; supported are BPE and WordPiece", *type));
}

// The model's vocabulary and added_tokens must not contradict each other.
Status CheckIds(const JsonField& document, const std::vector<AddedToken>& added,
                const Vocabulary& vocabulary) {
  for (const AddedToken& token : added) {
    const std::optional<TokenId> in_vocab = vocabulary.Find(token.content);
    if (in_vocab == token.id || (!in_vocab && !vocabulary.Has(token.id))) continue;
    return document.Bad(
        fmt::format("added_tokens gives \"{}\" the id {}, but model.vocab says otherwise (\"{}\")",
                    token.content, token.id,
                    in_vocab ? std::to_string(*in_vocab) : vocabulary.ContentOf(token.id)));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view json, std::string_view name) {
  return ParseTokenizerJson(json, name, nullptr);
}

Result<std::unique_ptr<Tokenizer>> ParseTokenizerJson(
    std::string_view json, std::string_view name, std::shared_ptr<const PreparedFile> prepared) {
  ASSIGN_OR_RETURN(const Json parsed, ParseJson(json, name, ErrorCode::bad_model));
  const JsonField document(parsed, name);
  RETURN_IF_ERROR(document.ExpectObject());
  ASSIGN_OR_RETURN(const JsonField model, document.RequireMember("model"));
  TokenizerParts parts;
  ASSIGN_OR_RETURN(parts.model, ModelFromJson(model, prepared.get()));
  parts.prepared = std::move(prepared);
  ASSIGN_OR_RETURN(const auto normalizer, document.Member("normalizer"));
  ASSIGN_OR_RETURN(parts.normalizer, Normalizer::FromJson(normalizer));
  ASSIGN_OR_RETURN(const auto pre_tokenizer, document.Member("pre_tokenizer"));
  ASSIGN_OR_RETURN(parts.pre_tokenizer, PreTokenizer::FromJson(pre_tokenizer));
  ASSIGN_OR_RETURN(const auto decoder, document.Member("decoder"));
  ASSIGN_OR_RETURN(parts.decoder, Decoder::FromJson(decoder, name));
  ASSIGN_OR_RETURN(const auto post_processor, document.Member("post_processor"));
  ASSIGN_OR_RETURN(parts.around, AroundTextFromJson(post_processor));
  ASSIGN_OR_RETURN(parts.added, AddedTokensFromJson(document));
  RETURN_IF_ERROR(CheckIds(document, parts.added, parts.model->vocabulary()));
  return AssembleTokenizer(std::move(parts), name);
}

}  // namespace perdure::text
