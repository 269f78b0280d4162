// "Metaspace" of tokenizer.json: SentencePiece's visible character for blanks. It is a
// pre-tokenizer and a decoder with the same fields.
#pragma once

#include <string>

#include "base/result.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {

struct Metaspace {
  enum class When { kAlways, kFirst, kNever };

  std::string replacement;    // one character
  When when = When::kAlways;  // put before every word, before the whole text, not at all
  bool split = true;          // a word begins at each

  static Result<Metaspace> FromJson(const JsonField& field);
};

}  // namespace perdure::text
