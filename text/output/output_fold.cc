#include "text/output/output_fold.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::text {

OutputFold::OutputFold(const Tokenizer* tokenizer, OutputSettings settings)
    : tokenizer_(tokenizer),
      settings_(std::make_shared<const OutputSettings>(std::move(settings))),
      scanner_(settings_->stop, settings_->include_stop_in_output) {
  CHECK(tokenizer_ != nullptr);
}

bool OutputFold::IsEos(TokenId token) const {
  const std::vector<TokenId>& ids = settings_->eos_ids;
  return !settings_->ignore_eos && std::find(ids.begin(), ids.end(), token) != ids.end();
}

std::string_view OutputFold::BytesOf(TokenId token) {
  if (tokenizer_->IsSpecial(token)) return {};
  const std::string_view bytes = tokenizer_->TokenBytes(token);
  const bool first = settings_->own_text && !text_begun_;
  text_begun_ = text_begun_ || !bytes.empty();
  return first ? tokenizer_->FirstTokenBytes(token) : bytes;
}

bool OutputFold::Settle(std::string* out) {
  std::string characters;
  characters_.Finish(&characters);
  if (scanner_.Push(characters, out)) return true;
  scanner_.Finish(out);
  return false;
}

OutputPiece OutputFold::Push(TokenId token) {
  CHECK(!finished_);
  ++tokens_;
  OutputPiece piece;
  if (IsEos(token)) {
    Settle(&piece.text);
    piece.finish = OutputFinish::kStop;
  } else {
    std::string characters;
    characters_.Push(BytesOf(token), &characters);
    if (scanner_.Push(characters, &piece.text)) {
      piece.finish = OutputFinish::kStop;
    } else if (tokens_ >= std::min(settings_->max_tokens, settings_->context_left)) {
      piece.finish = Settle(&piece.text) ? OutputFinish::kStop : OutputFinish::kLength;
    }
  }
  finished_ = piece.finish.has_value();
  return piece;
}

}  // namespace perdure::text
