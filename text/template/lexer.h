// A template's text as tokens, with trim_blocks, lstrip_blocks and one trailing newline dropped.
// The rules are those of Jinja 3.1 (https://jinja.palletsprojects.com/en/3.1.x/templates/).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

enum class TokenType {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenType type = TokenType::kEnd;
  // Data, a name, an operator, or a string with its escapes resolved.
  std::string text;
  Int integer = 0;
  double number = 0;
  // Its place in the source.
  size_t begin = 0;
  size_t end = 0;
  int line = 1;
};

// Line endings as \n, at most one at the end removed: the text that token offsets refer to.
std::string NormalizeSource(std::string_view source);

// `source` is normalized UTF-8. Errors are bad_model: "name, line N: …".
Result<std::vector<Token>> Tokenize(std::string_view source, std::string_view name);

// What a token is called in errors.
std::string Describe(const Token& token);

}  // namespace perdure::text::jinja
