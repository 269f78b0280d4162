#include "worker/splice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "tests/worker/ids.h"
#include "tests/worker/pair_tokenizer.h"

namespace perdure::worker {
namespace {

using Random = std::mt19937;
using Drawn = std::vector<bool>;

constexpr TokenId kUser = 258, kEnd = 259;

int Below(Random& random, int bound) {
  return static_cast<int>(random() % static_cast<uint32_t>(bound));
}

Ids Letters(const std::string& text) { return {text.begin(), text.end()}; }
std::string TextOf(const text::Tokenizer& tokenizer, const Ids& ids) {
  std::string text;
  for (const TokenId id : ids) text += tokenizer.TokenBytes(id);
  return text;
}
Ids EncodePairs(const std::string& text) { return *PairTokenizer().Encode(text, {}); }
Drawn All(size_t count) { return Drawn(count, true); }

void ExpectAgreed(const Agreement& agreed, size_t known, size_t prompt, size_t spliced) {
  EXPECT_EQ(agreed.known, known) << "known";
  EXPECT_EQ(agreed.prompt, prompt) << "prompt";
  EXPECT_EQ(agreed.spliced, spliced) << "spliced";
}

class SpliceTest : public testing::Test {
 protected:
  Agreement Agreed(const Ids& prompt, const Ids& known, const Drawn& drawn) {
    return Agree(tokenizer_, prompt, known, drawn);
  }
  PairTokenizer tokenizer_;
};

TEST_F(SpliceTest, TheSameTokensAgreeWhoeverSaidThem) {
  const Ids known = EncodePairs("<user>hello there<end>");
  ExpectAgreed(Agreed(known, known, All(known.size())), known.size(), known.size(), 0);
  ExpectAgreed(Agreed(known, known, Drawn(known.size(), false)), known.size(), known.size(), 0);
  // As far as the shorter one goes.
  ExpectAgreed(Agreed(known + Ids{'x'}, known, All(known.size())), known.size(), known.size(), 0);
  ExpectAgreed(Agreed(First(known, 3), known, All(known.size())), 3, 3, 0);
  ExpectAgreed(Agreed({}, known, All(known.size())), 0, 0, 0);
  ExpectAgreed(Agreed(known, {}, {}), 0, 0, 0);
}

TEST_F(SpliceTest, OtherTokensOfTheSameTextAgreeWhereTheyWereDrawn) {
  const Ids known = Letters("one two"), prompt = EncodePairs("one two");
  ASSERT_EQ(prompt.size(), 5u);  // on|e| |tw|o
  ExpectAgreed(Agreed(prompt, known, All(7)), 7, 5, 4);
  ExpectAgreed(Agreed(known, prompt, All(5)), 5, 7, 2);
  ExpectAgreed(Agreed(prompt, known, Drawn(7, false)), 0, 0, 0);
  // Of a stretch all must be drawn: "on" was, "tw" was not.
  ExpectAgreed(Agreed(prompt, known, {true, true, false, false, true, false, true}), 4, 3, 2);
  ExpectAgreed(Agreed(prompt, known, {true, true, false, false, false, true, true}), 4, 3, 2);
  ExpectAgreed(Agreed(prompt, known, {false, true, true, true, true, true, true}), 0, 0, 0);
}

TEST_F(SpliceTest, BothMayBeCutOtherwiseAtTheSamePlace) {
  const Ids known = {PairTokenizer::Pair('a', 'b'), PairTokenizer::Pair('c', 'd'), 'e'};
  const Ids prompt = {'a', PairTokenizer::Pair('b', 'c'), PairTokenizer::Pair('d', 'e')};
  ExpectAgreed(Agreed(prompt, known, All(3)), 3, 3, 3);
  ExpectAgreed(Agreed(prompt, known, {true, true, false}), 0, 0, 0);
}

TEST_F(SpliceTest, AStretchIsTheShortestThatThereIs) {
  // Only the first two letters were drawn, and they are a stretch of their own.
  const Ids known = Letters("abcd"), prompt = EncodePairs("abcd");
  ExpectAgreed(Agreed(prompt, known, {true, true, false, false}), 2, 1, 2);
  // What agrees behind it does not count as spliced.
  ExpectAgreed(Agreed(EncodePairs("ab..") + Ids{'x'}, Letters("ab..y"), All(5)), 4, 3, 2);
}

TEST_F(SpliceTest, AnotherTextEndsIt) {
  ExpectAgreed(Agreed(EncodePairs("abcX"), Letters("abcY"), All(4)), 3, 2, 2);
  ExpectAgreed(Agreed(EncodePairs("ab ce"), Letters("ab cd"), All(5)), 3, 2, 2);
  ExpectAgreed(Agreed(EncodePairs("xb"), Letters("ab"), All(2)), 0, 0, 0);
}

TEST_F(SpliceTest, APromptThatEndsWithinADrawnTokenDoesNotHaveIt) {
  const Ids known = {'.', PairTokenizer::Pair('a', 'b'), '.'};
  ExpectAgreed(Agreed(Letters(".a"), known, All(3)), 1, 1, 0);
  ExpectAgreed(Agreed(Letters(".ab"), known, All(3)), 2, 3, 1);
}

TEST_F(SpliceTest, AConversationThatEndsWithinATokenOfThePromptAgreesUpToItsBegin) {
  const Ids prompt = EncodePairs(".abcd");
  ExpectAgreed(Agreed(prompt, Letters(".abc"), All(4)), 3, 2, 2);
  ExpectAgreed(Agreed(prompt, Letters(".a"), All(2)), 1, 1, 0);
}

TEST_F(SpliceTest, SpecialTokensAreNotText) {
  // A user who writes "<end>" has not ended anything, nor has a model that drew it as text.
  const Ids text = Letters("<end>");
  ExpectAgreed(Agreed(text, {kEnd}, All(1)), 0, 0, 0);
  ExpectAgreed(Agreed({kEnd}, text, All(5)), 0, 0, 0);
  // A stretch does not go over one, on neither side.
  const Ids known = Letters("ab<end>");
  const TokenId pair = PairTokenizer::Pair('a', 'b');
  ExpectAgreed(Agreed({pair, kEnd}, known, All(7)), 2, 1, 2);
  ExpectAgreed(Agreed(known, {pair, kEnd}, All(2)), 1, 2, 1);
  // The same one on both sides agrees, between stretches as well.
  ExpectAgreed(Agreed({pair, kEnd, pair}, {'a', 'b', kEnd, 'a', 'b'}, All(5)), 5, 3, 4);
}

TEST_F(SpliceTest, AStretchHasABoundOnEitherSide) {
  constexpr size_t kMost = limits::kSpliceTokensMax;
  // "a|bb|bb|…" and "ab|bb|…|b" do not meet before their end.
  const auto stretch = [](size_t tokens) {
    const Ids pairs(tokens - 1, PairTokenizer::Pair('b', 'b'));
    return std::pair(Ids{'a'} + pairs,
                     Ids{PairTokenizer::Pair('a', 'b')} + First(pairs, tokens - 2) + Ids{'b'});
  };
  for (const size_t tokens : {size_t{3}, kMost - 1, kMost}) {
    const auto [one, other] = stretch(tokens);
    ExpectAgreed(Agreed(one, other, All(tokens)), tokens, tokens, tokens);
  }
  const auto [one, other] = stretch(kMost + 1);
  ExpectAgreed(Agreed(one, other, All(kMost + 1)), 0, 0, 0);
  // All in all there may be more.
  const Ids letters(10 * kMost, 'a');
  ExpectAgreed(Agreed(Ids(5 * kMost, PairTokenizer::Pair('a', 'a')), letters, All(10 * kMost)),
               10 * kMost, 5 * kMost, 10 * kMost);
}

// A byte is a token; beside these there are some that letters of several bytes are in.
class LetterTokenizer : public PairTokenizer {
 public:
  static constexpr TokenId kFirst = PairTokenizer::kVocabSize;
  enum : TokenId { kAcute = kFirst, kLastByteAndX, kFirstByteAfterBlank, kNothing };

