// What it takes to compile schemas, and to find the tokens that may come next: FillMask and Accept
// together, for each token of answers that are written with the longest tokens.
//
//   grammar_bench [FILE.tiktoken]     lines of a token in base64 and its rank; else 151,643 tokens
//                                     are made up, of about the same kinds
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/matcher.h"

namespace perdure::bench {
namespace {

using namespace perdure::text;
using Clock = std::chrono::steady_clock;

constexpr int kVocab = 151'936;
constexpr size_t kMadeUpTokens = 151'643;

double MicrosecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

template <class T>
T Must(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "grammar_bench: {}\n", result.error().message);
  std::exit(1);
}

std::string FromBase64(std::string_view text) {
  static const std::string digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = digits.find(c);
    if (digit == std::string::npos) break;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) bytes += static_cast<char>(bits >> (count -= 8));
  }
  return bytes;
}

std::vector<std::string> TokensOfFile(const char* path) {
  std::ifstream file(path);
  std::vector<std::string> tokens;
  for (std::string line; std::getline(file, line);)
    tokens.push_back(FromBase64(line.substr(0, line.find(' '))));
  return tokens;
}

// Words with and without a blank, in three cases; code; runs of blanks; Chinese and Cyrillic.
std::vector<std::string> MadeUpTokens() {
  std::mt19937_64 random(3);
  const auto pick = [&](const std::vector<std::string>& from) {
    return from[random() % from.size()];
  };
  const std::vector<std::string> syllables = {
      "a",  "be", "co", "de", "er", "fi", "ga", "ho", "in", "ja", "ke", "lo", "ma",  "ne",  "or",
      "pa", "qu", "re", "st", "ti", "un", "ve", "wa", "ex", "ly", "zo", "th", "ing", "ion", "ment"};
  const std::vector<std::string> marks = {"\"", "'", ".", ",", ":", ";", "(", ")", "[",  "]",
                                          "{",  "}", "<", ">", "/", "=", "-", "_", "\\", "\n",
                                          "\t", "!", "?", "*", "+", "#", "@", "$", "%",  "&"};
  std::vector<std::string> tokens;
  std::set<std::string> known;
  const auto add = [&](const std::string& token) {
    if (known.insert(token).second) tokens.push_back(token);
  };
  for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)));
  for (size_t run = 2; run <= 80; ++run) {
    add(std::string(run, ' '));
    add(std::string(run, '\n'));
    add("\n" + std::string(run, ' '));
  }
  while (tokens.size() < kMadeUpTokens) {
    const uint64_t kind = random() % 100;
    std::string token;
    if (kind < 70) {
      for (uint64_t i = 0, n = 1 + random() % 4; i < n; ++i) token += pick(syllables);
      if (random() % 4 == 0) token[0] = static_cast<char>(std::toupper(token[0]));
      if (random() % 2 == 0) token = " " + token;
    } else if (kind < 76) {
      for (uint64_t i = 0, n = 2 + random() % 3; i < n; ++i) token += pick(marks);
      if (random() % 3 == 0) token = " " + token;
    } else if (kind < 82) {
      token = pick(marks) + pick(syllables) + (random() % 2 ? pick(syllables) : "");
    } else {
      for (uint64_t i = 0, n = 1 + random() % 3; i < n; ++i) {
        const bool chinese = kind < 95;
        const auto c =
            static_cast<uint32_t>(chinese ? 0x4E00 + random() % 0x4000 : 0x410 + random() % 0x40);
        if (chinese) token += static_cast<char>(0xE0 | c >> 12);
        token += static_cast<char>(chinese ? 0x80 | (c >> 6 & 63) : 0xC0 | c >> 6);
        token += static_cast<char>(0x80 | (c & 63));
      }
    }
    add(token);
  }
  return tokens;
}

// Cuts a text into the longest tokens there are.
class Cutter {
 public:
  explicit Cutter(const std::vector<std::string>& tokens) {
    for (size_t id = 0; id < tokens.size(); ++id) {
      ids_.emplace(tokens[id], static_cast<TokenId>(id));
      longest_ = std::max(longest_, tokens[id].size());
    }
  }
  std::vector<TokenId> Cut(std::string_view text) const {
    std::vector<TokenId> ids;
    while (!text.empty()) {
      size_t size = std::min(longest_, text.size());
      while (!ids_.contains(std::string(text.substr(0, size)))) --size;
      ids.push_back(ids_.at(std::string(text.substr(0, size))));
      text.remove_prefix(size);
    }
    return ids;
  }

 private:
  std::unordered_map<std::string, TokenId> ids_;
  size_t longest_ = 1;
};

