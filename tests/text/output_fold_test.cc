#include "text/output/output_fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace perdure::text {
namespace {

// Tokens are what the test says they are.
class FakeTokenizer : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> tokens, std::vector<TokenId> special = {})
      : tokens_(std::move(tokens)), special_(std::move(special)) {}

  Result<std::vector<TokenId>> Encode(std::string_view, std::span<const TextRange>) const override {
    return Err(ErrorCode::unsupported, "not needed here");
  }
  std::string_view TokenBytes(TokenId id) const override {
    if (id < 0 || id >= vocab_size()) return {};
    return tokens_[static_cast<size_t>(id)];
  }
  bool IsSpecial(TokenId id) const override {
    return std::find(special_.begin(), special_.end(), id) != special_.end();
  }
  std::optional<TokenId> IdOf(std::string_view) const override { return std::nullopt; }
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
  std::vector<TokenId> special_;
};

std::vector<OutputPiece> Fold(OutputFold fold, const std::vector<TokenId>& tokens) {
  std::vector<OutputPiece> pieces;
  for (const TokenId token : tokens) {
    pieces.push_back(fold.Push(token));
    if (fold.finished()) break;
  }
  return pieces;
}

std::string TextOf(const std::vector<OutputPiece>& pieces) {
  std::string text;
  for (const OutputPiece& piece : pieces) text += piece.text;
  return text;
}

std::vector<std::string> Texts(const std::vector<OutputPiece>& pieces) {
  std::vector<std::string> texts;
  for (const OutputPiece& piece : pieces) texts.push_back(piece.text);
  return texts;
}

OutputSettings Stop(std::vector<std::string> stop) {
  OutputSettings settings;
  settings.stop = std::move(stop);
  return settings;
}

using Strings = std::vector<std::string>;

TEST(OutputFold, GivesEachTokensTextAtOnce) {
  const FakeTokenizer tokenizer({"Hello", ", ", "world"});
  const auto pieces = Fold(OutputFold(&tokenizer, {}), {0, 1, 2});
  EXPECT_EQ(Texts(pieces), (Strings{"Hello", ", ", "world"}));
  EXPECT_FALSE(pieces.back().finish);
}

TEST(OutputFold, CutsNoCharacter) {
  const FakeTokenizer tokenizer({"a\xE4", "\xBD", "\xA0", "\xF0\x9F", "\x91\x8D!"});
  EXPECT_EQ(Texts(Fold(OutputFold(&tokenizer, {}), {0, 1, 2, 3, 4})),
            (Strings{"a", "", "你", "", "👍!"}));
}

TEST(OutputFold, ReplacesBytesOnceTheyAreCertainlyInvalid) {
  const FakeTokenizer tokenizer({"\xF0\x9F", "\x80", "x", "\xFF", "\xC0\x80"});
  EXPECT_EQ(Texts(Fold(OutputFold(&tokenizer, {}), {0, 1, 2, 3, 4, 0, 0})),
            (Strings{"", "", "\uFFFDx", "\uFFFD", "\uFFFD\uFFFD", "", "\uFFFD"}));
}

TEST(OutputFold, EndsAtEosAndFlushes) {
  const FakeTokenizer tokenizer({"text EN", "</s>", "\xE4\xBD"}, {1});
  OutputSettings settings = Stop({"END"});
  settings.eos_ids = {7, 1};
  auto pieces = Fold(OutputFold(&tokenizer, settings), {0, 1});
  EXPECT_EQ(Texts(pieces), (Strings{"text ", "EN"}));
  EXPECT_EQ(pieces.back().finish, OutputFinish::kStop);
  pieces = Fold(OutputFold(&tokenizer, settings), {2, 1});
  EXPECT_EQ(Texts(pieces), (Strings{"", "\uFFFD"}));
  settings.ignore_eos = true;
  pieces = Fold(OutputFold(&tokenizer, settings), {0, 1, 0});
  EXPECT_EQ(TextOf(pieces), "text ENtext ");
  EXPECT_FALSE(pieces.back().finish);
}

TEST(OutputFold, EndsAtTheLength) {
  const FakeTokenizer tokenizer({"ab", "STO", "\xE4", "<sp>"}, {3});
  OutputSettings settings = Stop({"STOP"});
  settings.max_tokens = 2;
  auto pieces = Fold(OutputFold(&tokenizer, settings), {0, 1, 0});
  EXPECT_EQ(Texts(pieces), (Strings{"ab", "STO"}));
  EXPECT_EQ(pieces.back().finish, OutputFinish::kLength);
  pieces = Fold(OutputFold(&tokenizer, settings), {0, 2});
  EXPECT_EQ(Texts(pieces), (Strings{"ab", "\uFFFD"}));
  settings.max_tokens = 10;
  settings.context_left = 3;
  pieces = Fold(OutputFold(&tokenizer, settings), {0, 3, 3, 0});
  EXPECT_EQ(Texts(pieces), (Strings{"ab", "", ""}));
  EXPECT_EQ(pieces.back().finish, OutputFinish::kLength);
}

