// The files that a tokenizer can be read from: which one counts, and bad ones of each kind.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "text/output/utf8_assembler.h"
#include "text/tokenizer/model_files.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<TokenId>;
using Loaded = Result<std::unique_ptr<Tokenizer>>;

std::string ReadGolden(const std::string& name) {
  const auto bytes = ReadFile(
      fs::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/tokenizer/kinds" / name, size_t{1} << 20);
  EXPECT_TRUE(bytes) << bytes.error().message;
  return bytes.value_or(std::string());
}

Json TekkenJson() { return Json::parse(ReadGolden("tekken.json")); }

Loaded Tekken(const Json& document) { return ParseTekken(DumpJson(document), "tekken.json"); }

Ids Encode(const Tokenizer& tokenizer, std::string_view text,
           const std::vector<TextRange>& literal = {}) {
  const auto ids = tokenizer.Encode(text, literal);
  EXPECT_TRUE(ids) << ids.error().message;
  return ids.value_or(Ids{-1});
}

TEST(TokenizerFiles, TokenizerJsonGoesBeforeTekkenBeforeSentencePiece) {
  const fs::path dir = fs::path(testing::TempDir()) / "tokenizer_files_order";
  fs::create_directories(dir);
  const auto write = [&dir](const char* name, const std::string& bytes) {
    std::ofstream(dir / name, std::ios::binary) << bytes;
  };
  const auto vocab_size = [&dir] {
    const auto tokenizer = Tokenizer::Load(dir);
    EXPECT_TRUE(tokenizer) << tokenizer.error().message;
    return tokenizer ? (*tokenizer)->vocab_size() : -1;
  };
  write("tokenizer.model", ReadGolden("spm.model"));
  EXPECT_EQ(vocab_size(), 900);
  write("tekken.json", ReadGolden("tekken.json"));
  EXPECT_EQ(vocab_size(), TekkenJson()["config"]["default_vocab_size"]);
  write("tokenizer.json", ReadGolden("wordpiece.json"));
  EXPECT_EQ(vocab_size(), 1005);
  // A broken file is not passed over.
  write("tokenizer.json", "{");
  EXPECT_FALSE(Tokenizer::Load(dir));
  fs::remove_all(dir);
  const auto none = Tokenizer::Load(dir);
  ASSERT_FALSE(none);
  for (const char* part : {"tokenizer.json does not exist", "tekken.json", "tokenizer.model"})
    EXPECT_NE(none.error().message.find(part), std::string::npos) << none.error().message;
}

// --- tekken.json --------------------------------------------------------------------------------

TEST(Tekken, IdsOfSpecialTokensComeFirst) {
  const auto tokenizer = Tekken(TekkenJson());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.IdOf("<s>"), 1);
  EXPECT_EQ(t.IdOf("[INST]"), 3);
  EXPECT_EQ(t.IdOf("<SPECIAL_20>"), 20);
  EXPECT_EQ(t.IdOf("<SPECIAL_999>"), 999);
  EXPECT_TRUE(t.IsSpecial(999));
  EXPECT_FALSE(t.IsSpecial(1000));
  EXPECT_EQ(t.TokenBytes(1000 + 0xE4), "\xE4");
  EXPECT_EQ(t.TokenBytes(1000 + ' '), " ");
  EXPECT_EQ(Ids(t.prefix_ids().begin(), t.prefix_ids().end()), Ids{1});
  EXPECT_TRUE(t.suffix_ids().empty());
  // Templates write special tokens, users do not.
  EXPECT_EQ(Encode(t, "[INST]~"), (Ids{3, 1000 + '~'}));
  EXPECT_GT(Encode(t, "[INST]~", {{0, 7}}).size(), 2u);
}

