#include "text/tokenizer/decoder.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/metaspace.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// What "cleanup" does to each token together with the blank before it, in this order.
constexpr std::pair<std::string_view, std::string_view> kCleanups[] = {
    {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
    {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
    {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};

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

Result<Decoder> Decoder::FromJson(const std::optional<JsonField>& field, std::string_view file) {
  Decoder decoder;
  decoder.where_ = fmt::format("{}: decoder", file);
  if (field) {
    RETURN_IF_ERROR(decoder.Add(*field));
  } else {
    decoder.steps_.emplace_back(Separate{std::nullopt, false});
    decoder.first_differs_ = true;
  }
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
  if (type != "ByteLevel" && type != "ByteFallback" && type != "Metaspace" && type != "WordPiece") {
    return field.Unsupported(
        fmt::format("is of type \"{}\"; supported are ByteLevel, ByteFallback, Fuse, Replace, "
                    "Strip, Metaspace, WordPiece and Sequence",
                    type));
  }
  if (fused_) return field.Unsupported(fmt::format("applies {} behind Fuse", type));
  if (type == "Metaspace") return AddMetaspace(field);
  if (type == "WordPiece") return AddWordPiece(field);
  if (type == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else {
    steps_.emplace_back(ByteFallback{});
  }
  return {};
}

Status Decoder::AddMetaspace(const JsonField& field) {
  ASSIGN_OR_RETURN(const Metaspace metaspace, Metaspace::FromJson(field));
  if (metaspace.when != Metaspace::When::kNever) {
    steps_.emplace_back(Remove{metaspace.replacement});
    first_differs_ = true;
  }
  steps_.emplace_back(Replace{metaspace.replacement, " "});
  return {};
}

Status Decoder::AddWordPiece(const JsonField& field) {
  ASSIGN_OR_RETURN(const auto prefix, field.GetString("prefix"));
  ASSIGN_OR_RETURN(const bool cleanup, field.GetBool("cleanup", true));
  steps_.emplace_back(Separate{std::string(prefix.value_or("##")), cleanup});
  first_differs_ = true;
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
    if (start > 1) return field.Unsupported("strips more than one character of an answer");
    first_differs_ = true;
  }
  steps_.emplace_back(
      Strip{std::string(content), static_cast<int>(start), static_cast<int>(stop), fused_});
  return {};
}

Result<std::string> Decoder::BytesOf(std::string_view content, bool added, bool first) const {
  std::string token(content);
  for (const Step& step : steps_) {
    token = std::visit(
        [&](const auto& alternative) { return Do(alternative, std::move(token), added, first); },
        step);
    if (token.size() > limits::kTokenBytesMax)
      return Err(ErrorCode::bad_model, fmt::format("{} makes more than {} bytes of one token",
                                                   where_, limits::kTokenBytesMax));
  }
  return token;
}

std::string Decoder::Do(const ByteLevel&, std::string token, bool added, bool) {
  std::string decoded;
  return !added && AppendFromByteLevel(token, &decoded) ? decoded : token;
}

std::string Decoder::Do(const ByteFallback&, std::string token, bool, bool) {
  if (const auto byte = ByteOfToken(token)) token.assign(1, static_cast<char>(*byte));
  return token;
}

std::string Decoder::Do(const Replace& step, std::string token, bool, bool) {
  return ReplaceAll(token, step.pattern, step.content);
}

std::string Decoder::Do(const Strip& step, std::string token, bool, bool first) {
  if (step.first_only && !first) return token;
  for (int i = 0; i < step.start && token.starts_with(step.content); ++i)
    token.erase(0, step.content.size());
  for (int i = 0; i < step.stop && token.ends_with(step.content); ++i)
    token.resize(token.size() - step.content.size());
  return token;
}

std::string Decoder::Do(const Remove& step, std::string token, bool, bool first) {
  return first ? ReplaceAll(token, step.content, "") : token;
}

std::string Decoder::Do(const Separate& step, std::string token, bool, bool first) {
  if (!first) {
    if (step.glued && token.starts_with(*step.glued)) {
      token.erase(0, step.glued->size());
    } else {
      token.insert(token.begin(), ' ');
    }
  }
  if (!step.cleanup) return token;
  for (const auto& [from, to] : kCleanups) token = ReplaceAll(token, from, to);
  return token;
}

}  // namespace perdure::text
