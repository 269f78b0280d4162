// Matchers: masks against an oracle that tries each token, walks through masks, caches that
// overflow.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "grammar_test_tools.h"
#include "text/grammar/matcher.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

// Texts that stay inside strings, leave them, and cross several parts at once.
std::vector<std::string> Vocabulary() {
  std::vector<std::string> tokens = AllBytes();
  for (const char* text : {"the",
                           " the",
                           "hello",
                           " world",
                           "é",
                           "\xC3",
                           "\xE2\x82",
                           "\x82\xAC",
                           "日本",
                           "😀",
                           "\xF0\x9F",
                           "ab",
                           "abc",
                           "abcdef",
                           " a",
                           "1234",
                           "12",
                           "0.5",
                           "-1",
                           "e10",
                           "true",
                           "false",
                           "null",
                           " null",
                           "{\"",
                           "\":",
                           "\": ",
                           "\": \"",
                           "\",",
                           "\", \"",
                           "\",\"",
                           "\"}",
                           "\"]",
                           "\"}]",
                           "}}",
                           "]}",
                           "}]}",
                           "},",
                           "}, {\"",
                           "[{\"",
                           "[]",
                           "{}",
                           ", ",
                           ",\n",
                           "\n  ",
                           "\n    ",
                           "  ",
                           "\\n",
                           "\\\"",
                           "\\u00",
                           "\\u",
                           "\\",
                           "a\"",
                           "name",
                           "\"name\"",
                           "\"name\":",
                           "name\":",
                           "na",
                           "me\"",
                           "\"a\":1",
                           "a\": 1,",
                           "\"a\"",
                           "\"b\"",
                           "<",
                           "</",
                           "</t",
                           "</think>",
                           "<tool_call>",
                           "k>",
                           ">",
                           "x</think>{",
                           "\"\n",
                           "aaaaaaaaaaaaaaaa",
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                           "a\xC3",
                           "\x80",
                           "\xFF"})
    tokens.emplace_back(text);
  tokens.emplace_back("the");  // a twin
  return tokens;
}

std::vector<GrammarPtr> Grammars() {
  std::vector<GrammarPtr> grammars;
  for (const char* schema :
       {R"({"type":"object","properties":{"name":{"type":"string"},"a":{"type":"integer"},
           "b":{"type":"array","items":{"type":"string"}}},"required":["name","b"]})",
        R"({"type":"object"})", "true",
        R"({"type":"array","items":{"type":"object","properties":{"a":{"type":"number"},
           "b":{"enum":["x","the","abc"]}},"required":["a"]},"minItems":1,"maxItems":3})",
        R"({"type":"string","maxLength":5})", R"({"type":"string","minLength":3,"maxLength":40})",
        R"({"type":"array","items":{"type":"string","minLength":1,"maxLength":2}})",
        R"({"type":"string","pattern":"^[a-z ]+$"})", R"({"type":"string","pattern":"the"})",
        R"({"properties":{"a":{"type":"integer","minimum":-12,"maximum":1234}},
           "additionalProperties":{"type":"string"}})",
        R"({"$defs":{"n":{"type":"object","properties":{"name":{"type":"string"},
           "a":{"type":"array","items":{"$ref":"#/$defs/n"}}}}},"$ref":"#/$defs/n"})",
        R"({"anyOf":[{"type":"string"},{"type":"null"},{"const":{"a":[1,"b"]}}]})"})
    grammars.push_back(SchemaGrammar(JsonOf(schema)));

  const auto build = [&](auto make) {
    GrammarBuilder b;
    auto grammar = b.Build(make(b));
    EXPECT_TRUE(grammar) << grammar.error().message;
    if (grammar) grammars.push_back(*grammar);
  };
  build([](GrammarBuilder& b) {
    return b.Sequence({b.TextUntil({"</think>"}), b.WhiteSpace(), b.JsonObject()});
  });
  build([](GrammarBuilder& b) { return b.TextWithout({"<tool_call>", "null"}); });
  build([](GrammarBuilder& b) {
    const auto value = b.TextUntil({"</t>"});
    return b.Repeat(b.Sequence({b.Literal("<t>"), value}), 1, 3);
  });
  build([](GrammarBuilder& b) {
    // a^n b^n, and a tail that is ambiguous.
    const auto rule = b.DeclareRule();
    b.DefineRule(rule,
                 b.Choice({b.Literal("ab"), b.Sequence({b.Literal("a"), rule, b.Literal("b")})}));
    return b.Sequence({rule, b.Repeat(b.Choice({b.Literal("a"), b.Regex("[a-c]{2}")}), 0,
                                      GrammarBuilder::kNoBound)});
  });
  build([](GrammarBuilder& b) { return b.Regex("(?:the|[^x]+) ?(?:\\d{2,4}|e)*"); });
  build([](GrammarBuilder& b) {
    return b.Sequence({b.Repeat(b.Regex("[^\"]"), 2, 9), b.Optional(b.JsonString(0, 3))});
  });
  return grammars;
}

