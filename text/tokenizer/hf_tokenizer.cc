// The tokenizer that a tokenizer.json describes: added tokens, normalizer, pre-tokenizer, BPE.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/decoder.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/tokenizer.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// Copies `in` with U+FFFD for what is no UTF-8; the marked ranges move along.
MarkedText ReplaceInvalidUtf8(std::string_view in, std::span<const TextRange> literal) {
  MarkedText out;
  out.text.reserve(in.size() + 16);
  out.literal.assign(literal.begin(), literal.end());
  size_t next_begin = 0, next_end = 0;
  for (size_t i = 0; i < in.size();) {
    const Utf8Char c = DecodeUtf8(in, i);
    const size_t end = i + static_cast<size_t>(c.length);
    // A range that begins or ends inside what becomes one character covers all of it.
    for (; next_begin < literal.size() && literal[next_begin].begin < end; ++next_begin)
      out.literal[next_begin].begin = out.text.size();
    if (c.valid) {
      out.text += in.substr(i, static_cast<size_t>(c.length));
    } else {
      out.text += kReplacementUtf8;
    }
    for (; next_end < literal.size() && literal[next_end].end <= end; ++next_end)
      out.literal[next_end].end = out.text.size();
    i = end;
  }
  return out;
}

// The part of sorted `ranges` inside `window`, relative to its begin.
std::vector<TextRange> Clip(std::span<const TextRange> ranges, TextRange window) {
  std::vector<TextRange> out;
  auto it = std::partition_point(ranges.begin(), ranges.end(),
                                 [&](const TextRange& r) { return r.end <= window.begin; });
  for (; it != ranges.end() && it->begin < window.end; ++it) {
    const size_t begin = std::max(it->begin, window.begin);
    const size_t end = std::min(it->end, window.end);
    if (begin < end) out.push_back({begin - window.begin, end - window.begin});
  }
  return out;
}

class HfTokenizer final : public Tokenizer {
 public:
  static Result<std::unique_ptr<Tokenizer>> FromJson(const JsonField& document);

  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      std::span<const TextRange> literal) const override;
  std::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override;
  std::optional<TokenId> IdOf(std::string_view content) const override;
  int vocab_size() const override { return static_cast<int>(bytes_end_.size()); }

 private:
  // What one Encode call works with.
  struct Call {
    RegexRunner runner;
    BpeScratch bpe;
    Words words;
    std::vector<TokenId> ids;
  };

  HfTokenizer(Bpe bpe, Normalizer normalizer, PreTokenizer pre_tokenizer,
              AddedTokenFinder raw_finder, AddedTokenFinder normalized_finder)
      : bpe_(std::move(bpe)),
        normalizer_(std::move(normalizer)),
        pre_tokenizer_(std::move(pre_tokenizer)),
        raw_finder_(std::move(raw_finder)),
        normalized_finder_(std::move(normalized_finder)) {}

  Status FillTokenBytes(const Decoder& decoder, const std::vector<AddedToken>& added,
                        std::string_view name);
  // Ordinary text, as far as pass 1 is concerned.
  Status EncodePart(MarkedText part, Call& call) const;
  Status EncodeWords(std::string text, bool at_start, Call& call) const;

  Bpe bpe_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedTokenFinder raw_finder_;         // normalized = false
  AddedTokenFinder normalized_finder_;  // normalized = true
  std::unordered_map<std::string, TokenId> added_ids_;
  std::string bytes_;                // all tokens' bytes in the order of their ids
  std::vector<uint64_t> bytes_end_;  // by id, in bytes_
  std::vector<uint8_t> special_;     // by id
};

