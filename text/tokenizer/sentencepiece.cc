// tokenizer.model: SentencePiece's ModelProto (sentencepiece_model.proto), of which the pieces and
// a few settings are read.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/proto_reader.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// What such models do besides BPE, as converters write it into a tokenizer.json.
constexpr std::string_view kNormalizer = R"({"type": "Sequence", "normalizers": [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})";
constexpr std::string_view kDecoder = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

// SentencePiece.Type
enum PieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Piece {
  std::string content;
  float score = 0;
  uint64_t type = kNormal;
};

struct SentencePieceModel {
  std::vector<Piece> pieces;  // by id
  uint64_t model_type = 1;
  uint64_t byte_fallback = 0;
  uint64_t whitespace_as_suffix = 0;
  int64_t bos_id = 1;
  bool has_rules = false;  // for normalization
  uint64_t add_dummy_prefix = 1;
  uint64_t remove_extra_whitespaces = 1;
  uint64_t escape_whitespaces = 1;
};

Result<Piece> ReadPiece(std::string_view message, std::string_view file) {
  Piece piece;
  for (ProtoReader reader(message, file); reader.more();) {
    ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 1) piece.content = field.bytes;
    if (field.number == 2) piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == 3) piece.type = field.value;
  }
  if (piece.content.empty() || !IsValidUtf8(piece.content) || !std::isfinite(piece.score))
    return Err(ErrorCode::bad_model, fmt::format("{} has a piece without a text or a score", file));
  return piece;
}

Status ReadTrainerSpec(std::string_view message, std::string_view file, SentencePieceModel* model) {
  for (ProtoReader reader(message, file); reader.more();) {
    ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 3) model->model_type = field.value;
    if (field.number == 24) model->whitespace_as_suffix = field.value;
    if (field.number == 35) model->byte_fallback = field.value;
    if (field.number == 41) model->bos_id = static_cast<int64_t>(field.value);
  }
  return {};
}

Status ReadNormalizerSpec(std::string_view message, std::string_view file,
                          SentencePieceModel* model) {
  for (ProtoReader reader(message, file); reader.more();) {
    ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 2) model->has_rules = !field.bytes.empty();
    if (field.number == 3) model->add_dummy_prefix = field.value;
    if (field.number == 4) model->remove_extra_whitespaces = field.value;
    if (field.number == 5) model->escape_whitespaces = field.value;
  }
  return {};
}

Result<SentencePieceModel> ReadModel(std::string_view proto, std::string_view file) {
  SentencePieceModel model;
  for (ProtoReader reader(proto, file); reader.more();) {
    ASSIGN_OR_RETURN(const ProtoField field, reader.Next());
    if (field.number == 1) {
      ASSIGN_OR_RETURN(Piece piece, ReadPiece(field.bytes, file));
      model.pieces.push_back(std::move(piece));
      if (model.pieces.size() > static_cast<size_t>(limits::kVocabMax))
        return Err(ErrorCode::bad_model,
                   fmt::format("{} has more than {} pieces", file, limits::kVocabMax));
    }
    if (field.number == 2) RETURN_IF_ERROR(ReadTrainerSpec(field.bytes, file, &model));
    if (field.number == 3) RETURN_IF_ERROR(ReadNormalizerSpec(field.bytes, file, &model));
  }
  if (model.pieces.empty()) return Err(ErrorCode::bad_model, fmt::format("{} has no pieces", file));
  return model;
}

Status CheckSupported(const SentencePieceModel& model, std::string_view file) {
  const char* found = nullptr;
  if (model.model_type != 2) found = "is not a BPE model";
  if (model.has_rules) found = "has rules for normalization";
  if (model.remove_extra_whitespaces) found = "removes white space";
  if (!model.escape_whitespaces || model.whitespace_as_suffix) found = "writes blanks another way";
  if (found == nullptr) return {};
  return Err(ErrorCode::unsupported,
             fmt::format("{} {}; supported are BPE models like Llama 2's: make a tokenizer.json of "
                         "it with transformers (AutoTokenizer.from_pretrained, save_pretrained)",
                         file, found));
}

