// From sampled tokens to a client's text: a pure fold over (settings, tokens), without clocks or
// input of any other kind. Folding the same tokens again, from the start or from a copy, gives the
// same pieces; so a resumed stream is folded from zero.
//
//   token → bytes (tokenizer) → characters (Utf8Assembler) → text up to a stop string (StopScanner)
//
// Parsers of reasoning and tool calls (text/chat) read the text that comes out of the last stage.
#pragma once

#include <climits>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
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
  // Special tokens that are text all the same, as a parser behind reads it: in every respect, so
  // stop strings are looked for in it, too, as in markup that is spelled by ordinary tokens.
  std::vector<TokenId> markup_ids;
  bool own_text = false;  // a chat's answer, which does not continue the prompt's text
  // The answer ends with this many tokens, whichever is less; both are positive.
  int max_tokens = INT_MAX;
  int context_left = INT_MAX;
};

enum class OutputFinish { kStop, kLength };

struct OutputPiece {
  // Whole characters, none of which a stop string could still take back; often empty.
  std::string text;
  // How many tokens, from the first one, have given all their text by now; it never becomes less.
  // With the last piece: all but those that a stop string cut off entirely and an EOS.
  int tokens_out = 0;
  // Set on the last piece; everything that was held back is settled with it. A stop string or EOS
  // goes before the length.
  std::optional<OutputFinish> finish;
};

// A value that is cheap to copy. Not thread-safe; `tokenizer` must outlive it.
class OutputFold {
 public:
  OutputFold(const Tokenizer* tokenizer, OutputSettings settings);

  // The next token of the answer. Special tokens, unless they are markup, and ids that no token has
  // give no text, but count.
  // Must not be called after a piece with `finish`.
  OutputPiece Push(TokenId token);

  // What the next token adds to the answer if it is this one, EOS or not; the name of a special
  // token, which adds nothing.
  std::string_view BytesOfNext(TokenId token) const;
  // Characters of the answer before the next token's.
  int64_t characters() const { return characters_made_; }

  bool finished() const { return finished_; }
  // Tokens pushed so far, the one that ended the answer included.
  int tokens() const { return tokens_; }

 private:
  // A token whose text is not out: its first character, and how many must be out for all of it.
  struct Held {
    int64_t begin;
    int64_t end;
  };
  bool IsEos(TokenId token) const;
  bool GivesText(TokenId token) const;
  // Characters that a token has completed go on to the stop strings; true if they complete one.
  bool Scan(const std::string& characters, std::string* out);
  // Ends the text; true if its very last character completed a stop string.
  bool Settle(std::string* out);
  void CountOut(const OutputPiece& piece, bool stopped);

  const Tokenizer* tokenizer_;
  std::shared_ptr<const OutputSettings> settings_;
  Utf8Assembler characters_;
  StopScanner scanner_;
  std::deque<Held> held_;
  int64_t characters_made_ = 0;  // by the tokens
  int64_t characters_out_ = 0;   // in pieces
  int tokens_ = 0;
  int tokens_out_ = 0;
  bool text_begun_ = false;
  bool finished_ = false;
};

}  // namespace perdure::text