TEST(OutputFold, EosAndStopGoBeforeTheLength) {
  const FakeTokenizer tokenizer({"x", "</s>", "\xE4"});
  OutputSettings settings = Stop({"x", "\uFFFD"});
  settings.max_tokens = 1;
  settings.eos_ids = {1};
  for (const TokenId token : {0, 1, 2}) {
    const auto pieces = Fold(OutputFold(&tokenizer, settings), {token});
    EXPECT_EQ(TextOf(pieces), "");
    EXPECT_EQ(pieces.back().finish, OutputFinish::kStop) << token;
  }
}

TEST(OutputFold, FindsStopStringsAcrossTokens) {
  const FakeTokenizer tokenizer({"one\nEN", "D", "two", "EN"});
  auto pieces = Fold(OutputFold(&tokenizer, Stop({"\nEND"})), {0, 1, 2});
  EXPECT_EQ(Texts(pieces), (Strings{"one", ""}));
  EXPECT_EQ(pieces.back().finish, OutputFinish::kStop);
  // Not one after all: held back only as long as it could be.
  pieces = Fold(OutputFold(&tokenizer, Stop({"\nEND"})), {0, 2, 3, 1});
  EXPECT_EQ(Texts(pieces), (Strings{"one", "\nENtwo", "EN", "D"}));
}

TEST(OutputFold, IncludesTheStopStringIfAsked) {
  const FakeTokenizer tokenizer({"one\nEN", "D two"});
  OutputSettings settings = Stop({"\nEND"});
  settings.include_stop_in_output = true;
  EXPECT_EQ(Texts(Fold(OutputFold(&tokenizer, settings), {0, 1})), (Strings{"one", "\nEND"}));
}

TEST(OutputFold, TheMatchThatIsCompleteFirstCounts) {
  const FakeTokenizer tokenizer({"abcdef"});
  EXPECT_EQ(TextOf(Fold(OutputFold(&tokenizer, Stop({"bcde", "cd"})), {0})), "ab");
  EXPECT_EQ(TextOf(Fold(OutputFold(&tokenizer, Stop({"cd", "bcd"})), {0})), "a");
}

TEST(OutputFold, OverlappingBeginningsAreKept) {
  const FakeTokenizer tokenizer({"a", "b", "<", "\n"});
  EXPECT_EQ(TextOf(Fold(OutputFold(&tokenizer, Stop({"aab"})), {0, 0, 0, 1})), "a");
  EXPECT_EQ(TextOf(Fold(OutputFold(&tokenizer, Stop({"abab<"})), {0, 1, 0, 1, 0, 1, 2})), "ab");
}

TEST(OutputFold, SpecialTokensDoNotSplitCharacters) {
  const FakeTokenizer tokenizer({"\xE4\xBD", "<|special|>", "\xA0"}, {1});
  EXPECT_EQ(Texts(Fold(OutputFold(&tokenizer, {}), {0, 1, 99, -5, 2})),
            (Strings{"", "", "", "", "你"}));
}

TEST(OutputFold, CountsTokens) {
  const FakeTokenizer tokenizer({"a"});
  OutputFold fold(&tokenizer, {});
  EXPECT_EQ(fold.tokens(), 0);
  fold.Push(0);
  fold.Push(0);
  EXPECT_EQ(fold.tokens(), 2);
  EXPECT_FALSE(fold.finished());
}

TEST(OutputFoldDeathTest, NothingFollowsTheEnd) {
  const FakeTokenizer tokenizer({"a"});
  OutputSettings settings;
  settings.max_tokens = 1;
  OutputFold fold(&tokenizer, settings);
  fold.Push(0);
  EXPECT_TRUE(fold.finished());
  EXPECT_DEATH(fold.Push(0), "finished_");
}

// --- Properties ---------------------------------------------------------------------------------

struct Expected {
  std::string text;
  std::optional<OutputFinish> finish;
  size_t tokens = 0;
};

std::string Lossy(std::string_view bytes, bool ended) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, i);
    if (c.incomplete && !ended) break;
    AppendUtf8(c.code_point, &out);
    i += static_cast<size_t>(c.length);
  }
  return out;
}