TEST(Tekken, ASpecialContentMayBeAnOrdinaryTokenToo) {
  Json document = TekkenJson();
  document["vocab"][300]["token_bytes"] = "PHM+";  // <s>
  document["config"]["pattern"] = "<s>|.";
  const auto tokenizer = Tekken(document);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(Encode(**tokenizer, "<s>"), Ids{1});
  EXPECT_EQ(Encode(**tokenizer, "<s>", {{0, 3}}), Ids{1300});
  EXPECT_EQ((*tokenizer)->IdOf("<s>"), 1);
}

TEST(Tekken, ReadsItsOwnSpecialTokens) {
  Json document = TekkenJson();
  document["config"]["version"] = "v11";
  document["special_tokens"] = Json::parse(R"([
      {"rank": 0, "token_str": "<unk>", "is_control": true},
      {"rank": 7, "token_str": "<s>", "is_control": true},
      {"rank": 2, "token_str": "[THINK]", "is_control": false}])");
  const auto tokenizer = Tekken(document);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->IdOf("[THINK]"), 2);
  EXPECT_EQ((*tokenizer)->IdOf("[INST]"), std::nullopt);
  EXPECT_EQ((*tokenizer)->IdOf("<SPECIAL_1>"), 1);
  EXPECT_EQ((*tokenizer)->prefix_ids()[0], 7);
}

struct BadFile {
  std::string_view where;  // JSON pointer
  std::string_view value;  // what stands there instead
  std::string_view says;   // part of the message
};

class BadTekken : public testing::TestWithParam<BadFile> {};

TEST_P(BadTekken, IsRefusedWithItsReason) {
  Json document = TekkenJson();
  document[Json::json_pointer(std::string(GetParam().where))] = Json::parse(GetParam().value);
  const auto tokenizer = Tekken(document);
  ASSERT_FALSE(tokenizer) << GetParam().where << " = " << GetParam().value;
  EXPECT_TRUE(tokenizer.error().message.starts_with("tekken.json: ")) << tokenizer.error().message;
  EXPECT_NE(tokenizer.error().message.find(GetParam().says), std::string::npos)
      << tokenizer.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadTekken,
    testing::Values(
        BadFile{"/config", "null", "has no \"config\""},
        BadFile{"/config/pattern", "7", "config.pattern must be of type string"},
        BadFile{"/config/pattern", "\"(\"", "config.pattern is not a usable regular expression"},
        BadFile{"/config/version", "\"v11\"",
                "has no \"special_tokens\", which files of version \"v11\" need"},
        BadFile{"/config/default_vocab_size", "null", "config has no \"default_vocab_size\""},
        BadFile{"/config/default_vocab_size", "1255", "config.default_vocab_size is 1255"},
        BadFile{"/config/default_vocab_size", "1e3", "must be of type integer"},
        BadFile{"/config/default_vocab_size", "18446744073709551615",
                "config.default_vocab_size is 18446744073709551615"},
        BadFile{"/config/default_vocab_size", "2000000", "but config asks for 1999000"},
        BadFile{"/config/default_num_special_tokens", "-1", "default_num_special_tokens is -1"},
        BadFile{"/config/default_num_special_tokens", "1000000", "must be between 0 and 65536"},
        BadFile{"/config/default_num_special_tokens", "0", "tokens, but config asks for"},
        BadFile{"/vocab", "{}", "vocab must be of type array"},
        BadFile{"/vocab", "[]", "vocab has 0 tokens"},
        BadFile{"/vocab/300", "3", "vocab[300] is not an object"},
        BadFile{"/vocab/300/rank", "301", "vocab[300] must have its own place"},
        BadFile{"/vocab/300/rank", "-300", "vocab[300] must have its own place"},
        BadFile{"/vocab/300/rank", "\"300\"", "vocab[300] must have its own place"},
        BadFile{"/vocab/300/token_bytes", "null", "vocab[300] has no string \"token_bytes\""},
        BadFile{"/vocab/300/token_bytes", "\"\"", "vocab[300] has no bytes"},
        BadFile{"/vocab/300/token_bytes", "\"YWI\"",
                "vocab[300] has token_bytes that are not base64"},
        BadFile{"/vocab/300/token_bytes", "\"YW =\"", "not base64"},
        BadFile{"/vocab/300/token_bytes", "\"YW==YWI=\"", "not base64"},
        BadFile{"/vocab/300/token_bytes", "\"YX==\"", "not base64"},
        BadFile{"/vocab/300/token_bytes", "\"Y===\"", "not base64"},
        BadFile{"/vocab/300/token_bytes", "\"YQ==\"", "vocab has the token \"a\" twice"},
        BadFile{"/vocab/65/token_bytes", "\"Qg==\"", "vocab[65] must be the byte of its rank"},
        BadFile{"/special_tokens", "{}", "special_tokens must be of type array"},
        BadFile{"/special_tokens", R"([{"rank": 1000, "token_str": "x"}])",
                "special_tokens[0].rank is 1000, but must be between 0 and 999"},
        BadFile{"/special_tokens", R"([{"rank": 1}])", "special_tokens[0] has no \"token_str\""},
        BadFile{"/special_tokens", R"([{"rank": 1, "token_str": ""}])", "a token_str of 0 bytes"},
        BadFile{"/special_tokens",
                R"([{"rank": 1, "token_str": "x"}, {"rank": 1, "token_str": "y"}])",
                "special_tokens[1] has the rank 1, which stands twice"},
        BadFile{"/special_tokens",
                R"([{"rank": 1, "token_str": "x"}, {"rank": 2, "token_str": "x"}])",
                "has the special token \"x\" twice"}));

