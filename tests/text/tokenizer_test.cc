#include "text/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {
namespace {

using Ids = std::vector<TokenId>;

// A tokenizer of single characters a to z, blank and some merges: ids are those of `vocab`, added
// tokens come behind. Byte-level unless changed.
Json Document() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [
      {"id": 100, "content": "<|a|>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 101, "content": "<|a|>b", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": false}
    ],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "ByteLevel"},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"<": 0, "|": 1, "a": 2, ">": 3, "b": 4, "c": 5, "Ġ": 6, "ab": 7, "abc": 8,
                "Ġa": 9, "Ã": 10, "¤": 11, "Ã¤": 12},
      "merges": [["a", "b"], ["ab", "c"], "Ġ a", "Ã ¤"]}
  })");
}

Result<std::unique_ptr<Tokenizer>> Parse(const Json& document) {
  return Tokenizer::Parse(DumpJson(document), "tokenizer.json");
}

std::unique_ptr<Tokenizer> MustParse(const Json& document) {
  auto tokenizer = Parse(document);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

Ids Encode(const Tokenizer& tokenizer, std::string_view text,
           const std::vector<TextRange>& literal = {}) {
  auto ids = tokenizer.Encode(text, literal);
  EXPECT_TRUE(ids) << ids.error().message;
  return ids.value_or(Ids{-1});
}

TEST(Tokenizer, EncodesAndTellsAboutItsTokens) {
  const auto tokenizer = MustParse(Document());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(Encode(*tokenizer, "abcab a"), (Ids{8, 7, 9}));
  EXPECT_EQ(Encode(*tokenizer, ""), Ids{});
  EXPECT_EQ(Encode(*tokenizer, "a\u0308ä"), (Ids{12, 12}));
  EXPECT_EQ(tokenizer->vocab_size(), 102);
  EXPECT_EQ(tokenizer->TokenBytes(9), " a");
  EXPECT_EQ(tokenizer->TokenBytes(10), "\xC3");
  EXPECT_EQ(tokenizer->TokenBytes(100), "<|a|>");
  for (const TokenId none : {-1, 13, 99, 102, 1 << 30}) {
    EXPECT_EQ(tokenizer->TokenBytes(none), "") << none;
    EXPECT_FALSE(tokenizer->IsSpecial(none));
  }
  EXPECT_TRUE(tokenizer->IsSpecial(100));
  EXPECT_FALSE(tokenizer->IsSpecial(101));
  EXPECT_EQ(tokenizer->IdOf("<|a|>"), 100);
  EXPECT_EQ(tokenizer->IdOf("Ġa"), 9);
  EXPECT_EQ(tokenizer->IdOf("nothing"), std::nullopt);
}

TEST(Tokenizer, LoadsFromAFolder) {
  const auto dir = std::filesystem::path(testing::TempDir()) / "tokenizer_loads_from_a_folder";
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "tokenizer.json") << DumpJson(Document());
  const auto tokenizer = Tokenizer::Load(dir);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ(Encode(**tokenizer, "abc"), Ids{8});
  std::filesystem::remove_all(dir);
  const auto missing = Tokenizer::Load(dir);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::io_error);
  EXPECT_NE(missing.error().message.find((dir / "tokenizer.json").string()), std::string::npos);
}

// --- Literal ranges -----------------------------------------------------------------------------

TEST(TokenizerLiteral, AddedTokensAreOrdinaryTextThere) {
  const auto tokenizer = MustParse(Document());
  const std::string text = "a<|a|>c<|a|>";
  EXPECT_EQ(Encode(*tokenizer, text), (Ids{2, 100, 5, 100}));
  const Ids plain = {0, 1, 2, 1, 3};
  EXPECT_EQ(Encode(*tokenizer, text, {{0, 12}}), (Ids{2, 0, 1, 2, 1, 3, 5, 0, 1, 2, 1, 3}));
  // Each single byte of a match is enough.
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_EQ(Encode(*tokenizer, text, {{i, i + 1}}), (Ids{2, 0, 1, 2, 1, 3, 5, 100})) << i;
  }
  EXPECT_EQ(Encode(*tokenizer, text, {{0, 1}, {6, 7}}), (Ids{2, 100, 5, 100}));
  EXPECT_EQ(Encode(*tokenizer, text, {{3, 3}, {12, 12}}), (Ids{2, 100, 5, 100}));
}

