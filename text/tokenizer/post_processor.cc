#include "text/tokenizer/post_processor.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/limits.h"

namespace perdure::text {
namespace {

// ["[CLS]", 101]
Result<TokenId> NamedToken(const JsonField& processor, std::string_view key) {
  ASSIGN_OR_RETURN(const JsonField pair, processor.RequireMember(key));
  ASSIGN_OR_RETURN(const size_t size, pair.Elements());
  if (size != 2) return pair.Bad("is not a pair of content and id");
  ASSIGN_OR_RETURN(const int64_t id, pair.At(1).AsInt(0, limits::kVocabMax - 1));
  return static_cast<TokenId>(id);
}

// Appends the ids of the special token that the template calls `name`.
Status AppendSpecial(const JsonField& processor, std::string_view name, std::vector<TokenId>* ids) {
  ASSIGN_OR_RETURN(const JsonField specials, processor.RequireMember("special_tokens"));
  ASSIGN_OR_RETURN(const JsonField special, specials.RequireMember(name));
  ASSIGN_OR_RETURN(const JsonField list, special.RequireMember("ids"));
  ASSIGN_OR_RETURN(const size_t count, list.Elements());
  for (size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const int64_t id, list.At(i).AsInt(0, limits::kVocabMax - 1));
    ids->push_back(static_cast<TokenId>(id));
    if (ids->size() > limits::kAroundTextTokensMax)
      return list.Bad(
          fmt::format("makes more than {} tokens around a text", limits::kAroundTextTokensMax));
  }
  return {};
}

Result<AroundText> FromTemplate(const JsonField& processor) {
  AroundText around;
  ASSIGN_OR_RETURN(const JsonField pieces, processor.RequireMember("single"));
  ASSIGN_OR_RETURN(const size_t count, pieces.Elements());
  bool text_seen = false;
  for (size_t i = 0; i < count; ++i) {
    const JsonField piece = pieces.At(i);
    ASSIGN_OR_RETURN(const auto sequence, piece.Member("Sequence"));
    if (sequence) {
      if (text_seen) return pieces.Unsupported("writes the text twice");
      text_seen = true;
      continue;
    }
    ASSIGN_OR_RETURN(const JsonField special, piece.RequireMember("SpecialToken"));
    ASSIGN_OR_RETURN(const std::string_view name, special.RequireString("id"));
    RETURN_IF_ERROR(AppendSpecial(processor, name, text_seen ? &around.after : &around.before));
  }
  if (!text_seen) return pieces.Bad("does not write the text");
  return around;
}

Result<AroundText> FromProcessor(const JsonField& processor) {
  ASSIGN_OR_RETURN(const std::string_view type, processor.RequireString("type"));
  AroundText around;
  if (type == "ByteLevel") return around;
  if (type == "TemplateProcessing") return FromTemplate(processor);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    ASSIGN_OR_RETURN(const TokenId cls, NamedToken(processor, "cls"));
    ASSIGN_OR_RETURN(const TokenId sep, NamedToken(processor, "sep"));
    around.before = {cls};
    around.after = {sep};
    return around;
  }
  if (type != "Sequence")
    return processor.Unsupported(
        fmt::format("is of type \"{}\"; supported are TemplateProcessing, BertProcessing, "
                    "RobertaProcessing, ByteLevel and Sequence",
                    type));
  ASSIGN_OR_RETURN(const JsonField members, processor.RequireMember("processors"));
  ASSIGN_OR_RETURN(const size_t count, members.Elements());
  if (count > limits::kTokenizerStepsMax)
    return members.Bad(
        fmt::format("has {} steps; at most {} are supported", count, limits::kTokenizerStepsMax));
  for (size_t i = 0; i < count; ++i) {
    // Each puts its tokens around what the ones before it made.
    ASSIGN_OR_RETURN(const AroundText inner, FromProcessor(members.At(i)));
    around.before.insert(around.before.begin(), inner.before.begin(), inner.before.end());
    around.after.insert(around.after.end(), inner.after.begin(), inner.after.end());
  }
  if (around.before.size() + around.after.size() > limits::kAroundTextTokensMax)
    return members.Bad(
        fmt::format("makes more than {} tokens around a text", limits::kAroundTextTokensMax));
  return around;
}

}  // namespace

Result<AroundText> AroundTextFromJson(const std::optional<JsonField>& field) {
  if (!field) return AroundText();
  return FromProcessor(*field);
}

}  // namespace perdure::text
