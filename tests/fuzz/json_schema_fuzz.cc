// A JSON Schema, and behind a byte 0 a text: the text is matched, and then tells which of the
// allowed tokens a model draws.

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "fuzz_target.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/matcher.h"

namespace perdure::text {
namespace {

// All bytes, and texts that cross the parts of a JSON text.
std::shared_ptr<const TokenTable> MakeTokens() {
  std::vector<std::string> texts;
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  for (const char* text : {"\":", "\": ", "\",",  "\", \"", "{\"",      "\"}",      "\"]",  "}}",
                           "}]",  "},",   "ab",   "abc",    "a\"",      "\\n",      "\\u",  "12",
                           "1.",  "-1",   "true", "null",   "\xC3\xA9", "\xE2\x82", "\n  ", "  "})
    texts.emplace_back(text);
  std::vector<TokenText> tokens;
  for (size_t id = 0; id < texts.size(); ++id)
    tokens.push_back({static_cast<TokenId>(id), texts[id]});
  return TokenTable::Make(static_cast<int>(texts.size()), tokens);
}

// A JSON text, except that two keys may be equal, which only our own parser minds.
bool IsJson(std::string_view text) {
  const auto parsed = ParseJson(text, "text", ErrorCode::internal, 1 << 20);
  return parsed || parsed.error().message.find("twice") != std::string::npos;
}

void Walk(MatcherContext& context, const GrammarPtr& grammar, std::string_view choices) {
  const TokenTable& tokens = context.tokens();
  Matcher matcher = context.Start(grammar);
  std::vector<uint64_t> mask(tokens.mask_words());
  std::string written;
  for (const char choice : choices.substr(0, 64)) {
    const bool any = matcher.FillMask(mask);
    std::vector<TokenId> allowed;
    for (TokenId id = 0; id < tokens.vocab_size(); ++id) {
      const bool is_set = (mask[static_cast<size_t>(id) / 64] >> (id % 64)) & 1;
      Matcher copy = matcher;
      CHECK(is_set == copy.AcceptToken(id));
      if (is_set) allowed.push_back(id);
    }
    CHECK(any == !allowed.empty());
    if (matcher.can_end()) CHECK(IsJson(written));
    if (!any) {
      CHECK(matcher.can_end());
      return;
    }
    const TokenId id = allowed[static_cast<uint8_t>(choice) % allowed.size()];
    CHECK(matcher.AcceptToken(id));
    written += tokens.BytesOf(id);
  }
}

}  // namespace

FUZZ_TARGET(json_schema) {
  static const std::shared_ptr<const TokenTable> tokens = MakeTokens();
  const auto [schema_text, text] = fuzz::SplitAtZero(input);
  const auto schema = ParseJson(schema_text, "schema", ErrorCode::invalid_request);
  if (!schema) return;
  const auto grammar = CompileJsonSchema(*schema);
  if (!grammar) {
    fuzz::CheckError(grammar.error());
    CHECK(grammar.error().code == ErrorCode::invalid_request);
    CHECK(grammar.error().message.size() < 2000);
    return;
  }
  CHECK((*grammar)->memory_bytes() < size_t{64} << 20);
  MatcherContext context(tokens);
  Matcher matcher = context.Start(*grammar);
  if (matcher.Accept(text) && matcher.can_end()) CHECK(IsJson(text));
  Walk(context, *grammar, text);
}

}  // namespace perdure::text
