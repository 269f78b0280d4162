// From sampled tokens to the parts of an answer: OutputFold, and for chats ChatParser behind it. A
// pure fold over (settings, tokens) like those: folding the same tokens again gives the same.
#pragma once

#include <climits>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "text/chat/chat_parser.h"
#include "text/chat/chat_piece.h"
#include "text/output/output_fold.h"

namespace perdure::text {

struct AnswerSettings {
  OutputSettings output;                   // markup_ids are added to it
  std::optional<ChatParserSettings> chat;  // absent: all is content
  // Reasoning that has so many tokens is closed, whatever the model would write.
  std::optional<int> reasoning_tokens_max;
  int drawable_ids = INT_MAX;  // the model can draw ids below it; a tokenizer may know more
};

enum class AnswerFinish { kStop, kLength, kToolCalls };

struct AnswerStep {
  std::vector<ChatPiece> pieces;
  int tokens_out = 0;                  // as OutputPiece has it
  std::optional<AnswerFinish> finish;  // set on the last one
};

// A value that is cheap to copy. Not thread-safe; `tokenizer` must outlive it.
class AnswerFold {
 public:
  AnswerFold(const Tokenizer* tokenizer, AnswerSettings settings);

  // The next token of the answer. Must not be called after a step with `finish`.
  AnswerStep Push(TokenId token);
  // What the next token must be, where it is not the model's to choose: it closes the reasoning.
  std::optional<TokenId> Forced() const;

  // As of OutputFold.
  std::string_view BytesOfNext(TokenId token) const { return output_.BytesOfNext(token); }
  int64_t characters() const { return output_.characters(); }
  bool finished() const { return output_.finished(); }
  int tokens() const { return output_.tokens(); }

  int reasoning_tokens() const { return reasoning_tokens_; }

 private:
  bool MustClose() const;

  OutputFold output_;
  std::optional<ChatParser> parser_;
  std::optional<int> reasoning_tokens_max_;
  std::shared_ptr<const std::vector<TokenId>> closing_ids_;
  size_t closed_ = 0;  // of closing_ids_: these were pushed
  int reasoning_tokens_ = 0;
};

}  // namespace perdure::text