TEST(TokenizerLiteral, AShorterMatchBesideItCounts) {
  const auto tokenizer = MustParse(Document());
  EXPECT_EQ(Encode(*tokenizer, "<|a|>b"), Ids{101});
  EXPECT_EQ(Encode(*tokenizer, "<|a|>b", {{5, 6}}), (Ids{100, 4}));
}

TEST(TokenizerLiteral, WordsCrossTheBorders) {
  const auto tokenizer = MustParse(Document());
  EXPECT_EQ(Encode(*tokenizer, "abc ab", {{1, 2}, {3, 5}}), (Ids{8, 6, 7}));
}

TEST(TokenizerLiteral, RangesMoveWithReplacedBytes) {
  const auto tokenizer = MustParse(Document());
  // The broken bytes become longer; U+FFFD's three bytes are no tokens here and are dropped.
  EXPECT_EQ(Encode(*tokenizer, "\xFF\xFF<|a|>\xE4<|a|>", {{8, 9}}), (Ids{100, 0, 1, 2, 1, 3}));
  EXPECT_EQ(Encode(*tokenizer, "\xFF\xE4\xBD<|a|>", {{0, 2}}), Ids{100});
  EXPECT_EQ(Encode(*tokenizer, "<|a|>\xE4\xBD", {{5, 6}}), Ids{100});
}

TEST(TokenizerLiteral, HoldsThroughNormalization) {
  Json document = Document();
  document["added_tokens"][0]["normalized"] = true;
  document["added_tokens"][1]["normalized"] = true;
  document["normalizer"] = Json::parse(R"({"type": "Sequence", "normalizers": [
      {"type": "NFKD"}, {"type": "Replace", "pattern": {"String": "c"}, "content": "bb"},
      {"type": "Prepend", "prepend": "b"}, {"type": "Lowercase"},
      {"type": "Strip", "strip_left": true, "strip_right": true}]})");
  const auto tokenizer = MustParse(document);
  const Ids plain = {0, 1, 2, 1, 3};
  // What Prepend and Lowercase do is done to the added tokens' contents too: "b<|a|>".
  // ﬁ-like ligatures, c and the prefix move what follows.
  const std::string text = "cc\u00E4\u2126b<|A|>";
  const size_t at = text.find('<');
  const Ids found = Encode(*tokenizer, text);
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.back(), 100);
  for (size_t i = at - 1; i < text.size(); ++i) {
    const Ids ids = Encode(*tokenizer, text, {{i, i + 1}});
    EXPECT_EQ(Ids(ids.end() - 5, ids.end()), plain) << i;
  }
  EXPECT_EQ(Encode(*tokenizer, text, {{0, at - 1}}), found);
}

TEST(TokenizerLiteral, SpecialContentsAreNoWholeWordsEither) {
  Json document = Document();
  document["model"]["ignore_merges"] = true;
  document["pre_tokenizer"]["use_regex"] = false;
  document["model"]["vocab"]["<|a|>"] = 100;
  document["model"]["vocab"]["ca"] = 50;
  const auto tokenizer = MustParse(document);
  EXPECT_EQ(Encode(*tokenizer, "<|a|>"), Ids{100});
  EXPECT_EQ(Encode(*tokenizer, "ca"), Ids{50});
  EXPECT_EQ(Encode(*tokenizer, "<|a|>", {{0, 1}}), (Ids{0, 1, 2, 1, 3}));
}

// --- Around a text, and back to one --------------------------------------------------------------

Json SpecialPiece(const char* id) { return {{"SpecialToken", {{"id", id}, {"type_id", 0}}}}; }

