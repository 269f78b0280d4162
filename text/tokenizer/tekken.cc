// tekken.json: {"config": {…}, "vocab": [{"rank", "token_bytes", "token_str"}, …],
// "special_tokens": [{"rank", "token_str", "is_control"}, …]}. A special token's id is its rank,
// another's is its rank behind all special ones (mistral-common, tokens/tokenizers/tekken.py).
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/json.h"
#include "base/limits.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/regex.h"

namespace perdure::text {
namespace {

// What files up to v7 mean by leaving special_tokens out, by id.
constexpr std::string_view kOldSpecialTokens[] = {"<unk>",
                                                  "<s>",
                                                  "</s>",
                                                  "[INST]",
                                                  "[/INST]",
                                                  "[AVAILABLE_TOOLS]",
                                                  "[/AVAILABLE_TOOLS]",
                                                  "[TOOL_RESULTS]",
                                                  "[/TOOL_RESULTS]",
                                                  "[TOOL_CALLS]",
                                                  "[IMG]",
                                                  "<pad>",
                                                  "[IMG_BREAK]",
                                                  "[IMG_END]",
                                                  "[PREFIX]",
                                                  "[MIDDLE]",
                                                  "[SUFFIX]",
                                                  "[SYSTEM_PROMPT]",
                                                  "[/SYSTEM_PROMPT]",
                                                  "[TOOL_CONTENT]"};
constexpr std::string_view kOldVersions[] = {"v1", "v2", "v3", "v7"};

constexpr std::string_view kBos = "<s>";

// Appends the bytes; false for what is no base64 (RFC 4648, with padding).
bool AppendFromBase64(std::string_view text, std::string* out) {
  const auto value_of = [](char c) -> int {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
  };
  if (text.size() % 4 != 0) return false;
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int value = value_of(text[i]);
    if (value < 0) return false;
    bits = bits << 6 | static_cast<uint32_t>(value);
    if (i % 4 != 0) out->push_back(static_cast<char>(bits >> (6 - i % 4 * 2) & 0xFF));
  }
  const uint32_t unused = (uint32_t{1} << padding * 2) - 1;
  return (bits & unused) == 0;  // no bits behind the last byte
}

struct Sizes {
  size_t special;   // special tokens, whether they have a content or not
  size_t ordinary;  // tokens of the vocabulary that are used: the first ones
};

Result<Sizes> SizesFromJson(const JsonField& config) {
  ASSIGN_OR_RETURN(const int64_t special, config.GetInt("default_num_special_tokens", 0,
                                                        limits::kTekkenSpecialTokensMax, 1000));
  ASSIGN_OR_RETURN(const int64_t all, config.GetInt("default_vocab_size", special + 256,
                                                    limits::kVocabMax, std::nullopt));
  return Sizes{static_cast<size_t>(special), static_cast<size_t>(all - special)};
}

Status CheckCount(const JsonField& vocab, const Sizes& sizes) {
  ASSIGN_OR_RETURN(const size_t given, vocab.Elements());
  if (given >= sizes.ordinary) return {};
  return vocab.Bad(fmt::format("has {} tokens, but config asks for {}", given, sizes.ordinary));
}

// The bytes of vocab[rank], as the byte-level alphabet writes them.
Result<std::string> ContentFromJson(const JsonField& vocab, size_t rank) {
  const Json& entry = vocab.json()[rank];
  const auto fail = [&](std::string_view reason) { return vocab.At(rank).Bad(reason); };
  if (!entry.is_object()) return fail("is not an object");
  const auto number = entry.find("rank");
  if (number == entry.end() || !number->is_number_unsigned() || number->get<uint64_t>() != rank)
    return fail("must have its own place in the list as \"rank\"");
  const auto base64 = entry.find("token_bytes");
  if (base64 == entry.end() || !base64->is_string()) return fail("has no string \"token_bytes\"");
  std::string bytes;
  if (!AppendFromBase64(base64->get_ref<const std::string&>(), &bytes))
    return fail("has token_bytes that are not base64");
  if (bytes.empty()) return fail("has no bytes");
  // All text can be written with these.
  if (rank < 256 && bytes != std::string(1, static_cast<char>(rank)))
    return fail("must be the byte of its rank, as the first 256 are");
  std::string content;
  AppendByteLevel(bytes, &content);
  return content;
}

Result<std::vector<AddedToken>> SpecialTokensFromJson(const JsonField& document, size_t count) {
  std::vector<std::string> contents(count);
  ASSIGN_OR_RETURN(const auto list, document.Member("special_tokens"));
  if (list) {
    ASSIGN_OR_RETURN(const size_t size, list->Elements());
    for (size_t i = 0; i < size; ++i) {
      const JsonField token = list->At(i);
      ASSIGN_OR_RETURN(const int64_t rank,
                       token.GetInt("rank", 0, static_cast<int64_t>(count) - 1, std::nullopt));
      ASSIGN_OR_RETURN(const std::string_view content, token.RequireString("token_str"));
      if (content.empty() || content.size() > limits::kAddedTokenBytesMax)
        return token.Bad(fmt::format("has a token_str of {} bytes; supported are 1 to {}",
                                     content.size(), limits::kAddedTokenBytesMax));
      std::string& place = contents[static_cast<size_t>(rank)];
      if (!place.empty())
        return token.Bad(fmt::format("has the rank {}, which stands twice", rank));
      place = content;
    }
  } else {
    ASSIGN_OR_RETURN(const JsonField config, document.RequireMember("config"));
    ASSIGN_OR_RETURN(const std::string_view version, config.RequireString("version"));
    if (std::find(std::begin(kOldVersions), std::end(kOldVersions), version) ==
        std::end(kOldVersions))
      return document.Bad(
          fmt::format("has no \"special_tokens\", which files of version \"{}\" need", version));
    for (size_t i = 0; i < std::min(count, std::size(kOldSpecialTokens)); ++i)
      contents[i] = kOldSpecialTokens[i];
  }
  std::vector<AddedToken> tokens;
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < count; ++id) {
    if (contents[id].empty()) contents[id] = fmt::format("<SPECIAL_{}>", id);
    if (!seen.insert(contents[id]).second)
      return document.Bad(fmt::format("has the special token \"{}\" twice", contents[id]));
    AddedToken& token = tokens.emplace_back();
    token.id = static_cast<TokenId>(id);
    token.content = contents[id];
    token.special = true;
  }
  return tokens;
}