// The larger a score, the smaller the rank; equal scores have equal ranks.
std::vector<uint32_t> RanksOf(const std::vector<Piece>& pieces) {
  std::vector<float> scores;
  for (const Piece& piece : pieces) {
    if (piece.type == kNormal) scores.push_back(piece.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  std::vector<uint32_t> ranks;
  for (const Piece& piece : pieces) {
    const auto it = std::lower_bound(scores.begin(), scores.end(), piece.score, std::greater<>());
    ranks.push_back(piece.type == kNormal ? static_cast<uint32_t>(it - scores.begin())
                                          : Bpe::kNoRank);
  }
  return ranks;
}

// SentencePiece merges characters even if they are no pieces; here merging begins with pieces.
Status CheckCharacters(const SentencePieceModel& model, const Vocabulary& vocabulary,
                       std::string_view file) {
  for (const Piece& piece : model.pieces) {
    if (piece.type != kNormal) continue;
    for (size_t i = 0; i < piece.content.size();) {
      const auto length = static_cast<size_t>(DecodeUtf8(piece.content, i).length);
      const std::string_view character = std::string_view(piece.content).substr(i, length);
      if (!vocabulary.Find(character))
        return Err(ErrorCode::unsupported,
                   fmt::format("{}: the piece \"{}\" has the character \"{}\", which is no piece",
                               file, piece.content, character));
      i += length;
    }
  }
  return {};
}

Result<std::unique_ptr<WordModel>> MakeModel(const SentencePieceModel& model,
                                             std::string_view file) {
  std::vector<std::string> contents;
  BpeSettings settings;
  for (const Piece& piece : model.pieces) {
    if (piece.type == kUnknown) settings.unk = static_cast<TokenId>(contents.size());
    contents.push_back(piece.type == kUnused ? std::string() : piece.content);
  }
  settings.fuse_unk = true;
  settings.byte_fallback = model.byte_fallback != 0;
  ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::FromContents(contents, file));
  RETURN_IF_ERROR(CheckCharacters(model, vocabulary, file));
  ASSIGN_OR_RETURN(Bpe bpe,
                   Bpe::FromRanks(std::move(vocabulary), RanksOf(model.pieces), settings, file));
  return std::make_unique<Bpe>(std::move(bpe));
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> ParseSentencePiece(std::string_view proto,
                                                      std::string_view name) {
  ASSIGN_OR_RETURN(const SentencePieceModel model, ReadModel(proto, name));
  RETURN_IF_ERROR(CheckSupported(model, name));
  TokenizerParts parts;
  ASSIGN_OR_RETURN(parts.model, MakeModel(model, name));
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Piece& piece = model.pieces[id];
    if (piece.type != kUnknown && piece.type != kControl && piece.type != kUserDefined) continue;
    if (piece.content.size() > limits::kAddedTokenBytesMax)
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: the piece {} has {} bytes; at most {} are supported", name, id,
                             piece.content.size(), limits::kAddedTokenBytesMax));
    AddedToken& token = parts.added.emplace_back();
    token.id = static_cast<TokenId>(id);
    token.content = piece.content;
    token.special = piece.type != kUserDefined;
  }
  if (model.bos_id >= 0) {
    if (static_cast<size_t>(model.bos_id) >= model.pieces.size())
      return Err(ErrorCode::bad_model, fmt::format("{}: bos_id is {}, but there are {} pieces",
                                                   name, model.bos_id, model.pieces.size()));
    parts.around.before = {static_cast<TokenId>(model.bos_id)};
  }
  Json normalizer = Json::parse(kNormalizer), decoder = Json::parse(kDecoder);
  if (!model.add_dummy_prefix) {
    normalizer["normalizers"].erase(0);
    decoder["decoders"].erase(3);
  }
  ASSIGN_OR_RETURN(parts.normalizer, Normalizer::FromJson(JsonField(normalizer, name)));
  ASSIGN_OR_RETURN(parts.decoder, Decoder::FromJson(JsonField(decoder, name), name));
  return AssembleTokenizer(std::move(parts), name);
}

}  // namespace perdure::text
