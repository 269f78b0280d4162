// What the tests of grammars share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/grammar/grammar.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/matcher.h"
#include "text/grammar/token_table.h"

namespace perdure::text {

inline Json JsonOf(std::string_view text) {
  auto json = ParseJson(text, "the test's JSON", ErrorCode::invalid_request, 1000);
  EXPECT_TRUE(json) << json.error().message << " in " << text;
  return json ? *json : Json();
}

// A vocabulary of these texts, in this order.
inline std::shared_ptr<const TokenTable> TableOf(const std::vector<std::string>& texts) {
  std::vector<TokenText> tokens;
  for (size_t i = 0; i < texts.size(); ++i) tokens.push_back({static_cast<TokenId>(i), texts[i]});
  return TokenTable::Make(static_cast<int>(texts.size()), tokens);
}

inline std::vector<std::string> AllBytes() {
  std::vector<std::string> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
  return bytes;
}

// Whether a grammar accepts the whole of a text.
inline bool Accepts(const GrammarPtr& grammar, std::string_view text) {
  MatcherContext context(TableOf({"x"}));
  Matcher matcher = context.Start(grammar);
  return matcher.Accept(text) && matcher.can_end();
}

// The grammar, or the error's text in `error`.
inline GrammarPtr SchemaGrammar(const Json& schema, std::string* error = nullptr) {
  auto grammar = CompileJsonSchema(schema);
  if (!grammar && error)
    *error = grammar.error().message;
  else if (!grammar)
    ADD_FAILURE() << grammar.error().message << " for " << DumpJson(schema);
  return grammar ? *grammar : nullptr;
}

}  // namespace perdure::text