TEST(BadTekkenFile, HasTokensWithoutEnd) {
  Json document = TekkenJson();
  std::string base64;
  for (size_t i = 0; i < limits::kRankedTokenBytesMax / 3 + 1; ++i) base64 += "YWFh";
  document["vocab"][300]["token_bytes"] = base64;
  const auto tokenizer = Tekken(document);
  ASSERT_FALSE(tokenizer);
  EXPECT_NE(tokenizer.error().message.find("the token 1300 has 513 bytes"), std::string::npos)
      << tokenizer.error().message;
}

TEST(BadTekkenFile, HasACatastrophicPattern) {
  Json document = TekkenJson();
  document["config"]["pattern"] = "^(a+)+$";
  const auto tokenizer = Tekken(document);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto ids = (*tokenizer)->Encode(std::string(60, 'a') + "b");
  ASSERT_FALSE(ids);
  EXPECT_NE(ids.error().message.find("tekken.json: config.pattern takes too long"),
            std::string::npos)
      << ids.error().message;
}

// --- tokenizer.model ----------------------------------------------------------------------------

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Number(int field, uint64_t value) {
  return Varint(static_cast<uint64_t>(field) << 3) + Varint(value);
}
std::string Bytes(int field, std::string_view bytes) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(bytes.size()) + std::string(bytes);
}
std::string Piece(std::string_view content, float score, int type = 1) {
  std::string number(4, '\0');
  std::memcpy(number.data(), &score, 4);
  return Bytes(1, Bytes(1, content) + Varint(2 << 3 | 5) + number + Number(3, type));
}

// <unk> <s> [X] (user-defined) ▁ a b ab ▁ab ba
std::string Pieces() {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("[X]", 0, 4) + Piece("\u2581", -10) +
         Piece("a", -11) + Piece("b", -12) + Piece("ab", -2) + Piece("\u2581ab", -3) +
         Piece("ba", -2);
}
constexpr int kTrainer = 2, kNormalizer = 3;
std::string Trainer() { return Number(3, 2); }
std::string Rules() { return Bytes(1, "identity") + Number(4, 0); }

Loaded Model(const std::string& trainer, const std::string& normalizer,
             const std::string& pieces = Pieces()) {
  return ParseSentencePiece(pieces + Bytes(kTrainer, trainer) + Bytes(kNormalizer, normalizer),
                            "tokenizer.model");
}