Result<std::unique_ptr<Tokenizer>> HfTokenizer::FromJson(const JsonField& document) {
  RETURN_IF_ERROR(document.ExpectObject());
  ASSIGN_OR_RETURN(const JsonField model, document.RequireMember("model"));
  ASSIGN_OR_RETURN(const auto type, model.GetString("type"));
  // Files of old versions leave the type out.
  if (type.value_or("BPE") != "BPE")
    return model.Unsupported(
        fmt::format("is of type \"{}\"; only BPE tokenizers are supported", *type));
  ASSIGN_OR_RETURN(const auto normalizer_field, document.Member("normalizer"));
  ASSIGN_OR_RETURN(Normalizer normalizer, Normalizer::FromJson(normalizer_field));
  ASSIGN_OR_RETURN(const auto pre_tokenizer_field, document.Member("pre_tokenizer"));
  ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer, PreTokenizer::FromJson(pre_tokenizer_field));
  ASSIGN_OR_RETURN(const auto decoder_field, document.Member("decoder"));
  if (!decoder_field)
    return document.Unsupported("has no decoder, without which tokens cannot become text");
  ASSIGN_OR_RETURN(const Decoder decoder, Decoder::FromJson(*decoder_field));
  ASSIGN_OR_RETURN(Bpe bpe, Bpe::FromJson(model));
  ASSIGN_OR_RETURN(const std::vector<AddedToken> added, AddedTokensFromJson(document));

  std::vector<AddedTokenFinder::Pattern> raw, normalized;
  for (const AddedToken& token : added) {
    const std::optional<TokenId> in_vocab = bpe.vocabulary().Find(token.content);
    const bool taken = bpe.vocabulary().Has(token.id) && in_vocab != token.id;
    if (taken || (in_vocab && in_vocab != token.id)) {
      return document.Bad(fmt::format(
          "added_tokens gives \"{}\" the id {}, but model.vocab says otherwise (\"{}\")",
          token.content, token.id,
          in_vocab ? std::to_string(*in_vocab) : bpe.vocabulary().ContentOf(token.id)));
    }
    MarkedText content{token.content, {}, false};
    if (token.normalized) {
      RegexRunner runner(content.text.size());
      RETURN_IF_ERROR(normalizer.Apply(&content, runner));
    }
    if (content.text.size() > limits::kAddedTokenBytesMax * 4)
      return document.Bad(fmt::format("makes {} bytes of the added token \"{}\" by normalizing it",
                                      content.text.size(), token.content));
    if (token.special) bpe.NeverWhole(token.id);
    (token.normalized ? normalized : raw)
        .push_back(
            {std::move(content.text), token.id, token.single_word, token.lstrip, token.rstrip});
  }
  ASSIGN_OR_RETURN(AddedTokenFinder raw_finder, AddedTokenFinder::Build(std::move(raw)));
  ASSIGN_OR_RETURN(AddedTokenFinder normalized_finder,
                   AddedTokenFinder::Build(std::move(normalized)));

  auto tokenizer = std::unique_ptr<HfTokenizer>(
      new HfTokenizer(std::move(bpe), std::move(normalizer), std::move(pre_tokenizer),
                      std::move(raw_finder), std::move(normalized_finder)));
  RETURN_IF_ERROR(tokenizer->FillTokenBytes(decoder, added, document.file()));
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

Status HfTokenizer::FillTokenBytes(const Decoder& decoder, const std::vector<AddedToken>& added,
                                   std::string_view name) {
  const Vocabulary& vocabulary = bpe_.vocabulary();
  int size = vocabulary.size();
  std::unordered_map<TokenId, const AddedToken*> added_by_id;
  for (const AddedToken& token : added) {
    size = std::max(size, token.id + 1);
    added_by_id[token.id] = &token;
    added_ids_[token.content] = token.id;
  }
  special_.assign(static_cast<size_t>(size), 0);
  bytes_end_.reserve(static_cast<size_t>(size));
  for (TokenId id = 0; id < size; ++id) {
    if (const auto it = added_by_id.find(id); it != added_by_id.end()) {
      ASSIGN_OR_RETURN(const std::string bytes, decoder.BytesOfAdded(it->second->content));
      bytes_ += bytes;
      special_[static_cast<size_t>(id)] = it->second->special;
    } else if (vocabulary.Has(id)) {
      ASSIGN_OR_RETURN(const std::string bytes, decoder.BytesOf(vocabulary.ContentOf(id)));
      bytes_ += bytes;
    }
    if (bytes_.size() > limits::kTokenizerJsonBytesMax)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: the decoder makes more than {} bytes of all tokens", name,
                             limits::kTokenizerJsonBytesMax));
    bytes_end_.push_back(bytes_.size());
  }
  return {};
}

