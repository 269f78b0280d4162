// Grammars made by hand, automata, and tables of tokens.
#include <gtest/gtest.h>

#include "grammar_test_tools.h"
#include "text/grammar/json_automata.h"
#include "text/grammar/pattern.h"

namespace perdure::text {
namespace {

template <class Make>
GrammarPtr Built(Make make) {
  GrammarBuilder b;
  auto grammar = b.Build(make(b));
  EXPECT_TRUE(grammar) << grammar.error().message;
  return grammar ? *grammar : nullptr;
}

template <class Make>
std::string BuildError(Make make) {
  GrammarBuilder b;
  const auto grammar = b.Build(make(b));
  EXPECT_FALSE(grammar);
  return grammar ? "" : grammar.error().message;
}

TEST(GrammarBuilder, TextUntilEndsWithTheFirstTrigger) {
  const auto g = Built([](GrammarBuilder& b) {
    return b.Sequence({b.TextUntil({"</think>", "<|x"}), b.Literal("!")});
  });
  EXPECT_TRUE(Accepts(g, "</think>!"));
  EXPECT_TRUE(Accepts(g, "a < b </thin </think>!"));
  EXPECT_TRUE(Accepts(g, "é<</think>!"));
  EXPECT_TRUE(Accepts(g, "a<|x!"));
  EXPECT_FALSE(Accepts(g, "a</think>b</think>!"));
  EXPECT_FALSE(Accepts(g, "a!"));
  EXPECT_FALSE(Accepts(g, "\xC3</think>!"));
  EXPECT_FALSE(Accepts(g, "\xFF</think>!"));
}

TEST(GrammarBuilder, TextUntilFindsTriggersThatOverlapThemselves) {
  const auto g = Built([](GrammarBuilder& b) { return b.TextUntil({"aab", "ba"}); });
  EXPECT_TRUE(Accepts(g, "aaab"));
  EXPECT_TRUE(Accepts(g, "cba"));
  EXPECT_FALSE(Accepts(g, "aab "));
  EXPECT_FALSE(Accepts(g, "aabba"));
}

TEST(GrammarBuilder, TextWithoutRefusesStrings) {
  const auto g = Built([](GrammarBuilder& b) { return b.TextWithout({"<tool_call>"}); });
  EXPECT_TRUE(Accepts(g, ""));
  EXPECT_TRUE(Accepts(g, "a <tool_call"));
  EXPECT_FALSE(Accepts(g, "a <tool_call>"));
  EXPECT_FALSE(Accepts(g, "a <tool_call> b"));
  EXPECT_FALSE(Accepts(g, "a\xC3"));
}

TEST(GrammarBuilder, RulesAreRecursive) {
  const auto g = Built([](GrammarBuilder& b) {
    const auto rule = b.DeclareRule();
    b.DefineRule(rule, b.Optional(b.Sequence({b.Literal("("), rule, b.Literal(")")})));
    return rule;
  });
  EXPECT_TRUE(Accepts(g, ""));
  EXPECT_TRUE(Accepts(g, "((()))"));
  EXPECT_FALSE(Accepts(g, "(()"));
  EXPECT_FALSE(Accepts(g, "())"));
}

TEST(GrammarBuilder, RepeatsAreCounted) {
  const auto g = Built([](GrammarBuilder& b) {
    return b.Sequence({b.Repeat(b.Literal("ab"), 2, 1'000'000'000), b.Literal("!")});
  });
  EXPECT_FALSE(Accepts(g, "ab!"));
  EXPECT_TRUE(Accepts(g, "abab!"));
  EXPECT_TRUE(Accepts(g, "abababab!"));
}

TEST(GrammarBuilder, RefusesWhatNeverBegins) {
  EXPECT_NE(BuildError([](GrammarBuilder& b) {
              const auto rule = b.DeclareRule();
              b.DefineRule(rule, b.Choice({b.Literal("x"), b.Sequence({rule, b.Literal("y")})}));
              return rule;
            }).find("itself"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) {
              const auto rule = b.DeclareRule();
              b.DefineRule(rule, b.Choice({b.Literal("x"), b.Sequence({b.WhiteSpace(), rule})}));
              return rule;
            }).find("itself"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) { return b.DeclareRule(); }).find("never be"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) {
              const auto rule = b.DeclareRule();
              b.DefineRule(rule, b.Sequence({b.Literal("x"), rule}));
              return rule;
            }).find("never be"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) {
              return b.Repeat(b.WhiteSpace(), 0, GrammarBuilder::kNoBound);
            }).find("empty"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) { return b.TextUntil({""}); }).find("1 to"),
            std::string::npos);
  EXPECT_NE(BuildError([](GrammarBuilder& b) { return b.Regex("(?=x)"); }).find("lookahead"),
            std::string::npos);
}

