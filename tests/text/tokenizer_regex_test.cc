#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/regex.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

Regex Compiled(std::string_view pattern) {
  auto regex = Regex::Compile(pattern, "the pattern");
  EXPECT_TRUE(regex) << pattern << ": " << regex.error().message;
  return std::move(regex).value();
}

std::vector<std::string> AllMatches(std::string_view pattern, std::string_view text) {
  RegexRunner runner(text.size());
  std::vector<TextRange> ranges;
  const Status status = runner.FindAll(Compiled(pattern), text, &ranges);
  EXPECT_TRUE(status) << status.error().message;
  std::vector<std::string> matches;
  for (const TextRange& range : ranges)
    matches.emplace_back(text.substr(range.begin, range.end - range.begin));
  return matches;
}

using Strings = std::vector<std::string>;

TEST(Regex, CutsAsQwenDoes) {
  EXPECT_EQ(AllMatches(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
                       R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
                       "I'Ll go to 42nd\t St...\n\n  now  "),
            (Strings{"I", "'Ll", " go", " to", " ", "4", "2", "nd", "\t", " St", "...\n\n", " ",
                     " now", "  "}));
}

TEST(Regex, WhiteSpaceIsUnicodesOwn) {
  // U+180E is no white space any more; U+0085 and U+2028 are.
  EXPECT_EQ(AllMatches(R"(\s)", "a\u180E\u0085\u2028b").size(), 2u);
  EXPECT_EQ(AllMatches(R"([\s])", "a\u180E\u0085\u2028b").size(), 2u);
  EXPECT_EQ(AllMatches(R"(\S)", "a\u180E\u0085\u2028b").size(), 3u);
  EXPECT_EQ(AllMatches(R"([^\s]+)", "a\u180E\u0085").size(), 1u);
  EXPECT_EQ(AllMatches(R"([[:space:]])", "\u180E\u0085").size(), 1u);
}

TEST(Regex, PropertiesKnowCharactersNewerThanPcre2s) {
  EXPECT_EQ(AllMatches(R"(\p{L}+)", "a\U0001E030\U00031350b").size(), 1u);
  EXPECT_EQ(AllMatches(R"([^\s\p{L}]+)", "\U0001E030").size(), 0u);
  EXPECT_EQ(AllMatches(R"(\P{L})", "\U0001E030").size(), 0u);
  EXPECT_EQ(AllMatches(R"(\p{^Nd})", "7x").size(), 1u);
  EXPECT_EQ(AllMatches(R"(\d)", "7\U0001CCF3").size(), 2u);
  // The script itself, not what is used with it.
  EXPECT_EQ(AllMatches(R"(\p{Han})", "語。").size(), 1u);
}

TEST(Regex, WordCharactersIncludeMarks) {
  EXPECT_EQ(AllMatches(R"(\w+)", "e\u0301_ב9²").size(), 1u);
  EXPECT_EQ(AllMatches(R"(\W)", "e\u0301-").size(), 1u);
  EXPECT_EQ(AllMatches(R"(\b\w)", "ab e\u0301f"), (Strings{"a", "e"}));
  EXPECT_EQ(AllMatches(R"(\B\w)", "ab c").size(), 1u);
}

TEST(Regex, OtherWordsForTheSame) {
  EXPECT_EQ(AllMatches(R"(\h+)", "xCAFEx"), (Strings{"CAFE"}));
  EXPECT_EQ(AllMatches(R"([\hx]+)", "xCAFEz"), (Strings{"xCAFE"}));
  EXPECT_EQ(AllMatches(R"(a{,2})", "aaa"), (Strings{"aa", "a"}));
  EXPECT_EQ(AllMatches(R"((?m:a.b))", "a\nb").size(), 1u);
  EXPECT_EQ(AllMatches(R"(a.b)", "a\nb").size(), 0u);
  EXPECT_EQ(AllMatches(R"(^b$)", "a\nb\nc").size(), 1u);
  EXPECT_EQ(AllMatches("\\u00e9", "é").size(), 1u);
  EXPECT_EQ(AllMatches("{x}", "{x}").size(), 1u);
}

