#include "text/output/output_fold.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::text {
namespace {

// Of valid UTF-8: all bytes but those that continue a character.
int64_t CharactersIn(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace

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

bool OutputFold::GivesText(TokenId token) const {
  const std::vector<TokenId>& ids = settings_->markup_ids;
  return !tokenizer_->IsSpecial(token) || std::find(ids.begin(), ids.end(), token) != ids.end();
}

std::string_view OutputFold::BytesOfNext(TokenId token) const {
  const bool first = settings_->own_text && !text_begun_ && GivesText(token);
  return first ? tokenizer_->FirstTokenBytes(token) : tokenizer_->TokenBytes(token);
}

bool OutputFold::Scan(const std::string& characters, std::string* out) {
  characters_made_ += CharactersIn(characters);
  return scanner_.Push(characters, out);
}

bool OutputFold::Settle(std::string* out) {
  std::string characters;
  characters_.Finish(&characters);
  if (Scan(characters, out)) return true;
  scanner_.Finish(out);
  return false;
}

void OutputFold::CountOut(const OutputPiece& piece, bool stopped) {
  characters_out_ += CharactersIn(piece.text);
  while (!held_.empty() &&
         (stopped ? held_.front().begin < characters_out_ : held_.front().end <= characters_out_)) {
    held_.pop_front();
    ++tokens_out_;
  }
}

OutputPiece OutputFold::Push(TokenId token) {
  CHECK(!finished_);
  ++tokens_;
  OutputPiece piece;
  bool stopped = false;  // by a stop string
  if (IsEos(token)) {
    stopped = Settle(&piece.text);
    piece.finish = OutputFinish::kStop;
  } else {
    const int64_t begin = characters_made_;
    std::string characters;
    if (GivesText(token)) {
      const std::string_view bytes = BytesOfNext(token);
      text_begun_ = text_begun_ || !tokenizer_->TokenBytes(token).empty();
      characters_.Push(bytes, &characters);
    }
    stopped = Scan(characters, &piece.text);
    held_.push_back({begin, characters_made_ + (characters_.pending() ? 1 : 0)});
    if (stopped) {
      piece.finish = OutputFinish::kStop;
    } else if (tokens_ >= std::min(settings_->max_tokens, settings_->context_left)) {
      stopped = Settle(&piece.text);
      piece.finish = stopped ? OutputFinish::kStop : OutputFinish::kLength;
    }
  }
  CountOut(piece, stopped);
  piece.tokens_out = tokens_out_;
  finished_ = piece.finish.has_value();
  return piece;
}

}  // namespace perdure::text