// Special tokens are none of the vocabulary's: their contents may be those of others.
Result<Bpe> ModelFromJson(const JsonField& vocab, const Sizes& sizes, const BpeSettings& settings,
                          std::string_view name) {
  std::vector<std::string> contents(sizes.special + sizes.ordinary);
  std::vector<uint32_t> ranks(contents.size(), Bpe::kNoRank);
  for (size_t rank = 0; rank < sizes.ordinary; ++rank) {
    ASSIGN_OR_RETURN(contents[sizes.special + rank], ContentFromJson(vocab, rank));
    ranks[sizes.special + rank] = static_cast<uint32_t>(rank);
  }
  ASSIGN_OR_RETURN(Vocabulary vocabulary,
                   Vocabulary::FromContents(contents, fmt::format("{}: vocab", name)));
  return Bpe::FromRanks(std::move(vocabulary), ranks, settings, name);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> ParseTekken(std::string_view json, std::string_view name,
                                               std::shared_ptr<const PreparedFile> prepared) {
  ASSIGN_OR_RETURN(const Json parsed, ParseJson(json, name, ErrorCode::bad_model));
  const JsonField document(parsed, name);
  ASSIGN_OR_RETURN(const JsonField config, document.RequireMember("config"));
  ASSIGN_OR_RETURN(const Sizes sizes, SizesFromJson(config));
  ASSIGN_OR_RETURN(const std::string_view pattern, config.RequireString("pattern"));
  ASSIGN_OR_RETURN(Regex words, Regex::Compile(pattern, fmt::format("{}: config.pattern", name)));

  TokenizerParts parts;
  BpeSettings settings;
  settings.ignore_merges = true;
  if (prepared != nullptr) {
    ASSIGN_OR_RETURN(Bpe bpe, Bpe::FromPrepared(*prepared, settings));
    parts.model = std::make_unique<Bpe>(std::move(bpe));
  } else {
    ASSIGN_OR_RETURN(const JsonField vocab, document.RequireMember("vocab"));
    RETURN_IF_ERROR(CheckCount(vocab, sizes));
    ASSIGN_OR_RETURN(Bpe bpe, ModelFromJson(vocab, sizes, settings, name));
    parts.model = std::make_unique<Bpe>(std::move(bpe));
  }
  parts.prepared = std::move(prepared);
  parts.pre_tokenizer = PreTokenizer::BytesOfMatches(std::move(words));
  const Json decoder = {{"type", "ByteLevel"}};
  ASSIGN_OR_RETURN(parts.decoder, Decoder::FromJson(JsonField(decoder, name), name));
  ASSIGN_OR_RETURN(parts.added, SpecialTokensFromJson(document, sizes.special));
  for (const AddedToken& token : parts.added) {
    if (token.content == kBos) parts.around.before = {token.id};
  }
  return AssembleTokenizer(std::move(parts), name);
}

}  // namespace perdure::text