TEST(Regex, EmptyMatchesComeWhereOnigurumaFindsThem) {
  EXPECT_EQ(AllMatches("x*", "axb"), (Strings{"", "x", ""}));
  EXPECT_EQ(AllMatches("", "é!"), (Strings{"", "", ""}));
}

TEST(Regex, RefusesWhatWouldMeanSomethingElse) {
  for (const std::string_view pattern :
       {"[a[bc]]", "[a&&b]", R"([\W])", R"([\S\D])", R"([\P{L}])", R"(\p{Cn})", R"(\p{Sindarin})",
        R"(\pL)",  "a{2}+",  "a{2}?",   "(?x)a b",   "(?s).",      "(*FAIL)",   "(?C1)",
        "(?R)",    R"(\X)",  "[]a]",    R"(\C)",     R"(\Qa\E)",   R"(\u12)"}) {
    const auto regex = Regex::Compile(pattern, "file: place");
    ASSERT_FALSE(regex) << pattern;
    EXPECT_EQ(regex.error().code, ErrorCode::unsupported) << pattern;
    EXPECT_TRUE(regex.error().message.starts_with("file: place")) << regex.error().message;
  }
  for (const std::string_view pattern :
       {"(", "a)", "[a", "*", "\\", "a{3,2}", "(((a{1000}){1000}){1000})"}) {
    const auto regex = Regex::Compile(pattern, "file: place");
    ASSERT_FALSE(regex) << pattern;
    EXPECT_EQ(regex.error().code, ErrorCode::bad_model) << pattern;
  }
  EXPECT_FALSE(Regex::Compile(std::string(1 << 20, 'a'), "p"));
  EXPECT_FALSE(Regex::CompileLiteral(std::string(1 << 20, 'a'), "p"));
  EXPECT_FALSE(Regex::Compile(std::string(10'000, '('), "p"));
}

TEST(Regex, LiteralsAreNoPatterns) {
  const auto regex = Regex::CompileLiteral("a.c[\\s", "p");
  ASSERT_TRUE(regex);
  RegexRunner runner(0);
  std::vector<TextRange> matches;
  ASSERT_TRUE(runner.FindAll(*regex, "abc a.c[\\s", &matches));
  EXPECT_EQ(matches, (std::vector<TextRange>{{4, 10}}));
}

TEST(Regex, CatastrophicPatternsEndInAnError) {
  for (const std::string_view pattern :
       {"^(a+)+$", "(a|aa)+$", "(a|a?)+b", "^(?:.?){40}a{40}x", "(x+x+)+y", "(?:(?:a*)*)*b"}) {
    const std::string text = std::string(400, pattern[1] == 'x' ? 'x' : 'a') + "!";
    RegexRunner runner(text.size());
    std::vector<TextRange> matches;
    const Status status = runner.FindAll(Compiled(pattern), text, &matches);
    // Some of them PCRE2 sees through.
    if (!status) {
      EXPECT_EQ(status.error().code, ErrorCode::bad_model);
      EXPECT_NE(status.error().message.find("the pattern takes too long"), std::string::npos)
          << status.error().message;
    }
  }
  const std::string text = std::string(64, 'a') + "!";
  RegexRunner runner(text.size());
  std::vector<TextRange> matches;
  EXPECT_FALSE(runner.FindAll(Compiled("^(a+)+$"), text, &matches));
}

TEST(Regex, LongRunsAreNoCatastrophe) {
  const std::string text = std::string(2'000'000, ' ') + "x";
  EXPECT_EQ(AllMatches(R"(\s*[\r\n]+|\s+(?!\S)|\s+|\p{L}+)", text).size(), 3u);
  std::string mixed;
  for (int i = 0; i < 2000; ++i) mixed += std::string(700, ' ') + "y";
  EXPECT_EQ(AllMatches(R"(\s*[\r\n]+|\s+(?!\S)|\s+|\p{L}+)", mixed).size(), 6000u);
}

}  // namespace
}  // namespace perdure::text
