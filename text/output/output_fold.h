// From sampled tokens to a client's text: a pure fold over (settings, tokens), without clocks or
// input of any other kind. Folding the same tokens again, from the start or from a copy, gives the
// same pieces; so a resumed stream is folded from zero.
//
//   token → bytes (tokenizer) → characters (Utf8Assembler) → text up to a stop string (StopScanner)
//
// Parsers of reasoning and tool calls read the text that comes out of the last stage: they will
// stand behind it in OutputFold and turn its text into more than one field of a piece.
#pragma once

#include <climits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/token.h"
#include "text/output/stop_scanner.h"
#include "text/output/utf8_assembler.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {

struct OutputSettings {
  std::vector<std::string> stop;        // none empty
  bool include_stop_in_output = false;  // else the text ends before the stop string
  std::vector<TokenId> eos_ids;         // these end an answer and give no text
  bool ignore_eos = false;              // they are tokens like others then
  bool own_text = false;  // a chat's answer, which does not continue the prompt's text
  // The answer ends with this many tokens, whichever is less; both are positive.
  int max_tokens = INT_MAX;
  int context_left = INT_MAX;
};

enum class OutputFinish { kStop, kLength };

struct OutputPiece {
  // Whole characters, none of which a stop string could still take back; often empty.
  std::string text;
  // Set on the last piece; everything that was held back is settled with it. A stop string or EOS
  // goes before the length.
  std::optional<OutputFinish> finish;
};

// A value that is cheap to copy. Not thread-safe; `tokenizer` must outlive it.
class OutputFold {
 public:
  OutputFold(const Tokenizer* tokenizer, OutputSettings settings);

  // The next token of the answer. Special tokens and ids that no token has give no text, but count.
  // Must not be called after a piece with `finish`.
  OutputPiece Push(TokenId token);

  bool finished() const { return finished_; }
  // Tokens pushed so far, the one that ended the answer included.
  int tokens() const { return tokens_; }

 private:
  bool IsEos(TokenId token) const;
  std::string_view BytesOf(TokenId token);
  // Ends the text; true if its very last character completed a stop string.
  bool Settle(std::string* out);

  const Tokenizer* tokenizer_;
  std::shared_ptr<const OutputSettings> settings_;
  Utf8Assembler characters_;
  StopScanner scanner_;
  int tokens_ = 0;
  bool text_begun_ = false;
  bool finished_ = false;
};

}  // namespace perdure::text
