#include "text/tokenizer/decoder.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_level.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && static_cast<size_t>(DecodeUtf8(text, 0).length) == text.size();
}

std::string ReplaceAll(std::string_view text, std::string_view pattern, std::string_view by) {
  std::string out;
  for (;;) {
    const size_t at = text.find(pattern);
    out += text.substr(0, at);
    if (at == std::string_view::npos) return out;
    out += by;
    text.remove_prefix(at + pattern.size());
  }
}

}  // namespace

Result<Decoder> Decoder::FromJson(const JsonField& field) {
  Decoder decoder;
  decoder.where_ = fmt::format("{}: {}", field.file(), field.path());
  RETURN_IF_ERROR(decoder.Add(field));
  return decoder;
}

Status Decoder::Add(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string_view type, field.RequireString("type"));
  if (steps_.size() >= limits::kTokenizerStepsMax)
    return field.Bad(
        fmt::format("is one step more than the {} that are supported", limits::kTokenizerStepsMax));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonField members, field.RequireMember("decoders"));
    ASSIGN_OR_RETURN(const size_t count, members.Elements());
    for (size_t i = 0; i < count; ++i) RETURN_IF_ERROR(Add(members.At(i)));
    return {};
  }
  if (type == "Replace") return AddReplace(field);
  if (type == "Strip") return AddStrip(field);
  if (type == "Fuse") {
    fused_ = true;
    return {};
  }
  if (type != "ByteLevel" && type != "ByteFallback" && type != "Metaspace") {
    return field.Unsupported(
        fmt::format("is of type \"{}\"; supported are ByteLevel, ByteFallback, Fuse, Replace, "
                    "Strip, Metaspace and Sequence",
                    type));
  }
  if (fused_) return field.Unsupported(fmt::format("applies {} behind Fuse", type));
  if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else if (type == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else {
    ASSIGN_OR_RETURN(const auto replacement, field.GetString("replacement"));
    if (!IsOneCharacter(replacement.value_or("\u2581")))
      return field.Bad("must have a \"replacement\" of one character");
    steps_.emplace_back(Replace{std::string(replacement.value_or("\u2581")), " "});
  }
  return {};
}

Status Decoder::AddReplace(const JsonField& field) {
  ASSIGN_OR_RETURN(const JsonField pattern, field.RequireMember("pattern"));
  ASSIGN_OR_RETURN(const auto literal, pattern.GetString("String"));
  if (!literal) return pattern.Unsupported("is not a \"String\"; decoders can replace only those");
  if (literal->empty()) return pattern.Bad("is empty");
  ASSIGN_OR_RETURN(const std::string_view content, field.RequireString("content"));
  if (content.size() > limits::kTokenizerPatternBytesMax)
    return field.Bad(fmt::format("has a content of {} bytes; at most {} are supported",
                                 content.size(), limits::kTokenizerPatternBytesMax));
  // Two tokens could share a longer one.
  if (fused_ && !IsOneCharacter(*literal))
    return field.Unsupported("replaces several characters behind Fuse");
  steps_.emplace_back(Replace{std::string(*literal), std::string(content)});
  return {};
}

Status Decoder::AddStrip(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string_view content, field.RequireString("content"));
  if (!IsOneCharacter(content)) return field.Bad("must have a \"content\" of one character");
  ASSIGN_OR_RETURN(const int64_t start, field.GetInt("start", 0, INT32_MAX, 0));
  ASSIGN_OR_RETURN(const int64_t stop, field.GetInt("stop", 0, INT32_MAX, 0));
  if (fused_) {
    if (stop != 0) return field.Unsupported("strips the end of an answer");
    return {};  // the start of an answer: see the header
  }
  steps_.emplace_back(Strip{std::string(content), static_cast<int>(start), static_cast<int>(stop)});
  return {};
}

Result<std::string> Decoder::Apply(std::string_view content, bool added) const {
  std::string bytes(content);
  for (const Step& step : steps_) {
    if (std::holds_alternative<ByteLevel>(step)) {
      std::string decoded;
      if (!added && AppendFromByteLevel(bytes, &decoded)) bytes = std::move(decoded);
    } else if (std::holds_alternative<ByteFallback>(step)) {
      if (const auto byte = ByteOfToken(bytes)) bytes.assign(1, static_cast<char>(*byte));
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      bytes = ReplaceAll(bytes, replace->pattern, replace->content);
      if (bytes.size() > limits::kTokenBytesMax)
        return Err(ErrorCode::bad_model, fmt::format("{} makes more than {} bytes of one token",
                                                     where_, limits::kTokenBytesMax));
    } else if (const auto* strip = std::get_if<Strip>(&step)) {
      for (int i = 0; i < strip->start && bytes.starts_with(strip->content); ++i)
        bytes.erase(0, strip->content.size());
      for (int i = 0; i < strip->stop && bytes.ends_with(strip->content); ++i)
        bytes.resize(bytes.size() - strip->content.size());
    }
  }
  return bytes;
}

}  // namespace perdure::text