class Writer {
 public:
  std::string Sentence(size_t words) {
    static const std::vector<std::string> all = {
        "the",        "answer", "is",    "found",  "by",   "adding",  "both",
        "sides,",     "then",   "we",    "divide", "this", "of",      "x²",
        "\\\"so\\\"", "total",  "price", "and",    "city", "weather", "naïve",
        "今天",       "value",  "(see",  "below)", "\\n",  "3.5",     "for"};
    std::string text;
    for (size_t i = 0; i < words; ++i) text += (i ? " " : "") + all[random_() % all.size()];
    return text;
  }
  int Number(int below) { return static_cast<int>(random_() % static_cast<uint64_t>(below)); }

 private:
  std::mt19937_64 random_{9};
};

struct Case {
  std::string name;
  std::string schema;  // empty: reasoning, then a call with any arguments
  std::string (*answer)(Writer&);
};

std::string Tree(Writer& w, int depth) {
  std::string text = fmt::format(R"({{"label": "{}", "children": [)", w.Sentence(3));
  for (int i = 0; depth > 0 && i < 2; ++i) text += (i ? ", " : "") + Tree(w, depth - 1);
  return text + "]}";
}

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = {
      {"tool call",
       R"({"type":"object","properties":{"location":{"type":"string"},
           "unit":{"type":"string","enum":["celsius","fahrenheit"]},"days":{"type":"integer"}},
           "required":["location","unit"],"additionalProperties":false})",
       [](Writer& w) {
         return fmt::format(R"({{"location": "{}", "unit": "celsius", "days": {}}})", w.Sentence(4),
                            w.Number(14));
       }},
      {"steps of reasoning",
       R"({"type":"object","properties":{"steps":{"type":"array","items":{"type":"object",
           "properties":{"explanation":{"type":"string"},"output":{"type":"string"}},
           "required":["explanation","output"],"additionalProperties":false}},
           "final_answer":{"type":"string"}},"required":["steps","final_answer"],
           "additionalProperties":false})",
       [](Writer& w) {
         std::string text = R"({"steps":[)";
         for (int i = 0; i < 6; ++i)
           text += fmt::format(R"({}{{"explanation":"{}","output":"{}"}})", i ? "," : "",
                               w.Sentence(15), w.Sentence(4));
         return text + fmt::format(R"(],"final_answer":"{}"}})", w.Sentence(8));
       }},
      {"invoice",
       R"({"type":"object","properties":{"id":{"type":"string","format":"uuid"},
           "date":{"type":"string","format":"date"},
           "customer":{"type":"object","properties":{"name":{"type":"string","maxLength":60},
             "email":{"type":"string","format":"email"}},"required":["name","email"]},
           "lines":{"type":"array","minItems":1,"maxItems":20,"items":{"type":"object",
             "properties":{"sku":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{4}$"},
               "text":{"type":"string","maxLength":200},
               "amount":{"type":"integer","minimum":1,"maximum":999},
               "price":{"type":"number","minimum":0}},
             "required":["sku","amount","price"]}},
           "status":{"enum":["open","paid","cancelled"]},"note":{"type":["string","null"]}},
           "required":["id","date","customer","lines","status","note"]})",
       [](Writer& w) {
         std::string text =
             R"({
  "id": "123e4567-e89b-12d3-a456-426614174000",
  "date": "2025-02-28",
  "customer": {
    "name": ")" +
             w.Sentence(3) +
             R"(",
    "email": "a.person@example.com"
  },
  "lines": [)";
         for (int i = 0; i < 5; ++i)
           text += fmt::format(R"({}
    {{
      "sku": "AB-{:04}",
      "text": "{}",
      "amount": {},
      "price": {}.25
    }})",
                               i ? "," : "", w.Number(9999), w.Sentence(10), 1 + w.Number(900),
                               w.Number(500));
         return text + "\n  ],\n  \"status\": \"paid\",\n  \"note\": \"" + w.Sentence(12) + "\"\n}";
       }},
      {"recursive tree",
       R"({"$defs":{"n":{"type":"object","properties":{"label":{"type":"string"},
           "children":{"type":"array","items":{"$ref":"#/$defs/n"}}},
           "required":["label","children"],"additionalProperties":false}},"$ref":"#/$defs/n"})",
       [](Writer& w) { return Tree(w, 5); }},
      {"any object", R"({"type":"object"})",
       [](Writer& w) {
         std::string text = "{";
         for (int i = 0; i < 10; ++i)
           text += fmt::format(R"({}"key {}": {{"a": [1, 2.5, {{"b": "{}"}}], "c": null}})",
                               i ? ", " : "", i, w.Sentence(6));
         return text + "}";
       }},
      {"reasoning, then a call", "",
       [](Writer& w) {
         return w.Sentence(60) +
                "</think>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"q\": \"" +
                w.Sentence(8) + "\"}}\n</tool_call>";
       }},
  };
  return cases;
}