std::vector<uint64_t> Oracle(const Matcher& matcher, const TokenTable& tokens) {
  std::vector<uint64_t> mask(tokens.mask_words());
  for (TokenId id = 0; id < tokens.vocab_size(); ++id) {
    Matcher copy = matcher;
    if (!tokens.BytesOf(id).empty() && copy.Accept(tokens.BytesOf(id)))
      mask[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
  }
  return mask;
}

std::vector<TokenId> IdsOf(const std::vector<uint64_t>& mask) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < mask.size() * 64; ++i)
    if ((mask[i / 64] >> (i % 64)) & 1) ids.push_back(static_cast<TokenId>(i));
  return ids;
}

TEST(GrammarMatcher, MasksEqualTheOracleInEveryState) {
  const auto tokens = TableOf(Vocabulary());
  // A small cache is dropped again and again, which must change nothing.
  for (const size_t cache_bytes : {limits::kGrammarCacheBytesMax, size_t{100'000}}) {
    MatcherContext context(tokens, nullptr, cache_bytes);
    MatcherContext oracle_context(tokens);
    std::mt19937_64 random(7);
    std::vector<GrammarPtr> grammars = Grammars();
    for (size_t g = 0; g < grammars.size(); ++g) {
      for (int walk = 0; walk < 25; ++walk) {
        Matcher matcher = context.Start(grammars[g]);
        Matcher oracle = oracle_context.Start(grammars[g]);
        for (int step = 0; step < 40; ++step) {
          std::vector<uint64_t> mask(tokens->mask_words(), ~uint64_t{0});
          const bool any = matcher.FillMask(mask);
          ASSERT_EQ(IdsOf(mask), IdsOf(Oracle(oracle, *tokens)))
              << "grammar " << g << ", walk " << walk << ", step " << step;
          ASSERT_EQ(matcher.can_end(), oracle.can_end());
          // Every byte is a token: there is always a way on.
          ASSERT_TRUE(any || matcher.can_end());
          ASSERT_EQ(!any, matcher.must_end());
          if (!any) break;
          const std::vector<TokenId> ids = IdsOf(mask);
          const TokenId id = ids[random() % ids.size()];
          ASSERT_TRUE(matcher.AcceptToken(id));
          ASSERT_TRUE(oracle.AcceptToken(id));
        }
      }
    }
  }
}

TEST(GrammarMatcher, RefusedBytesChangeNothing) {
  MatcherContext context(TableOf(AllBytes()));
  Matcher matcher = context.Start(SchemaGrammar(JsonOf(R"({"type":"array"})")));
  ASSERT_TRUE(matcher.Accept("[1"));
  EXPECT_FALSE(matcher.Accept(",2}"));
  EXPECT_TRUE(matcher.Accept("2]"));
  EXPECT_TRUE(matcher.can_end());
  EXPECT_TRUE(matcher.must_end());
  EXPECT_FALSE(matcher.Accept(" "));
}

TEST(GrammarMatcher, CopiesAreIndependent) {
  MatcherContext context(TableOf(AllBytes()));
  Matcher matcher = context.Start(SchemaGrammar(JsonOf(R"({"type":"array"})")));
  ASSERT_TRUE(matcher.Accept("["));
  Matcher copy = matcher;
  ASSERT_TRUE(copy.Accept("]"));
  EXPECT_TRUE(copy.can_end());
  EXPECT_FALSE(matcher.can_end());
}

TEST(GrammarMatcher, TellsWhatMustCome) {
  MatcherContext context(TableOf(AllBytes()));
  GrammarBuilder b;
  const auto value =
      AddJsonSchema(JsonOf(R"({"properties":{"name":{"const":"x"}},"required":["name"]})"),
                    {.white_space = false}, &b);
  const auto grammar = b.Build(*value);
  Matcher matcher = context.Start(*grammar);
  EXPECT_EQ(matcher.ForcedBytes(), R"({"name":"x"})");
  ASSERT_TRUE(matcher.Accept(R"({"na)"));
  EXPECT_EQ(matcher.ForcedBytes(), R"(me":"x"})");
  ASSERT_TRUE(matcher.Accept(R"(me":"x"})"));
  EXPECT_EQ(matcher.ForcedBytes(), "");
}

TEST(GrammarMatcher, AVocabularyMayHaveNoWayOn) {
  const auto tokens = TableOf({"[", "1", "]x"});
  MatcherContext context(tokens);
  Matcher matcher = context.Start(SchemaGrammar(JsonOf(R"({"type":"array","maxItems":1})")));
  std::vector<uint64_t> mask(tokens->mask_words());
  EXPECT_TRUE(matcher.FillMask(mask));
  ASSERT_TRUE(matcher.Accept("[1"));
  ASSERT_TRUE(matcher.Accept("2345678901234567"));
  EXPECT_TRUE(matcher.FillMask(mask));
  ASSERT_TRUE(matcher.Accept("8"));
  EXPECT_FALSE(matcher.FillMask(mask));
  EXPECT_FALSE(matcher.can_end());
  EXPECT_FALSE(matcher.must_end());
}

TEST(GrammarMatcher, TheFirstTokenMayLoseItsBlank) {
  const std::vector<std::string> later = {" {", "{", "}"}, first = {"{", "{", "}"};
  MatcherContext context(TableOf(later), TableOf(first));
  Matcher matcher = context.Start(SchemaGrammar(JsonOf(R"({"type":"object"})")));
  std::vector<uint64_t> mask(1);
  ASSERT_TRUE(matcher.FillMask(mask, TokenPlace::kFirst));
  EXPECT_EQ(mask[0], 0b011u);
  ASSERT_TRUE(matcher.FillMask(mask));
  EXPECT_EQ(mask[0], 0b010u);
  EXPECT_FALSE(Matcher(matcher).AcceptToken(0));
  EXPECT_TRUE(matcher.AcceptToken(0, TokenPlace::kFirst));
}

TEST(GrammarMatcher, LongMasksHaveTheirEndCleared) {
  const auto tokens = TableOf({"1"});
  MatcherContext context(tokens);
  Matcher matcher = context.Start(SchemaGrammar(JsonOf(R"({"type":"integer"})")));
  for (int i = 0; i < 3; ++i) {
    std::vector<uint64_t> mask(4, ~uint64_t{0});
    ASSERT_TRUE(matcher.FillMask(mask));
    EXPECT_EQ(mask, (std::vector<uint64_t>{1, 0, 0, 0}));
  }
}

TEST(GrammarMatcher, DeepNestingAndLongStringsKeepWithinTheCache) {
  const auto tokens = TableOf(Vocabulary());
  MatcherContext context(tokens, nullptr, 2 << 20);
  Matcher matcher = context.Start(
      SchemaGrammar(JsonOf(R"({"type":"array","items":{"type":"string","maxLength":100000}})")));
  std::vector<uint64_t> mask(tokens->mask_words());
  ASSERT_TRUE(matcher.Accept("[\""));
  for (int i = 0; i < 50'000; ++i) {
    ASSERT_TRUE(matcher.Accept("ab"));
    ASSERT_TRUE(matcher.FillMask(mask));
  }
  EXPECT_FALSE(matcher.Accept("c"));
  EXPECT_LT(context.memory_bytes(), size_t{3} << 20);
  Matcher deep = context.Start(SchemaGrammar(JsonOf("true")));
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(deep.Accept("[{\"a\":"));
  ASSERT_TRUE(deep.FillMask(mask));
  for (int i = 0; i < 20'000; ++i) ASSERT_TRUE(deep.Accept(i == 0 ? "1}]" : "}]"));
  EXPECT_TRUE(deep.can_end());
}

TEST(GrammarMatcher, EqualInputsGiveEqualMasksInEveryOrder) {
  const auto tokens = TableOf(Vocabulary());
  const std::vector<GrammarPtr> grammars = Grammars();
  const auto run = [&](bool backwards) {
    MatcherContext context(tokens);
    std::vector<std::vector<uint64_t>> masks(grammars.size() * 8);
    for (size_t i = 0; i < masks.size(); ++i) {
      const size_t at = backwards ? masks.size() - 1 - i : i;
      Matcher matcher = context.Start(grammars[at / 8]);
      std::mt19937_64 random(at);
      std::vector<uint64_t> mask(tokens->mask_words());
      for (int step = 0; step < 12 && matcher.FillMask(mask); ++step) {
        masks[at].insert(masks[at].end(), mask.begin(), mask.end());
        const std::vector<TokenId> ids = IdsOf(mask);
        matcher.AcceptToken(ids[random() % ids.size()]);
      }
    }
    return masks;
  };
  EXPECT_EQ(run(false), run(true));
}

// What a model could write at worst: any token that the mask allows, until it may end.
TEST(GrammarWalks, EndInTextsThatParse) {
  const auto tokens = TableOf(Vocabulary());
  MatcherContext context(tokens);
  std::mt19937_64 random(11);
  for (const char* schema :
       {R"({"type":"object"})", "true", R"({"properties":{"name":{"type":"string","maxLength":9},
         "a":{"type":"array","items":{"type":"number"},"maxItems":4}},"required":["name","a"]})"}) {
    const GrammarPtr grammar = SchemaGrammar(JsonOf(schema));
    int ended = 0;
    for (int walk = 0; walk < 300; ++walk) {
      Matcher matcher = context.Start(grammar);
      std::string text;
      std::vector<uint64_t> mask(tokens->mask_words());
      for (int step = 0; step < 300; ++step) {
        const bool any = matcher.FillMask(mask);
        if (matcher.can_end() && (!any || random() % 2 == 0)) {
          ++ended;
          const auto parsed = ParseJson(text, "the walk", ErrorCode::invalid_request, 1000);
          // Two keys may be equal, which only our own parser minds.
          EXPECT_TRUE(parsed || parsed.error().message.find("twice") != std::string::npos)
              << text << ": " << parsed.error().message;
          break;
        }
        std::vector<TokenId> ids = IdsOf(mask);
        // Closing tokens are taken more often, or no walk would end.
        std::vector<TokenId> closing;
        for (const TokenId id : ids)
          if (tokens->BytesOf(id).find_first_of("]}\"") != std::string_view::npos)
            closing.push_back(id);
        if (!closing.empty() && random() % 2 == 0) ids = closing;
        const TokenId id = ids[random() % ids.size()];
        ASSERT_TRUE(matcher.AcceptToken(id));
        text += tokens->BytesOf(id);
      }
    }
    EXPECT_GT(ended, 30) << schema;
  }
}

}  // namespace
}  // namespace perdure::text