TEST(SentencePiece, MergesByScoreFromTheLeft) {
  const auto tokenizer = Model(Trainer(), Rules());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(Encode(t, "ab"), Ids{7});
  EXPECT_EQ(Encode(t, "bab"), (Ids{3, 8, 5}));  // ba and ab have the same score
  EXPECT_EQ(Encode(t, "a  ab"), (Ids{3, 4, 3, 7}));
  EXPECT_EQ(Encode(t, "\u00E9\u00E9a"), (Ids{3, 0, 4}));  // one <unk>
  EXPECT_EQ(Encode(t, "[X]"), Ids{2});
  EXPECT_EQ(Encode(t, "[X]ab"), (Ids{2, 7}));
  EXPECT_EQ(t.prefix_ids()[0], 1);
  EXPECT_TRUE(t.IsSpecial(1));
  EXPECT_FALSE(t.IsSpecial(2));
  EXPECT_EQ(t.TokenBytes(7), " ab");
  EXPECT_EQ(t.FirstTokenBytes(7), "ab");
}

TEST(SentencePiece, TheFirstBlankIsASetting) {
  const auto tokenizer = Model(Trainer(), Rules() + Number(3, 0));
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(Encode(**tokenizer, "ab"), Ids{6});
  EXPECT_EQ((*tokenizer)->FirstTokenBytes(7), " ab");
  const auto no_bos = Model(Trainer() + Number(41, UINT64_MAX), Rules());
  ASSERT_TRUE(no_bos) << no_bos.error().message;
  EXPECT_TRUE((*no_bos)->prefix_ids().empty());
}

TEST(SentencePiece, BadModelsAreRefused) {
  const auto says = [](const Loaded& loaded) {
    EXPECT_FALSE(loaded);
    return loaded ? std::string() : loaded.error().message;
  };
  const auto find = [](const std::string& text, const char* part) {
    EXPECT_TRUE(text.starts_with("tokenizer.model")) << text;
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  find(says(Model("", Rules())),
       "is not a BPE model; supported are BPE models like Llama 2's: make");
  find(says(Model(Trainer(), Rules() + Bytes(2, "map"))), "has rules for normalization");
  find(says(Model(Trainer(), "")), "removes white space");
  find(says(Model(Trainer(), Rules() + Number(5, 0))), "writes blanks another way");
  find(says(Model(Trainer() + Number(24, 1), Rules())), "writes blanks another way");
  find(says(Model(Trainer() + Number(41, 9), Rules())), "bos_id is 9, but there are 9 pieces");
  find(says(Model(Trainer(), Rules(), "")), "has no pieces");
  find(says(Model(Trainer(), Rules(), Piece("", 0))), "has a piece without a text or a score");
  find(says(Model(Trainer(), Rules(), Piece("\xFF", 0))), "has a piece without a text or a score");
  find(says(Model(Trainer(), Rules(), Piece("a", NAN))), "has a piece without a text or a score");
  find(says(Model(Trainer(), Rules(), Piece("a", 0) + Piece("a", 0))), "has the token \"a\" twice");
  find(says(Model(Trainer(), Rules(), Pieces() + Piece("ac", 0))),
       "the piece \"ac\" has the character \"c\", which is no piece");
  find(says(Model(Trainer(), Rules(), Piece(std::string(300, 'x'), 0, 3))), "has 300 bytes");
  find(says(Model(Trainer() + Number(35, 1), Rules(), Piece("<0xZZ>", 0, 6))),
       "\"<0xZZ>\", which is not hexadecimal");
  for (const std::string_view proto : {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
                                       "\x0A\x05"
                                       "a",
                                       "\x0B", "\x0F", "\x08",
                                       "\x0D"
                                       "abc",
                                       "{\"model\": {}}"}) {
    find(says(ParseSentencePiece(proto, "tokenizer.model")), "is no protobuf message");
  }
  const std::string whole = ReadGolden("spm.model");
  for (size_t size = 0; size < whole.size(); size += 97)
    EXPECT_FALSE(ParseSentencePiece(std::string_view(whole).substr(0, size), "tokenizer.model"))
        << size;
}

// A run of byte tokens becomes text as soon as characters are whole, and only its broken parts
// become U+FFFD.
TEST(SentencePiece, ByteTokensAreBytes) {
  const auto tokenizer = ParseSentencePiece(ReadGolden("spm.model"), "spm.model");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  Utf8Assembler characters;
  std::string text;
  for (const char* token : {"<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>", "<0xE4>", "<0xBD>", "a"})
    characters.Push((*tokenizer)->TokenBytes((*tokenizer)->IdOf(token).value_or(-1)), &text);
  characters.Finish(&text);
  EXPECT_EQ(text, "你\uFFFD\uFFFDa");
}

// --- Files that went wrong somewhere -------------------------------------------------------------

// Whatever stands in a file, it is refused with a reason or it makes a tokenizer.
void ExpectRefusedOrUsable(const Loaded& loaded, const std::string& name) {
  if (!loaded) {
    EXPECT_TRUE(loaded.error().message.starts_with(name)) << loaded.error().message;
    EXPECT_TRUE(loaded.error().code == ErrorCode::bad_model ||
                loaded.error().code == ErrorCode::unsupported)
        << loaded.error().message;
    return;
  }
  const Tokenizer& tokenizer = **loaded;
  for (const std::string_view text : {"", "Hello, World 123 \n\n x", " ä 你好\u0301<s>", "\xFF"}) {
    const auto ids = tokenizer.Encode(text);
    if (!ids) {
      EXPECT_FALSE(ids.error().message.empty());
      continue;
    }
    for (const TokenId id : *ids) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, tokenizer.vocab_size());
    }
  }
}

