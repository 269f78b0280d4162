#include "text/output/output_fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
#include <span>
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

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count)
    at += static_cast<size_t>(DecodeUtf8(text, at).length);
  return count;
}

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

std::vector<int> TokensOut(const std::vector<OutputPiece>& pieces);

TEST(OutputFold, MarkupIsTextThoughItIsSpecial) {
  const FakeTokenizer tokenizer({"a", "[CALLS]", "<s>", "\xE4", "\xBD\xA0", "</s>"}, {1, 2, 5});
  OutputSettings settings = Stop({"CALLS]a"});
  settings.markup_ids = {1, 5};
  settings.eos_ids = {5};
  auto pieces = Fold(OutputFold(&tokenizer, settings), {0, 1, 2, 3, 4, 5});
  EXPECT_EQ(Texts(pieces), (Strings{"a", "[", "", "", "CALLS]你", ""}));
  EXPECT_EQ(TokensOut(pieces), (std::vector<int>{1, 1, 1, 1, 5, 5}));
  EXPECT_EQ(pieces.back().finish, OutputFinish::kStop);
  // A stop string may begin inside of it.
  pieces = Fold(OutputFold(&tokenizer, settings), {1, 0, 0});
  EXPECT_EQ(Texts(pieces), (Strings{"[", ""}));
  EXPECT_EQ(TokensOut(pieces), (std::vector<int>{0, 1}));
  // It ends a character that was begun, as any text does.
  pieces = Fold(OutputFold(&tokenizer, settings), {3, 1, 4});
  EXPECT_EQ(TextOf(pieces), "\uFFFD[CALLS]\uFFFD\uFFFD");
}

std::vector<int> TokensOut(const std::vector<OutputPiece>& pieces) {
  std::vector<int> out;
  for (const OutputPiece& piece : pieces) out.push_back(piece.tokens_out);
  return out;
}

TEST(OutputFold, TellsWhichTokensAreOut) {
  const auto out = [](const std::vector<std::string>& tokens, const std::vector<std::string>& stop,
                      int max_tokens = INT_MAX) {
    // The last two are special: one in an answer, and one that ends it.
    std::vector<std::string> all = tokens;
    const auto special = static_cast<TokenId>(tokens.size());
    std::vector<TokenId> ids;
    for (TokenId id = 0; id < special; ++id) {
      const std::string& token = tokens[static_cast<size_t>(id)];
      ids.push_back(token == "<s>" ? special : token == "<eos>" ? special + 1 : id);
    }
    all.insert(all.end(), {"<s>", "<eos>"});
    const FakeTokenizer tokenizer(all, {special, special + 1});
    OutputSettings settings;
    settings.stop = stop;
    settings.eos_ids = {special + 1};
    settings.max_tokens = max_tokens;
    return TokensOut(Fold(OutputFold(&tokenizer, settings), ids));
  };
  using Out = std::vector<int>;
  EXPECT_EQ(out({"a", "", "b"}, {}), (Out{1, 2, 3}));
  EXPECT_EQ(out({"\xE2", "\x82", "\xAC", "b"}, {}), (Out{0, 0, 3, 4}));
  EXPECT_EQ(out({"a\xE2", "\x82\xAC", "b"}, {}), (Out{0, 2, 3}));
  EXPECT_EQ(out({"a\xE2", "\x82"}, {}, 2), (Out{0, 2}));
  EXPECT_EQ(out({"\xE2", "<s>", "\x82\xAC"}, {}), (Out{0, 0, 3}));
  EXPECT_EQ(out({"<s>", "a"}, {}), (Out{1, 2}));
  // Held back by what might become a stop string, and given out all the same.
  EXPECT_EQ(out({"x", "a", "<s>", "b", "d"}, {"abc"}), (Out{1, 1, 1, 1, 5}));
  EXPECT_EQ(out({"a", "b"}, {"abc"}, 2), (Out{0, 2}));
  // Cut off by it, but for a token that it cuts in two.
  EXPECT_EQ(out({"x", "a", "bc"}, {"abc"}), (Out{1, 1, 1}));
  EXPECT_EQ(out({"xa", "<s>", "bc"}, {"abc"}), (Out{0, 0, 1}));
  EXPECT_EQ(out({"xabcd"}, {"abc"}), (Out{1}));
  EXPECT_EQ(out({"abcd"}, {"abc"}), (Out{0}));
  EXPECT_EQ(out({"x", "<s>", "abc"}, {"abc"}), (Out{1, 2, 2}));
  EXPECT_EQ(out({"\xE2", "\x82\xAC"}, {"€"}), (Out{0, 0}));
  // An end token itself is no part of the text.
  EXPECT_EQ(out({"x", "a", "<eos>"}, {"abc"}), (Out{1, 1, 2}));
  EXPECT_EQ(out({"x", "\xE2", "<eos>"}, {}), (Out{1, 1, 2}));
}

TEST(OutputFold, CountsCharactersAndKnowsTheNextTokensBytes) {
  const FakeTokenizer tokenizer({"é", "\xE2\x82", "\xAC", "<s>"}, {3});
  OutputFold fold(&tokenizer, {});
  std::vector<int64_t> before;
  for (const TokenId token : {0, 1, 2, 3, 0}) {
    before.push_back(fold.characters());
    fold.Push(token);
  }
  EXPECT_EQ(before, (std::vector<int64_t>{0, 1, 1, 2, 2}));
  EXPECT_EQ(fold.BytesOfNext(1), "\xE2\x82");
  EXPECT_EQ(fold.BytesOfNext(3), "<s>");
  EXPECT_EQ(fold.BytesOfNext(9), "");
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

// Of the first tokens, without stop strings; an unfinished character counts, or not.
size_t CharactersOf(const FakeTokenizer& tokenizer, std::span<const TokenId> tokens,
                    bool unfinished) {
  Utf8Assembler assembler;
  std::string text;
  for (const TokenId token : tokens) {
    if (!tokenizer.IsSpecial(token)) assembler.Push(tokenizer.TokenBytes(token), &text);
  }
  if (unfinished) assembler.Finish(&text);
  return CountCharacters(text);
}

// `tokens`: those that the pieces are of, without a last EOS.
void ExpectTokensOut(const FakeTokenizer& tokenizer, const std::vector<OutputPiece>& pieces,
                     std::span<const TokenId> tokens) {
  size_t characters = 0;
  int before = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    characters += CountCharacters(pieces[i].text);
    ASSERT_GE(pieces[i].tokens_out, before);
    before = pieces[i].tokens_out;
    const auto out = static_cast<size_t>(before);
    const size_t pushed = std::min(i + 1, tokens.size());
    ASSERT_LE(out, pushed);
    if (pieces[i].finish == OutputFinish::kLength) {
      ASSERT_EQ(out, pushed);
    } else if (pieces[i].finish) {
      if (out < pushed) {
        ASSERT_GE(CharactersOf(tokenizer, tokens.first(out), false), characters);
      }
    } else {
      ASSERT_LE(CharactersOf(tokenizer, tokens.first(out), true), characters);
      if (out < pushed) {
        ASSERT_GT(CharactersOf(tokenizer, tokens.first(out + 1), true), characters);
      }
    }
  }
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

    const bool eos = !settings.ignore_eos && !settings.eos_ids.empty() && expected.finish &&
                     tokens[pieces.size() - 1] >= 10;
    ExpectTokensOut(tokenizer, pieces, std::span(tokens).first(pieces.size() - (eos ? 1 : 0)));
    ASSERT_FALSE(testing::Test::HasFatalFailure()) << "seed " << seed;

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