  std::string_view TokenBytes(TokenId id) const override {
    static const std::string kBytes[] = {"\xC3\xA9", "\xA9x", " \xC3", ""};
    return id < kFirst ? PairTokenizer::TokenBytes(id) : kBytes[id - kFirst];
  }
};

TEST_F(SpliceTest, ALetterMayBeDrawnByteByByte) {
  const LetterTokenizer tokenizer;
  const auto agreed = [&](const Ids& prompt, const Ids& known) {
    return Agree(tokenizer, prompt, known, All(known.size()));
  };
  ExpectAgreed(agreed({LetterTokenizer::kAcute, 'x'}, {0xC3, 0xA9, 'x'}), 3, 2, 2);
  ExpectAgreed(agreed({LetterTokenizer::kAcute, 'x'}, {0xC3, LetterTokenizer::kLastByteAndX}), 2, 2,
               2);
  ExpectAgreed(
      agreed({' ', LetterTokenizer::kAcute}, {LetterTokenizer::kFirstByteAfterBlank, 0xA9}), 2, 2,
      2);
  // An answer that was cut off within a letter has no text of its own for it.
  ExpectAgreed(agreed({' ', LetterTokenizer::kAcute}, {' ', 0xC3}), 1, 1, 0);
  ExpectAgreed(agreed({' ', 0xC3, 0xA8}, {' ', LetterTokenizer::kAcute}), 1, 1, 0);
}

TEST_F(SpliceTest, TokensWithoutTextAreInNoStretch) {
  const LetterTokenizer tokenizer;
  const Ids known = {'a', LetterTokenizer::kNothing, 'b'};
  ExpectAgreed(Agree(tokenizer, EncodePairs("ab"), known, All(3)), 0, 0, 0);
  ExpectAgreed(Agree(tokenizer, known, known, All(3)), 3, 3, 0);
}

// --- By the meaning -----------------------------------------------------------------------------

// From one place where tokens of both end to the next: it is either one token or a stretch.
Agreement Expected(const text::Tokenizer& tokenizer, const Ids& prompt, const Ids& known,
                   const Drawn& drawn) {
  const std::string text = TextOf(tokenizer, prompt), other = TextOf(tokenizer, known);
  const auto same_bytes =
      static_cast<size_t>(std::ranges::mismatch(text, other).in1 - text.begin());
  const auto ends = [&](const Ids& ids) {
    std::map<size_t, size_t> tokens_by_end;
    size_t end = 0;
    for (size_t i = 0; i < ids.size(); ++i)
      tokens_by_end[end += tokenizer.TokenBytes(ids[i]).size()] = i + 1;
    return tokens_by_end;
  };
  const auto prompt_ends = ends(prompt), known_ends = ends(known);
  Agreement agreed;
  for (const auto& [end, prompt_end] : prompt_ends) {
    if (end > same_bytes) break;
    const auto it = known_ends.find(end);
    if (it == known_ends.end()) continue;
    const size_t known_end = it->second;
    const bool is_same_token = prompt_end == agreed.prompt + 1 && known_end == agreed.known + 1 &&
                               prompt[agreed.prompt] == known[agreed.known];
    if (!is_same_token) {
      bool possible = prompt_end - agreed.prompt <= limits::kSpliceTokensMax &&
                      known_end - agreed.known <= limits::kSpliceTokensMax;
      for (size_t i = agreed.prompt; i < prompt_end; ++i)
        possible = possible && !tokenizer.IsSpecial(prompt[i]);
      for (size_t i = agreed.known; i < known_end; ++i)
        possible = possible && drawn[i] && !tokenizer.IsSpecial(known[i]);
      if (!possible) break;
      agreed.spliced += known_end - agreed.known;
    }
    agreed.prompt = prompt_end;
    agreed.known = known_end;
  }
  return agreed;
}

// Words as a model might draw them, special tokens and their texts between them.
Ids RandomTokens(Random& random, int words) {
  Ids ids;
  for (; words > 0; --words) {
    const int kind = Below(random, 24);
    if (kind == 0) ids.push_back(Below(random, 2) == 0 ? kUser : kEnd);
    if (kind == 1) ids = ids + Letters("<end>");
    // The longest are beyond what a stretch may have.
    const int tokens = kind == 2 ? 60 + Below(random, 10) : Below(random, 7);
    // One letter first, so that the pairs behind it are others than those of the tokenizer.
    if (kind == 2) ids.push_back('a');
    for (int i = 0; i < tokens; ++i) {
      const auto a = static_cast<char>('a' + Below(random, 3));
      const auto b = static_cast<char>('a' + Below(random, 3));
      if (kind == 2 || Below(random, 2) == 0)
        ids.push_back(PairTokenizer::Pair(a, b));
      else
        ids.push_back(a);
    }
    ids.push_back(Below(random, 4) == 0 ? 0xC3 : ' ');
  }
  return ids;
}

Drawn RandomDrawn(Random& random, size_t count) {
  Drawn drawn;
  while (drawn.size() < count) {
    const bool each = Below(random, 4) > 0;
    for (int run = 1 + Below(random, 60); run > 0; --run) drawn.push_back(each);
  }
  drawn.resize(count);
  return drawn;
}

// As a client sends it back: special tokens are the template's, a text that looks like one is not.
Ids TokenizedAgain(const PairTokenizer& tokenizer, const Ids& ids) {
  std::string text;
  std::vector<text::TextRange> literal;
  for (const TokenId id : ids) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    if (!tokenizer.IsSpecial(id)) literal.push_back({text.size(), text.size() + bytes.size()});
    text += bytes;
  }
  return *tokenizer.Encode(text, literal);
}

TEST_F(SpliceTest, WhatAgreesIsTheSameTextAndAsMuchOfItAsCanBe) {
  Random random(1);
  int whole = 0, part = 0, spliced = 0, beside = 0;
  for (int round = 0; round < 2000; ++round) {
    const Ids known = RandomTokens(random, 1 + Below(random, 12));
    const Drawn drawn =
        Below(random, 3) == 0 ? All(known.size()) : RandomDrawn(random, known.size());
    Ids said = known;
    if (Below(random, 3) == 0 && !said.empty()) {
      const int at = Below(random, static_cast<int>(said.size()));
      if (Below(random, 2) == 0)
        said[static_cast<size_t>(at)] = 'a' + Below(random, 3);
      else
        said.resize(static_cast<size_t>(at));
    }
    said = said + RandomTokens(random, Below(random, 3));
    // What came from the template and the user is tokenized as it was.
    const Ids prompt = Below(random, 8) == 0 ? said : TokenizedAgain(tokenizer_, said);
    ASSERT_EQ(TextOf(tokenizer_, prompt), TextOf(tokenizer_, said));

    const Agreement agreed = Agreed(prompt, known, drawn);
    const Agreement expected = Expected(tokenizer_, prompt, known, drawn);
    ASSERT_EQ(agreed.known, expected.known) << round;
    ASSERT_EQ(agreed.prompt, expected.prompt) << round;
    ASSERT_EQ(agreed.spliced, expected.spliced) << round;

    // In its place the known tokens spell the same, and are found as they are.
    const Ids rest(prompt.begin() + static_cast<std::ptrdiff_t>(agreed.prompt), prompt.end());
    const Ids replaced = First(known, agreed.known) + rest;
    ASSERT_EQ(TextOf(tokenizer_, replaced), TextOf(tokenizer_, prompt)) << round;
    const auto specials = [&](const Ids& ids) {
      return std::ranges::count_if(ids, [&](TokenId id) { return tokenizer_.IsSpecial(id); });
    };
    ASSERT_EQ(specials(replaced), specials(prompt)) << round;
    const Agreement again = Agreed(replaced, known, drawn);
    ASSERT_EQ(again.known, agreed.known) << round;
    ASSERT_EQ(again.prompt, agreed.known) << round;
    ASSERT_EQ(again.spliced, 0u) << round;

    ++(agreed.known == known.size() ? whole : part);
    spliced += agreed.spliced > 0 ? 1 : 0;
    beside += agreed.spliced > 0 && agreed.spliced < agreed.known ? 1 : 0;
  }
  for (const int count : {whole, part, spliced, beside}) EXPECT_GT(count, 200);
}

}  // namespace
}  // namespace perdure::worker