Result<std::vector<TokenId>> HfTokenizer::Encode(std::string_view text,
                                                 std::span<const TextRange> literal) const {
  if (text.size() > limits::kEncodeBytesMax) {
    return Err(ErrorCode::context_length_exceeded,
               fmt::format("the prompt has {} bytes of text; at most {} can be tokenized",
                           text.size(), limits::kEncodeBytesMax));
  }
  size_t previous_end = 0;
  for (const TextRange& range : literal) {
    CHECK(previous_end <= range.begin && range.begin <= range.end && range.end <= text.size());
    previous_end = range.end;
  }
  MarkedText replaced;
  if (!IsValidUtf8(text)) {
    replaced = ReplaceInvalidUtf8(text, literal);
    text = replaced.text;
    literal = replaced.literal;
  }

  Call call{RegexRunner(text.size()), {}, {}, {}};
  std::vector<TextPart> parts;
  RETURN_IF_ERROR(raw_finder_.Find(text, literal, call.runner, &parts));
  // Marks matter from here on only to added tokens that are looked for in normalized text.
  if (normalized_finder_.empty()) literal = {};
  for (const TextPart& part : parts) {
    if (part.id >= 0) {
      call.ids.push_back(part.id);
      continue;
    }
    const TextRange range = part.range;
    RETURN_IF_ERROR(EncodePart({std::string(text.substr(range.begin, range.end - range.begin)),
                                Clip(literal, range), range.begin == 0},
                               call));
  }
  return std::move(call.ids);
}

Status HfTokenizer::EncodePart(MarkedText part, Call& call) const {
  if (!normalizer_.empty()) RETURN_IF_ERROR(normalizer_.Apply(&part, call.runner));
  if (normalized_finder_.empty()) return EncodeWords(std::move(part.text), part.at_start, call);
  std::vector<TextPart> parts;
  RETURN_IF_ERROR(normalized_finder_.Find(part.text, part.literal, call.runner, &parts));
  for (const TextPart& p : parts) {
    if (p.id >= 0) {
      call.ids.push_back(p.id);
    } else {
      RETURN_IF_ERROR(EncodeWords(part.text.substr(p.range.begin, p.range.end - p.range.begin),
                                  part.at_start && p.range.begin == 0, call));
    }
  }
  return {};
}

Status HfTokenizer::EncodeWords(std::string text, bool at_start, Call& call) const {
  RETURN_IF_ERROR(pre_tokenizer_.Apply(std::move(text), at_start, call.runner, &call.words));
  for (const TextRange word : call.words.ranges) {
    bpe_.Encode(std::string_view(call.words.text).substr(word.begin, word.end - word.begin),
                &call.bpe, &call.ids);
  }
  return {};
}

std::string_view HfTokenizer::TokenBytes(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const size_t begin = id == 0 ? 0 : bytes_end_[static_cast<size_t>(id) - 1];
  return std::string_view(bytes_).substr(begin, bytes_end_[static_cast<size_t>(id)] - begin);
}

bool HfTokenizer::IsSpecial(TokenId id) const {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)] != 0;
}

std::optional<TokenId> HfTokenizer::IdOf(std::string_view content) const {
  if (const auto it = added_ids_.find(std::string(content)); it != added_ids_.end())
    return it->second;
  return bpe_.vocabulary().Find(content);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view json, std::string_view name) {
  ASSIGN_OR_RETURN(const Json document, ParseJson(json, name, ErrorCode::bad_model));
  return HfTokenizer::FromJson(JsonField(document, name));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "tokenizer.json";
  ASSIGN_OR_RETURN(const std::string json, ReadFile(path, limits::kTokenizerJsonBytesMax));
  return Parse(json, path.string());
}

}  // namespace perdure::text