// Sets a random place of the document to something else.
void Mutate(std::mt19937& random, Json* document) {
  static const Json kOthers =
      Json::parse(R"([null, true, -1, 0, 3, 255, 1099511627776, 1e300, "", "x",
      "(", "a b", "Ġ", "YWI=", [], [[]], [1, 2], {}, {"type": "Sequence"}, {"String": "a"},
      {"Regex": "(a|a?)+b"}, {"type": "ByteLevel"}])");
  Json* at = document;
  while (at->is_structured() && !at->empty() && (at == document || random() % 5 != 0))
    at = &*std::next(at->begin(), static_cast<ptrdiff_t>(random() % at->size()));
  *at = kOthers[random() % kOthers.size()];
}

TEST(TokenizerFilesProperty, ChangedFilesAreRefusedOrUsable) {
  const Json kinds = Json::parse(ReadGolden("kinds.json"));
  for (size_t k = 0; k < kinds.size(); ++k) {
    const std::string file = kinds[k]["file"];
    std::mt19937 random(static_cast<uint32_t>(k));
    if (file == "spm.model") {
      const std::string proto = ReadGolden(file);
      for (int i = 0; i < 300; ++i) {
        std::string changed = proto;
        for (uint32_t n = 1 + random() % 3; n > 0; --n)
          changed[random() % changed.size()] = static_cast<char>(random());
        ExpectRefusedOrUsable(ParseSentencePiece(changed, file), file);
      }
      continue;
    }
    Json document = Json::parse(ReadGolden(file));
    document.merge_patch(kinds[k]["patch"]);
    for (int i = 0; i < 60; ++i) {
      Json changed = document;
      for (uint32_t n = 1 + random() % 3; n > 0; --n) Mutate(random, &changed);
      const std::string text = DumpJson(changed);
      ExpectRefusedOrUsable(
          file == "tekken.json" ? ParseTekken(text, file) : Tokenizer::Parse(text, file), file);
    }
  }
}

}  // namespace
}  // namespace perdure::text