// The text up to the first complete match, by trying every end and every stop string.
std::optional<std::string> CutAtStop(const std::string& text, const OutputSettings& settings) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : settings.stop) {
      if (std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, settings.include_stop_in_output ? end : end - longest);
  }
  return std::nullopt;
}

// What the whole list of tokens gives, computed for each of its beginnings at once.
Expected Reference(const Tokenizer& tokenizer, const OutputSettings& settings,
                   const std::vector<TokenId>& tokens) {
  std::string bytes;
  Expected result;
  for (const TokenId token : tokens) {
    ++result.tokens;
    const bool eos = !settings.ignore_eos &&
                     std::count(settings.eos_ids.begin(), settings.eos_ids.end(), token) > 0;
    if (!eos && !tokenizer.IsSpecial(token)) bytes += tokenizer.TokenBytes(token);
    const bool full =
        static_cast<int>(result.tokens) >= std::min(settings.max_tokens, settings.context_left);
    result.text = Lossy(bytes, eos || full);
    if (const auto cut = CutAtStop(result.text, settings)) {
      result.text = *cut;
      result.finish = OutputFinish::kStop;
      return result;
    }
    if (eos || full) {
      result.finish = eos ? OutputFinish::kStop : OutputFinish::kLength;
      return result;
    }
  }
  return result;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  size_t Below(size_t n) { return engine_() % n; }

 private:
  std::mt19937 engine_;
};

// Few different bytes, so that stop strings are met often.
std::string RandomText(Random& random, size_t length_max) {
  static const Strings kPieces = {"a", "b", "ab", "\n", "é", "你", "\uFFFD"};
  std::string text;
  for (size_t n = 1 + random.Below(length_max); n > 0; --n)
    text += kPieces[random.Below(kPieces.size())];
  return text;
}

TEST(OutputFoldProperty, PiecesTogetherAreTheReferenceAndFoldingAgainGivesTheSame) {
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    Random random(seed);
    Strings vocabulary;
    for (int i = 0; i < 12; ++i) {
      std::string token = RandomText(random, 3);
      // Parts of characters and broken bytes.
      if (random.Below(3) == 0) token = token.substr(random.Below(token.size()));
      if (random.Below(3) == 0) token.resize(1 + random.Below(token.size()));
      if (random.Below(12) == 0) token += '\xFF';
      vocabulary.push_back(token);
    }
    const FakeTokenizer tokenizer(vocabulary, {10});
    OutputSettings settings;
    for (size_t n = random.Below(5); n > 0; --n) settings.stop.push_back(RandomText(random, 5));
    settings.include_stop_in_output = random.Below(2) == 0;
    if (random.Below(2) == 0) settings.eos_ids = {11, 10};
    settings.ignore_eos = random.Below(4) == 0;
    if (random.Below(2) == 0) settings.max_tokens = 1 + static_cast<int>(random.Below(30));
    if (random.Below(4) == 0) settings.context_left = 1 + static_cast<int>(random.Below(30));
    std::vector<TokenId> tokens(random.Below(40));
    for (TokenId& token : tokens) token = static_cast<TokenId>(random.Below(12));

    const Expected expected = Reference(tokenizer, settings, tokens);
    const auto pieces = Fold(OutputFold(&tokenizer, settings), tokens);
    ASSERT_EQ(pieces.size(), expected.tokens) << "seed " << seed;
    if (tokens.empty()) continue;
    ASSERT_EQ(pieces.back().finish, expected.finish) << "seed " << seed;

    // Without an end, the longest end of the text that begins a stop string is held back, no more.
    std::string text = TextOf(pieces);
    if (!expected.finish) {
      size_t held = 0;
      for (const std::string& stop : settings.stop) {
        for (size_t n = 1; n < stop.size() && n <= expected.text.size(); ++n) {
          if (expected.text.ends_with(std::string_view(stop).substr(0, n)))
            held = std::max(held, n);
        }
      }
      text += expected.text.substr(expected.text.size() - held);
    }
    ASSERT_EQ(text, expected.text) << "seed " << seed;
    for (const OutputPiece& piece : pieces) ASSERT_TRUE(IsValidUtf8(piece.text)) << "seed " << seed;

    // A copy from the middle goes on like the original.
    OutputFold fold(&tokenizer, settings);
    std::optional<OutputFold> copy;
    const size_t at = random.Below(pieces.size());
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i == at) copy = fold;
      ASSERT_EQ(fold.Push(tokens[i]).text, pieces[i].text) << "seed " << seed;
    }
    for (size_t i = at; i < pieces.size(); ++i)
      ASSERT_EQ(copy->Push(tokens[i]).text, pieces[i].text) << "seed " << seed;
  }
}

}  // namespace
}  // namespace perdure::text