TEST(GrammarBuilder, AChoiceLeavesOutWhatNothingMatches) {
  const auto g = Built([](GrammarBuilder& b) {
    const auto never = b.DeclareRule();
    b.DefineRule(never, b.Sequence({b.Literal("x"), never}));
    return b.Choice({b.Sequence({b.Literal("y"), never}), b.Literal("z")});
  });
  EXPECT_TRUE(Accepts(g, "z"));
  MatcherContext context(TableOf({"y"}));
  EXPECT_FALSE(context.Start(g).Accept("y"));
}

TEST(GrammarBuilder, ReadingsAreBounded) {
  // Each "a" may end any number of those begun: as many readings as bytes, until there are too
  // many.
  const auto g = Built([](GrammarBuilder& b) {
    const auto rule = b.DeclareRule();
    b.DefineRule(rule, b.Sequence({b.Literal("a"), b.Repeat(rule, 0, GrammarBuilder::kNoBound)}));
    return rule;
  });
  MatcherContext context(TableOf({"a"}));
  Matcher matcher = context.Start(g);
  size_t count = 0;
  while (count < 2 * limits::kGrammarReadingsMax && matcher.Accept("a")) ++count;
  EXPECT_GT(count, 1000u);
  EXPECT_LE(count, limits::kGrammarReadingsMax);
  std::vector<uint64_t> mask(1);
  EXPECT_FALSE(matcher.FillMask(mask));
}

TEST(GrammarPattern, MatchesAsAWhole) {
  const auto g = Built([](GrammarBuilder& b) { return b.Regex("^a(b|c)?$|d"); });
  for (const char* text : {"a", "ab", "ac", "d"}) EXPECT_TRUE(Accepts(g, text)) << text;
  for (const char* text : {"", "abc", "ad", "xd"}) EXPECT_FALSE(Accepts(g, text)) << text;
}

TEST(GrammarAutomaton, EqualLanguagesAreEqual) {
  AutomatonBudget budget;
  const auto a = CompilePattern("(a|b)*c", &budget), b = CompilePattern("[ab]*c", &budget),
             c = CompilePattern("[ab]*d", &budget);
  EXPECT_EQ((*a)->fingerprint(), (*b)->fingerprint());
  EXPECT_NE((*a)->fingerprint(), (*c)->fingerprint());
  EXPECT_EQ((*a)->states(), 2u);
}

TEST(GrammarAutomaton, NumbersAreComparedExactly) {
  // All small numbers against a comparison of values.
  for (const double min : {-12.0, -1.5, -0.25, 0.0, 0.05, 1.0, 9.9, 10.0}) {
    for (const double max : {-10.0, -0.5, 0.0, 0.3, 2.0, 10.01, 11.0}) {
      AutomatonBudget budget;
      const auto numbers = CompileNumbers({min, max}, &budget);
      ASSERT_TRUE(numbers);
      for (int i = -1300; i <= 1300; ++i) {
        const double value = i / 100.0;
        std::string text = std::to_string(i < 0 ? -i : i);
        while (text.size() < 3) text.insert(0, "0");
        text.insert(text.size() - 2, ".");
        if (i < 0) text.insert(0, "-");
        EXPECT_EQ((*numbers)->Matches(text), value >= min && value <= max)
            << text << " in " << min << " … " << max;
      }
    }
  }
  for (const double min : {-123.0, -9.0, 0.0, 7.0, 95.0}) {
    AutomatonBudget budget;
    const auto integers = CompileIntegers({min, min + 111}, &budget);
    for (int i = -300; i <= 300; ++i)
      EXPECT_EQ((*integers)->Matches(std::to_string(i)), i >= min && i <= min + 111) << i;
  }
}

TEST(GrammarTokenTable, KeepsBytesAndTwins) {
  const auto table = TableOf({"ab", "", "ab", "\"", "a"});
  EXPECT_EQ(table->BytesOf(0), "ab");
  EXPECT_EQ(table->BytesOf(1), "");
  EXPECT_EQ(table->BytesOf(9), "");
  MatcherContext context(table);
  std::vector<uint64_t> mask(1);
  Matcher matcher = context.Start(Built([](GrammarBuilder& b) { return b.Literal("ab"); }));
  ASSERT_TRUE(matcher.FillMask(mask));
  EXPECT_EQ(mask[0], 0b10101u);
}

}  // namespace
}  // namespace perdure::text