TEST(Tokenizer, KnowsWhatStandsAroundAText) {
  Json document = Document();
  const auto around = [](const Tokenizer& tokenizer) {
    return std::pair(Ids(tokenizer.prefix_ids().begin(), tokenizer.prefix_ids().end()),
                     Ids(tokenizer.suffix_ids().begin(), tokenizer.suffix_ids().end()));
  };
  EXPECT_EQ(around(*MustParse(document)), std::pair(Ids{}, Ids{}));
  document["post_processor"] = nullptr;
  EXPECT_EQ(around(*MustParse(document)), std::pair(Ids{}, Ids{}));

  Json bert = Json::parse(R"({"type": "BertProcessing", "sep": ["c", 5], "cls": ["a", 2]})");
  document["post_processor"] = bert;
  const auto tokenizer = MustParse(document);
  EXPECT_EQ(around(*tokenizer), std::pair(Ids{2}, Ids{5}));
  EXPECT_EQ(Encode(*tokenizer, "b"), Ids{4});  // the caller adds them

  Json pieces = Json::array();
  pieces.push_back(SpecialPiece("two"));
  pieces.push_back(Json{{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pieces.push_back(SpecialPiece("one"));
  Json processor = {{"type", "TemplateProcessing"}, {"single", pieces}};
  processor["special_tokens"] = Json::parse(R"({"one": {"ids": [101]}, "two": {"ids": [7, 8]}})");
  document["post_processor"] = processor;
  EXPECT_EQ(around(*MustParse(document)), std::pair(Ids({7, 8}), Ids{101}));
  // The later ones put theirs around those of the earlier ones.
  document["post_processor"] = {{"type", "Sequence"}};
  document["post_processor"]["processors"] = Json::array();
  document["post_processor"]["processors"].push_back(Json::parse(R"({"type": "ByteLevel"})"));
  document["post_processor"]["processors"].push_back(bert);
  document["post_processor"]["processors"].push_back(processor);
  EXPECT_EQ(around(*MustParse(document)), std::pair(Ids({7, 8, 2}), Ids({5, 101})));
}

TEST(Tokenizer, BytesOfAFirstTokenLackItsBlank) {
  Json document = Document();
  document["model"]["vocab"] = Json::parse(
      R"({"\u2581": 0, "\u2581a": 1, "\u2581\u2581a": 2, "b\u2581": 3, "<0x20>": 4, "##c": 5})");
  document["model"]["merges"] = Json::array();
  const auto first_bytes = [&document](const char* decoder) {
    document["decoder"] = Json::parse(decoder);
    const auto tokenizer = MustParse(document);
    std::vector<std::string> bytes;
    for (TokenId id = 0; id < 6; ++id) bytes.emplace_back(tokenizer->FirstTokenBytes(id));
    EXPECT_EQ(tokenizer->FirstTokenBytes(100), "<|a|>");
    EXPECT_EQ(tokenizer->FirstTokenBytes(6), "");
    EXPECT_EQ(tokenizer->FirstTokenBytes(-1), "");
    return bytes;
  };
  using Strings = std::vector<std::string>;
  EXPECT_EQ(first_bytes(R"({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})"),
            (Strings{"", "a", " a", "b ", "", "##c"}));
  EXPECT_EQ(MustParse(document)->TokenBytes(2), "  a");
  // As `tokenizers` has it, all of them go here.
  EXPECT_EQ(first_bytes(R"({"type": "Metaspace", "replacement": "\u2581"})"),
            (Strings{"", "a", "a", "b", "<0x20>", "##c"}));
  EXPECT_EQ(MustParse(document)->TokenBytes(2), "  a");
  EXPECT_EQ(first_bytes(R"({"type": "Metaspace", "prepend_scheme": "never"})"),
            (Strings{" ", " a", "  a", "b ", "<0x20>", "##c"}));
  EXPECT_EQ(first_bytes(R"({"type": "WordPiece", "prefix": "##", "cleanup": true})")[5], "##c");
  EXPECT_EQ(MustParse(document)->TokenBytes(5), "c");
  EXPECT_EQ(MustParse(document)->TokenBytes(1), " \u2581a");
  EXPECT_EQ(first_bytes("null")[5], "##c");
  EXPECT_EQ(MustParse(document)->TokenBytes(5), " ##c");
}

// --- WordPiece ----------------------------------------------------------------------------------

Json WordPieceDocument() {
  return Json::parse(R"({
    "added_tokens": [{"id": 1, "content": "[CLS]", "normalized": false, "special": true}],
    "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                   "strip_accents": null, "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
      "max_input_chars_per_word": 5,
      "vocab": {"[UNK]": 0, "[CLS]": 1, "un": 2, "##a": 3, "##aff": 4, "##able": 5, "a": 6, ",": 7,
                "\u4f60": 8, "##\u00df": 9, "[": 10, "cls": 11, "]": 12}}
  })");
}

TEST(WordPiece, TakesTheLongestPartsOfShortWords) {
  const auto tokenizer = MustParse(WordPieceDocument());
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(Encode(*tokenizer, "UNaFF"), (Ids{2, 4}));
  EXPECT_EQ(Encode(*tokenizer, "unaa"), (Ids{2, 3, 3}));
  EXPECT_EQ(Encode(*tokenizer, "unaffable"), Ids{0});        // too long
  EXPECT_EQ(Encode(*tokenizer, "unax,un"), (Ids{0, 7, 2}));  // the whole word is unknown
  EXPECT_EQ(Encode(*tokenizer, "ün\u0300,a\u00DF a\u4F60a"), (Ids{2, 7, 6, 9, 6, 8, 6}));
  EXPECT_EQ(Encode(*tokenizer, " \u200B\n"), Ids{});
}

TEST(WordPiece, SpecialContentsAreNoWordsWhereUsersWroteThem) {
  Json document = WordPieceDocument();
  EXPECT_EQ(Encode(*MustParse(document), "[CLS]a"), (Ids{1, 6}));
  EXPECT_EQ(Encode(*MustParse(document), "[CLS]a", {{2, 3}}), (Ids{10, 11, 12, 6}));
  document["normalizer"] = nullptr;
  document["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  EXPECT_EQ(Encode(*MustParse(document), "[CLS]", {{0, 1}}), Ids{0});
}

TEST(WordPiece, BadModelsAreRefused) {
  const auto says = [](const char* key, const char* value) {
    Json document = WordPieceDocument();
    document["model"][key] = Json::parse(value);
    const auto tokenizer = Parse(document);
    EXPECT_FALSE(tokenizer) << key << " = " << value;
    return tokenizer ? std::string() : tokenizer.error().message;
  };
  EXPECT_EQ(says("unk_token", "null"), "tokenizer.json: model has no \"unk_token\"");
  EXPECT_EQ(says("unk_token", "\"?\""),
            "tokenizer.json: model has the unk_token \"?\", which its vocab lacks");
  EXPECT_EQ(
      says("max_input_chars_per_word", "100000"),
      "tokenizer.json: model.max_input_chars_per_word is 100000, but must be between 0 and 1024");
  EXPECT_EQ(
      says("continuing_subword_prefix", "3"),
      "tokenizer.json: model.continuing_subword_prefix must be of type string, but is of type "
      "integer");
}

// --- Bad files ----------------------------------------------------------------------------------

struct BadFile {
  std::string_view where;  // JSON pointer
  std::string_view value;  // what stands there instead
  std::string_view says;   // part of the message
  ErrorCode code = ErrorCode::bad_model;
};

class BadTokenizer : public testing::TestWithParam<BadFile> {};

TEST_P(BadTokenizer, IsRefusedWithItsReason) {
  Json document = Document();
  document[Json::json_pointer(std::string(GetParam().where))] = Json::parse(GetParam().value);
  const auto tokenizer = Parse(document);
  ASSERT_FALSE(tokenizer) << GetParam().where << " = " << GetParam().value;
  const Error& error = tokenizer.error();
  EXPECT_EQ(error.code, GetParam().code) << error.message;
  EXPECT_TRUE(error.message.starts_with("tokenizer.json: ")) << error.message;
  EXPECT_NE(error.message.find(GetParam().says), std::string::npos) << error.message;
}

constexpr auto kUnsupported = ErrorCode::unsupported;

INSTANTIATE_TEST_SUITE_P(
    Model, BadTokenizer,
    testing::Values(
        BadFile{"/model", "[]", "model must be of type object"},
        BadFile{"/model", "null", "has no \"model\""},
        BadFile{"/model/type", "3", "model.type must be of type string, but is of type integer"},
        BadFile{"/model/type", "\"Unigram\"",
                "is of type \"Unigram\"; supported are BPE and WordPiece", kUnsupported},
        BadFile{"/model/dropout", "0.1", "dropout", kUnsupported},
        BadFile{"/model/dropout", "\"x\"", "dropout", kUnsupported},
        BadFile{"/model/continuing_subword_prefix", "\"##\"", "##", kUnsupported},
        BadFile{"/model/end_of_word_suffix", "\"</w>\"", "</w>", kUnsupported},
        BadFile{"/model/end_of_word_suffix", "7", "must be of type string"},
        BadFile{"/model/fuse_unk", "\"yes\"", "model.fuse_unk must be of type boolean"},
        BadFile{"/model/unk_token", "\"<unk>\"", "unk_token \"<unk>\", which its vocab lacks"},
        BadFile{"/model/unk_token", "{}", "model.unk_token must be of type string"},
        BadFile{"/model/vocab", "null", "has no \"vocab\""},
        BadFile{"/model/vocab", "[]", "model.vocab must be of type object"},
        BadFile{"/model/vocab", "{}", "model.vocab is empty"},
        BadFile{"/model/vocab/b", "2", "gives the id 2 to both \"a\" and \"b\""},
        BadFile{"/model/vocab/b", "-1", "gives \"b\" the id -1"},
        BadFile{"/model/vocab/b", "2097152", "gives \"b\" the id 2097152"},
        BadFile{"/model/vocab/b", "18446744073709551615", "gives \"b\" the id"},
        BadFile{"/model/vocab/b", "1.5", "gives \"b\" the id 1.5"},
        BadFile{"/model/vocab/b", "\"4\"", "gives \"b\" the id \"4\""},
        BadFile{"/model/vocab/b", "[4]", "gives \"b\" the id [4]"},
        BadFile{"/model/merges", "null", "has no \"merges\""},
        BadFile{"/model/merges", "{}", "model.merges must be of type array"},
        BadFile{"/model/merges/0", "\"a\"", "model.merges[0] is \"a\""},
        BadFile{"/model/merges/0", "\"a b c\"", "model.merges[0] is \"a b c\""},
        BadFile{"/model/merges/0", "\"a \"", "model.merges[0] merges an empty token"},
        BadFile{"/model/merges/0", "[\"\", \"a\"]", "model.merges[0] merges an empty token"},
        BadFile{"/model/merges/0", "[\"a\"]", "model.merges[0] is neither"},
        BadFile{"/model/merges/0", "[\"a\", 3]", "model.merges[0] is neither"},
        BadFile{"/model/merges/0", "[\"a\", \"x\"]", "names the token \"x\""},
        BadFile{"/model/merges/0", "[\"c\", \"c\"]", "names the token \"cc\""},
        BadFile{"/model/merges/0", "null", "model.merges[0] is neither"}));

INSTANTIATE_TEST_SUITE_P(
    AddedTokens, BadTokenizer,
    testing::Values(
        BadFile{"/added_tokens", "{}", "added_tokens must be of type array"},
        BadFile{"/added_tokens/0", "3", "added_tokens[0] must be of type object"},
        BadFile{"/added_tokens/0/id", "null", "added_tokens[0] has no \"id\""},
        BadFile{"/added_tokens/0/id", "\"1\"", "added_tokens[0].id must be of type integer"},
        BadFile{"/added_tokens/0/id", "-1", "added_tokens[0].id is -1"},
        BadFile{"/added_tokens/0/id", "1e3", "added_tokens[0].id must be of type integer"},
        BadFile{"/added_tokens/0/id", "4294967296", "added_tokens[0].id is 4294967296"},
        BadFile{"/added_tokens/0/id", "18446744073709551615", "must be between 0 and"},
        BadFile{"/added_tokens/0/id", "101", "has the id 101, which stands twice"},
        BadFile{"/added_tokens/0/id", "5", "model.vocab says otherwise (\"c\")"},
        BadFile{"/added_tokens/0/content", "\"ab\"", "model.vocab says otherwise (\"7\")"},
        BadFile{"/added_tokens/0/content", "\"<|a|>b\"", "which stands twice"},
        BadFile{"/added_tokens/0/content", "null", "has no \"content\""},
        BadFile{"/added_tokens/0/content", "[]", "content must be of type string"},
        BadFile{"/added_tokens/0/lstrip", "0", "lstrip must be of type boolean"}));

INSTANTIATE_TEST_SUITE_P(
    Steps, BadTokenizer,
    testing::Values(
        BadFile{"/normalizer", "\"NFC\"", "normalizer must be of type object"},
        BadFile{"/normalizer/type", "\"Precompiled\"", "\"Precompiled\"; supported are NFC",
                kUnsupported},
        BadFile{"/normalizer", R"({"type": "Replace", "content": ""})", "has no \"pattern\""},
        BadFile{"/normalizer", R"({"type": "Replace", "pattern": {}, "content": ""})",
                "normalizer.pattern must have a \"String\" or a \"Regex\""},
        BadFile{"/normalizer", R"({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})",
                "normalizer.pattern is not a usable regular expression"},
        BadFile{"/normalizer", R"({"type": "Prepend"})", "has no \"prepend\""},
        BadFile{"/normalizer", R"({"type": "Sequence", "normalizers": [{"type": "Nmt"}]})",
                "normalizer.normalizers[0] is of type \"Nmt\"", kUnsupported},
        BadFile{"/pre_tokenizer", "[]", "pre_tokenizer must be of type object"},
        BadFile{"/pre_tokenizer", "{}", "pre_tokenizer has no \"type\""},
        BadFile{"/pre_tokenizer/type", "\"UnicodeScripts\"", "supported are Split", kUnsupported},
        BadFile{"/pre_tokenizer/use_regex", "1", "use_regex must be of type boolean"},
        BadFile{"/pre_tokenizer", R"({"type": "Split", "pattern": "x", "behavior": "Isolated"})",
                "pre_tokenizer.pattern must be of type object"},
        BadFile{"/pre_tokenizer",
                R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Sideways"})",
                "unknown behavior \"Sideways\""},
        BadFile{"/pre_tokenizer",
                R"({"type": "Split", "pattern": {"Regex": "[[a]b]"}, "behavior": "Removed"})",
                "pre_tokenizer.pattern uses a class inside a class", kUnsupported},
        BadFile{"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})",
                "\"replacement\" of one character"},
        BadFile{"/pre_tokenizer", R"({"type": "Metaspace", "prepend_scheme": "last"})",
                "unknown prepend_scheme \"last\""},
        BadFile{"/pre_tokenizer",
                R"({"type": "Metaspace", "add_prefix_space": false, "prepend_scheme": "first"})",
                "pre_tokenizer has no add_prefix_space, but the prepend_scheme \"first\""},
        BadFile{"/normalizer", R"({"type": "BertNormalizer", "lowercase": "yes"})",
                "normalizer.lowercase must be of type boolean"},
        BadFile{"/decoder", "7", "decoder must be of type object"},
        BadFile{"/decoder/type", "\"CTC\"", "supported are ByteLevel", kUnsupported},
        BadFile{"/decoder", R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})",
                "decoder.pattern is empty"},
        BadFile{"/decoder", R"({"type": "Replace", "pattern": {"Regex": "x"}, "content": "x"})",
                "decoder.pattern is not a \"String\"", kUnsupported},
        BadFile{"/decoder", R"({"type": "Strip", "content": " ", "start": -1})",
                "decoder.start is -1"},
        BadFile{"/decoder",
                R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})",
                "ByteFallback behind Fuse", kUnsupported},
        BadFile{"/decoder", R"({"type": "Sequence", "decoders": [
                    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}]})",
                "decoders[1] strips more than one character of an answer", kUnsupported},
        BadFile{"/decoder", R"({"type": "Metaspace", "replacement": ""})",
                "decoder must have a \"replacement\" of one character"},
        BadFile{"/decoder", R"({"type": "WordPiece", "cleanup": 1})",
                "decoder.cleanup must be of type boolean"}));

