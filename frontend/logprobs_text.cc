#include "frontend/logprobs_text.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/json.h"

namespace perdure::frontend {
namespace {

using protocol::TokenLogprob;
using protocol::TokenLogprobs;

// The shortest decimal of the float's value as a double: it reads back to the same float whether a
// client reads floats or doubles.
std::string Number(float value) { return fmt::format("{}", double{value}); }

void Separate(std::string* list) {
  if (!list->empty()) *list += ',';
}

// Bytes that are not UTF-8 become U+FFFD.
std::string TextJson(const std::string& bytes) { return DumpJson(Json(bytes)); }

std::string BytesJson(const TokenLogprob& token) {
  if (token.special) return "null";
  std::string out = "[";
  for (size_t i = 0; i < token.bytes.size(); ++i)
    fmt::format_to(std::back_inserter(out), "{}{}", i == 0 ? "" : ",",
                   static_cast<unsigned char>(token.bytes[i]));
  return out + ']';
}

std::string ChatMembers(const TokenLogprob& token) {
  return fmt::format(R"("token":{},"logprob":{},"bytes":{})", TextJson(token.bytes),
                     Number(token.logprob), BytesJson(token));
}

// Plain completions have no field for bytes: what is not UTF-8 is spelled out.
std::string CompletionToken(const TokenLogprob& token) {
  static constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string json = TextJson(token.bytes);
  if (json.find(kReplacement) == std::string::npos ||
      token.bytes.find(kReplacement) != std::string::npos)
    return json;
  json = R"("bytes:)";
  for (const char c : token.bytes)
    fmt::format_to(std::back_inserter(json), R"(\\x{:02x})", static_cast<unsigned char>(c));
  return json + '"';
}

// The alternatives and the token itself; of several with one spelling the likeliest.
std::string CompletionAlternatives(const TokenLogprobs& token) {
  std::string out;
  std::set<std::string> known;
  const auto add = [&](const TokenLogprob& one) {
    std::string name = CompletionToken(one);
    if (!known.insert(name).second) return;
    Separate(&out);
    out += name + ':' + Number(one.logprob);
  };
  for (const TokenLogprob& one : token.top) add(one);
  add(token.token);
  return '{' + out + '}';
}

}  // namespace

void LogprobsText::Append(const TokenLogprobs& token) {
  Separate(&tokens_);
  if (kind_ == protocol::RequestKind::kChat) {
    std::string top;
    for (const TokenLogprob& one : token.top) {
      Separate(&top);
      top += '{' + ChatMembers(one) + '}';
    }
    tokens_ += '{' + ChatMembers(token.token) + R"(,"top_logprobs":[)" + top + "]}";
    return;
  }
  tokens_ += CompletionToken(token.token);
  Separate(&logprobs_);
  logprobs_ += Number(token.token.logprob);
  Separate(&alternatives_);
  alternatives_ += CompletionAlternatives(token);
  Separate(&offsets_);
  offsets_ += fmt::format("{}", token.text_offset);
}

std::string LogprobsText::Take() {
  const std::string tokens = std::exchange(tokens_, {});
  if (kind_ == protocol::RequestKind::kChat)
    return R"({"content":[)" + tokens + R"(],"refusal":null})";
  const std::string alternatives = std::exchange(alternatives_, {});
  return fmt::format(
      R"({{"tokens":[{}],"token_logprobs":[{}],"top_logprobs":{},"text_offset":[{}]}})", tokens,
      std::exchange(logprobs_, {}), top_ == 0 ? "null" : '[' + alternatives + ']',
      std::exchange(offsets_, {}));
}

}  // namespace perdure::frontend
