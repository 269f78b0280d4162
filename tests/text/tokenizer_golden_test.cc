// Tokenizers made by goldens/tokenizer/make_goldens.py, against what Hugging Face's `tokenizers`
// did with the same files and strings.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "text/tokenizer/tokenizer.h"
#include "text/tokenizer/unicode_normalize.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

const std::filesystem::path kGoldens =
    std::filesystem::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/tokenizer";

std::string ReadGolden(const std::string& name) {
  const auto text = ReadFile(kGoldens / name, size_t{16} << 20);
  EXPECT_TRUE(text) << text.error().message;
  return text.value_or(std::string());
}

// The records of make_goldens.py.
class Records {
 public:
  explicit Records(const std::string& name) : data_(ReadGolden(name)) {}

  bool more() const { return at_ < data_.size(); }
  std::string_view Bytes() {
    const size_t size = Number();
    at_ += size;
    return std::string_view(data_).substr(at_ - size, size);
  }
  std::vector<TokenId> Ids() {
    std::vector<TokenId> ids(Number());
    for (TokenId& id : ids) id = static_cast<TokenId>(Number());
    return ids;
  }

 private:
  size_t Number() {
    at_ += 2;
    return static_cast<uint8_t>(data_[at_ - 2]) | static_cast<uint8_t>(data_[at_ - 1]) << 8;
  }
  std::string data_;
  size_t at_ = 0;
};

std::unique_ptr<Tokenizer> ParseGolden(const std::string& name) {
  auto tokenizer = Tokenizer::Parse(ReadGolden(name + ".tokenizer.json"), name);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message;
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

std::string Escaped(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    char hex[8];
    std::snprintf(hex, sizeof(hex), "\\x%02x", static_cast<uint8_t>(c));
    out += c >= ' ' && c <= '~' ? std::string(1, c) : hex;
  }
  return out;
}

std::string Lossy(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, i);
    AppendUtf8(c.code_point, &out);
    i += static_cast<size_t>(c.length);
  }
  return out;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGolden, EncodesAsTheReferenceDoes) {
  const auto tokenizer = ParseGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  int strings = 0, wrong = 0;
  for (Records records(std::string(GetParam()) + ".strings.bin"); records.more(); ++strings) {
    const std::string_view text = records.Bytes();
    const std::vector<TokenId> expected = records.Ids();
    const auto ids = tokenizer->Encode(text);
    ASSERT_TRUE(ids) << ids.error().message << " for " << Escaped(text);
    if (*ids != expected && ++wrong <= 10) {
      ADD_FAILURE() << Escaped(text) << " gives " << testing::PrintToString(*ids) << ", not "
                    << testing::PrintToString(expected);
    }
  }
  EXPECT_EQ(wrong, 0) << "of " << strings;
  EXPECT_GE(strings, 500);
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values("qwen", "llama3", "variants", "fused_unknown",
                                         "behaviors"),
                         [](const auto& info) { return std::string(info.param); });

class DecodeGolden : public testing::TestWithParam<const char*> {};

TEST_P(DecodeGolden, TokenBytesMakeTheReferencesAnswer) {
  const auto tokenizer = ParseGolden(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  int answers = 0;
  for (Records records(std::string(GetParam()) + ".decoded.bin"); records.more(); ++answers) {
    const std::vector<TokenId> ids = records.Ids();
    const std::string_view expected = records.Bytes();
    std::string bytes;
    for (const TokenId id : ids) {
      if (!tokenizer->IsSpecial(id)) bytes += tokenizer->TokenBytes(id);
    }
    EXPECT_EQ(Lossy(bytes), expected) << testing::PrintToString(ids);
  }
  EXPECT_GE(answers, 100);
}

INSTANTIATE_TEST_SUITE_P(All, DecodeGolden, testing::Values("qwen"),
                         [](const auto& info) { return std::string(info.param); });

// Byte-level tokenizers lose nothing: the tokens' bytes are the text, normalized.
TEST(TokenizerProperty, TokenBytesGiveTheNormalizedTextBack) {
  const auto qwen = ParseGolden("qwen");
  const auto llama3 = ParseGolden("llama3");
  ASSERT_TRUE(qwen && llama3);
  for (Records records("qwen.strings.bin"); records.more();) {
    const std::string text = Lossy(records.Bytes());
    records.Ids();
    // All of it literal: no added token is found.
    const std::vector<TextRange> all = {{0, text.size()}};
    for (const auto* tokenizer : {qwen.get(), llama3.get()}) {
      const auto ids = tokenizer->Encode(text, all);
      ASSERT_TRUE(ids) << ids.error().message;
      std::string bytes;
      for (const TokenId id : *ids) {
        EXPECT_FALSE(tokenizer->IsSpecial(id));
        bytes += tokenizer->TokenBytes(id);
      }
      EXPECT_EQ(bytes,
                tokenizer == qwen.get() ? NormalizeUnicode(text, NormalizationForm::kNfc) : text);
    }
  }
}

}  // namespace
}  // namespace perdure::text