GrammarPtr GrammarOf(const Case& c) {
  if (!c.schema.empty())
    return Must(
        CompileJsonSchema(Must(ParseJson(c.schema, "the schema", ErrorCode::invalid_request))));
  GrammarBuilder b;
  const Expression call = Must(AddJsonSchema(
      Must(ParseJson(R"({"properties":{"name":{"const":"f"},"arguments":{"type":"object"}},
                         "required":["name","arguments"]})",
                     "the schema", ErrorCode::invalid_request)),
      {}, &b));
  return Must(
      b.Build(b.Sequence({b.TextUntil({"</think>"}), b.TextUntil({"<tool_call>"}), b.WhiteSpace(),
                          call, b.WhiteSpace(), b.Literal("</tool_call>")})));
}

struct Times {
  std::vector<double> all;
  double At(double part) {
    std::sort(all.begin(), all.end());
    return all.empty() ? 0 : all[static_cast<size_t>(part * static_cast<double>(all.size() - 1))];
  }
  double Mean() const {
    double sum = 0;
    for (const double t : all) sum += t;
    return all.empty() ? 0 : sum / static_cast<double>(all.size());
  }
};

void Run(MatcherContext& context, const GrammarPtr& grammar, const std::vector<TokenId>& answer,
         Times* times) {
  Matcher matcher = context.Start(grammar);
  std::vector<uint64_t> mask(context.tokens().mask_words());
  for (const TokenId id : answer) {
    const auto begin = Clock::now();
    matcher.FillMask(mask);
    const bool accepted = matcher.AcceptToken(id);
    times->all.push_back(MicrosecondsSince(begin));
    if (!accepted || !((mask[static_cast<size_t>(id) / 64] >> (id % 64)) & 1)) {
      fmt::print(stderr, "grammar_bench: the answer does not follow its schema\n");
      std::exit(1);
    }
  }
  if (!matcher.can_end()) std::exit(1);
}

}  // namespace

int Main(int argc, char** argv) {
  const std::vector<std::string> texts = argc > 1 ? TokensOfFile(argv[1]) : MadeUpTokens();
  std::vector<TokenText> tokens;
  for (size_t id = 0; id < texts.size(); ++id)
    tokens.push_back({static_cast<TokenId>(id), texts[id]});
  const auto begin = Clock::now();
  const auto table = TokenTable::Make(std::max(kVocab, static_cast<int>(texts.size())), tokens);
  fmt::print("{} tokens: table made in {:.0f} ms, {:.1f} MB\n\n", texts.size(),
             MicrosecondsSince(begin) / 1000, static_cast<double>(table->memory_bytes()) / 1e6);
  std::vector<uint64_t> from(table->mask_words(), 1), to(table->mask_words());
  Times copies;
  for (int i = 0; i < 1000; ++i) {
    const auto start = Clock::now();
    std::copy(from.begin(), from.end(), to.begin());
    copies.all.push_back(MicrosecondsSince(start));
    from[0] += to[static_cast<size_t>(i)];
  }
  fmt::print("copying a mask: {:.2f} microseconds\n\n", copies.At(0.5));
  const Cutter cutter(texts);

  fmt::print("{:<24}{:>9} |{:>8}{:>8}{:>8} |{:>8}{:>8}{:>8} |{:>8}{:>8}{:>8}{:>8}\n", "", "compile",
             "mean", "p99", "max", "mean", "p99", "max", "mean", "p50", "p99", "max");
  fmt::print("{:<24}{:>9} |{:^24} |{:^24} |{:^32}\n", "microseconds", "", "a new context",
             "a new grammar", "further answers");
  MatcherContext warm(table);
  {
    Times ignored;
    Writer writer;
    Run(warm, GrammarOf(Cases()[0]), cutter.Cut(Cases()[0].answer(writer)), &ignored);
  }
  for (const Case& c : Cases()) {
    Times compile;
    for (int i = 0; i < 20; ++i) {
      const auto start = Clock::now();
      GrammarOf(c);
      compile.all.push_back(MicrosecondsSince(start));
    }
    const GrammarPtr grammar = GrammarOf(c);
    Writer writer;
    Times cold, fresh, later;
    const std::vector<TokenId> answer = cutter.Cut(c.answer(writer));
    MatcherContext context(table);
    Run(context, grammar, answer, &cold);
    Run(warm, grammar, answer, &fresh);
    for (int i = 0; i < 40; ++i) Run(warm, grammar, cutter.Cut(c.answer(writer)), &later);
    fmt::print(
        "{:<24}{:>9.0f} |{:>8.1f}{:>8.0f}{:>8.0f} |{:>8.1f}{:>8.0f}{:>8.0f} |{:>8.1f}{:>8.1f}"
        "{:>8.1f}{:>8.0f}\n",
        c.name, compile.At(0.5), cold.Mean(), cold.At(0.99), cold.At(1), fresh.Mean(),
        fresh.At(0.99), fresh.At(1), later.Mean(), later.At(0.5), later.At(0.99), later.At(1));
  }
  fmt::print("\nkept by the context: {:.1f} MB\n", static_cast<double>(warm.memory_bytes()) / 1e6);
  return 0;
}

}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