INSTANTIATE_TEST_SUITE_P(
    PostProcessors, BadTokenizer,
    testing::Values(
        BadFile{"/post_processor", "[]", "post_processor must be of type object"},
        BadFile{"/post_processor/type", "\"Magic\"", "supported are TemplateProcessing",
                kUnsupported},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing"})", "has no \"single\""},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing", "single": "$A"})",
                "post_processor.single must be of type array"},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing", "single": []})",
                "post_processor.single does not write the text"},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing", "single": [
                    {"Sequence": {"id": "A"}}, {"Sequence": {"id": "A"}}]})",
                "post_processor.single writes the text twice", kUnsupported},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing", "single": [
                    {"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]})",
                "post_processor has no \"special_tokens\""},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing", "special_tokens": {},
                    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]})",
                "post_processor.special_tokens has no \"<s>\""},
        BadFile{"/post_processor", R"({"type": "TemplateProcessing",
                    "special_tokens": {"<s>": {"ids": [-1]}},
                    "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]})",
                "post_processor.special_tokens.<s>.ids[0] is -1"},
        BadFile{"/post_processor", R"({"type": "BertProcessing", "sep": ["[SEP]", 7]})",
                "post_processor has no \"cls\""},
        BadFile{"/post_processor",
                R"({"type": "BertProcessing", "sep": ["[SEP]"], "cls": ["x", 7]})",
                "post_processor.sep is not a pair"},
        BadFile{"/post_processor",
                R"({"type": "BertProcessing", "sep": ["x", 70], "cls": ["x", 7]})",
                "post_processor adds the token 70, which does not exist"}));

