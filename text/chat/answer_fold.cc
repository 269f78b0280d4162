#include "text/chat/answer_fold.h"

#include <algorithm>
#include <string>
#include <utility>

namespace perdure::text {
namespace {

OutputSettings WithMarkup(const Tokenizer& tokenizer, AnswerSettings* settings) {
  OutputSettings output = std::move(settings->output);
  if (settings->chat)
    output.markup_ids = MarkupIds(settings->chat->form, !settings->chat->tools.empty(), tokenizer);
  return output;
}

// What ends the reasoning as models do it; none where a bound is of no use.
std::vector<TokenId> ClosingIds(const Tokenizer& tokenizer, const AnswerSettings& settings) {
  if (!settings.chat || settings.chat->form.reasoning.none() || !settings.reasoning_tokens_max)
    return {};
  auto ids = tokenizer.Encode("\n" + settings.chat->form.reasoning.close + "\n\n");
  const auto drawable = [&](TokenId id) { return id < settings.drawable_ids; };
  if (!ids || !std::ranges::all_of(*ids, drawable)) return {};
  return std::move(*ids);
}

}  // namespace

AnswerFold::AnswerFold(const Tokenizer* tokenizer, AnswerSettings settings)
    : output_(tokenizer, WithMarkup(*tokenizer, &settings)),
      reasoning_tokens_max_(settings.reasoning_tokens_max),
      closing_ids_(std::make_shared<const std::vector<TokenId>>(ClosingIds(*tokenizer, settings))) {
  if (settings.chat) parser_.emplace(std::move(*settings.chat));
}

bool AnswerFold::MustClose() const {
  if (closed_ > 0) return closed_ < closing_ids_->size();
  return !closing_ids_->empty() && parser_->in_reasoning() &&
         reasoning_tokens_ >= *reasoning_tokens_max_;
}

std::optional<TokenId> AnswerFold::Forced() const {
  return MustClose() ? std::optional((*closing_ids_)[closed_]) : std::nullopt;
}

AnswerStep AnswerFold::Push(TokenId token) {
  if (MustClose()) ++closed_;
  const OutputPiece text = output_.Push(token);
  AnswerStep step;
  step.tokens_out = text.tokens_out;
  if (!parser_) {
    if (!text.text.empty()) step.pieces.push_back({ChatPiece::Kind::kContent, 0, text.text, true});
    if (text.finish)
      step.finish =
          *text.finish == OutputFinish::kStop ? AnswerFinish::kStop : AnswerFinish::kLength;
    return step;
  }
  const bool was_reasoning = parser_->in_reasoning();
  step.pieces = parser_->Push(text.text);
  if (was_reasoning || parser_->in_reasoning()) ++reasoning_tokens_;
  if (!text.finish) return step;
  for (ChatPiece& piece : parser_->Finish()) step.pieces.push_back(std::move(piece));
  step.finish = *text.finish == OutputFinish::kLength ? AnswerFinish::kLength
                : parser_->calls() > 0                ? AnswerFinish::kToolCalls
                                                      : AnswerFinish::kStop;
  return step;
}

}  // namespace perdure::text