TEST(BadTokenizerFile, IsNotJson) {
  for (const std::string_view text :
       {"", "{", "[1]", "\"x\"", "{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}}}",
        "{\"model\": \"\xFF\"}"}) {
    const auto tokenizer = Tokenizer::Parse(text, "the file");
    ASSERT_FALSE(tokenizer) << text;
    EXPECT_EQ(tokenizer.error().code, ErrorCode::bad_model);
    EXPECT_TRUE(tokenizer.error().message.starts_with("the file")) << tokenizer.error().message;
  }
}

TEST(BadTokenizerFile, HasByteTokensThatAreNotHexadecimal) {
  Json document = Document();
  document["model"]["byte_fallback"] = true;
  document["model"]["vocab"]["<0xZZ>"] = 60;
  const auto tokenizer = Parse(document);
  ASSERT_FALSE(tokenizer);
  EXPECT_NE(tokenizer.error().message.find("\"<0xZZ>\", which is not hexadecimal"),
            std::string::npos);
  // Without byte fallback it is a token like others.
  document["model"]["byte_fallback"] = false;
  EXPECT_TRUE(Parse(document));
}

TEST(BadTokenizerFile, GrowsBeyondAllBounds) {
  Json twice = Json::parse(R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})");
  Json document = Document();
  document["decoder"] = {{"type", "Sequence"}, {"decoders", Json::array()}};
  for (int i = 0; i < 60; ++i) document["decoder"]["decoders"].push_back(twice);
  auto tokenizer = Parse(document);
  ASSERT_FALSE(tokenizer);
  EXPECT_NE(tokenizer.error().message.find("decoder makes more than"), std::string::npos);
  for (int i = 0; i < 60; ++i) document["decoder"]["decoders"].push_back(twice);
  tokenizer = Parse(document);
  ASSERT_FALSE(tokenizer);
  EXPECT_NE(tokenizer.error().message.find("one step more than"), std::string::npos);

  document = Document();
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
  for (int i = 0; i < 40; ++i) document["normalizer"]["normalizers"].push_back(twice);
  const auto grows = MustParse(document);
  const auto ids = grows->Encode("a");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::invalid_request);

  document = Document();
  document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array()}};
  for (int i = 0; i < 40; ++i)
    document["pre_tokenizer"]["pretokenizers"].push_back(
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}});
  EXPECT_FALSE(MustParse(document)->Encode("ä"));

  document = Document();
  document["added_tokens"][0]["content"] = std::string(limits::kAddedTokenBytesMax + 1, 'x');
  EXPECT_FALSE(Parse(document));
}

TEST(BadTokenizerFile, HasACatastrophicPattern) {
  Json document = Document();
  document["pre_tokenizer"] =
      Json::parse(R"({"type": "Split", "pattern": {"Regex": "^(a+)+$"}, "behavior": "Isolated"})");
  const auto tokenizer = MustParse(document);
  EXPECT_EQ(Encode(*tokenizer, "aab").size(), 2u);
  const auto ids = tokenizer->Encode(std::string(60, 'a') + "b");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::bad_model);
  EXPECT_NE(ids.error().message.find("tokenizer.json: pre_tokenizer.pattern takes too long"),
            std::string::npos)
      << ids.error().message;
}

TEST(Tokenizer, SparseIdsLeaveHoles) {
  Json document = Document();
  document["model"]["vocab"]["c"] = limits::kVocabMax - 1;
  const auto tokenizer = MustParse(document);
  EXPECT_EQ(tokenizer->vocab_size(), limits::kVocabMax);
  EXPECT_EQ(Encode(*tokenizer, "c"), Ids{limits::kVocabMax - 1});
  EXPECT_EQ(tokenizer->TokenBytes(limits::kVocabMax - 2), "");
}

TEST(Tokenizer, RefusesTextsWithoutEnd) {
  const auto tokenizer = MustParse(Document());
  const auto ids = tokenizer->Encode(std::string(limits::kEncodeBytesMax + 1, 'a'));
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::context_length_exceeded);
}

TEST(Tokenizer, ThreadsMayShareIt) {
  const auto tokenizer = MustParse(Document());
  const std::string text = "abc ab a<|a|>cab ä abab ccc";
  const Ids expected = Encode(*MustParse(Document()), text);
  std::vector<Ids> got(4);
  {
    std::vector<std::jthread> threads;
    for (Ids& ids : got)
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) ids = Encode(*tokenizer, text);
      });
  }
  for (const Ids& ids : got) EXPECT_EQ(ids, expected);
}

// --- BPE ----------------------------------------------------------------------------------------

// One word of 131,072 letters that merge level by level takes the loop n log n steps.
TEST(Bpe, MergesLongWords) {
  Json document = Document();
  Json& model = document["model"];
  std::string token = "z";
  model["vocab"][token] = 200;
  for (int i = 1; i <= 6; ++i) {
    model["merges"].push_back({token, token});
    token += token;
    model["vocab"][token] = 200 + i;
  }
  const auto tokenizer = MustParse(document);
  const Ids ids = Encode(*tokenizer, std::string(131'072 + 3, 'z'));
  ASSERT_EQ(ids.size(), 131'072 / 64 + 2u);
  EXPECT_EQ(ids.front(), 206);
  EXPECT_EQ(ids[ids.size() - 2], 201);
  EXPECT_EQ(ids.back(), 200);
}

// Words are cut before "▁" only where no token goes across.
TEST(Bpe, MergesAcrossBlanksWhereTokensDo) {
  Json model = Json::parse(R"({"vocab": {"\u2581": 0, "a": 1, "\u2581a": 2, "a\u2581": 3},
                               "merges": [["\u2581", "a"]]})");
  const auto encode = [&model](std::string_view word) {
    const auto bpe = Bpe::FromJson(JsonField(model, "model"));
    EXPECT_TRUE(bpe) << bpe.error().message;
    WordScratch scratch;
    Ids ids;
    if (bpe) bpe->Encode(word, &scratch, &ids);
    return ids;
  };
  const std::string_view word = "\u2581\u2581a\u2581aa\u2581";
  EXPECT_EQ(encode(word), (Ids{0, 2, 2, 1, 0}));
  model["merges"].push_back({"a", "\u2581"});
  EXPECT_EQ(encode(word), (Ids{0, 2, 2, 3}));
  std::swap(model["merges"][0], model["merges"][1]);
  EXPECT_EQ(encode(word), (Ids{0, 0, 3, 1, 3}));
}

// Against the definition: again and again the leftmost pair of the smallest rank.
TEST(BpeProperty, MergesInTheOrderOfRanks) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    Json model = {{"type", "BPE"}, {"vocab", Json::object()}, {"merges", Json::array()}};
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::map<std::pair<std::string, std::string>, int> ranks;
    for (int i = 0; i < 3; ++i) model["vocab"][tokens[static_cast<size_t>(i)]] = i;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random() % tokens.size()];
      const std::string right = tokens[random() % tokens.size()];
      // One way to make each token: then ranks alone decide.
      if (model["vocab"].contains(left + right)) continue;
      ranks[{left, right}] = static_cast<int>(ranks.size());
      model["vocab"][left + right] = tokens.size();
      model["merges"].push_back({left, right});
      tokens.push_back(left + right);
    }
    const auto bpe = Bpe::FromJson(JsonField(model, "model"));
    ASSERT_TRUE(bpe) << bpe.error().message;
    WordScratch scratch;
    for (int round = 0; round < 30; ++round) {
      std::string word;
      for (size_t n = 1 + random() % 30; n > 0; --n) word += tokens[random() % 3];
      std::vector<std::string> parts;
      for (const char c : word) parts.emplace_back(1, c);
      for (;;) {
        int best = INT_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
          const auto it = ranks.find({parts[i], parts[i + 1]});
          if (it != ranks.end() && it->second < best) {
            best = it->second;
            at = i;
          }
        }
        if (best == INT_MAX) break;
        parts[at] += parts[at + 1];
        parts.erase(parts.begin() + static_cast<ptrdiff_t>(at) + 1);
      }
      Ids expected;
      for (const std::string& part : parts) expected.push_back(*bpe->vocabulary().Find(part));
      // Twice: the second time, what the first found out is used.
      for (int i = 0; i < 2; ++i) {
        Ids ids;
        bpe->Encode(word, &scratch, &ids);
        ASSERT_EQ(ids, expected) << "seed " << seed << ", word " << word;
      }
    }
  }
}

TEST(ByteLevel, MapsAllBytesThereAndBack) {
  std::string bytes;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  std::string chars, back;
  AppendByteLevel(bytes, &chars);
  ASSERT_TRUE(AppendFromByteLevel(chars, &back));
  EXPECT_EQ(back, bytes);
  EXPECT_EQ(ByteLevelChar(' '), "Ġ");
  EXPECT_EQ(ByteLevelChar('\n'), "Ċ");
  EXPECT_EQ(ByteLevelChar('a'), "a");
  EXPECT_EQ(ByteLevelChar(0xAD), "Ń");
  EXPECT_FALSE(AppendFromByteLevel("a b", &back));
  EXPECT_FALSE(AppendFromByteLevel("你", &back));
  EXPECT_EQ(back, bytes);
}

}  // namespace
}  // namespace perdure::text
