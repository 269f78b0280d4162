// Every kind of tokenizer, made by goldens/tokenizer/make_kinds.py, against what its own library
// (`tokenizers`, mistral-common, SentencePiece) made of 10,000 strings.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/prepared_folder.h"
#include "text/output/output_fold.h"
#include "text/tokenizer/tokenizer.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

using Ids = std::vector<TokenId>;

constexpr uint64_t kStrings = 10'000;
constexpr const char* kKinds[] = {
    "llama2",          "codellama",  "mistral_v03",  "gemma",  "metaspace_always",
    "metaspace_never", "llama3",     "qwen3",        "nemo",   "deepseek",
    "o200k",           "smollm",     "roberta",      "minilm", "bert_cased",
    "tekken_v3",       "tekken_v13", "sentencepiece"};

std::string ReadGolden(const std::string& name) {
  const std::filesystem::path folder =
      std::filesystem::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/tokenizer/kinds";
  const auto bytes = ReadFile(folder / name, size_t{1} << 20);
  EXPECT_TRUE(bytes) << bytes.error().message;
  return bytes.value_or(std::string());
}

Json KindsJson() { return Json::parse(ReadGolden("kinds.json")); }

struct Kind {
  std::unique_ptr<Tokenizer> tokenizer;
  // The reference takes no text for special tokens.
  bool all_literal = false;
};

class TempFolder {
 public:
  TempFolder() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "perdure-tokenizer-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

enum class Form { kFile, kPrepared };

Kind LoadKind(const std::string& name, Form form = Form::kFile) {
  Kind kind;
  for (const Json& entry : KindsJson()) {
    if (entry["name"] != name) continue;
    const std::string file = entry["file"];
    std::string bytes = ReadGolden(file);
    if (file != "spm.model") {
      Json document = Json::parse(bytes);
      document.merge_patch(entry["patch"]);
      bytes = DumpJson(document);
    }
    const TempFolder folder;
    const std::string file_name = file == "spm.model"     ? "tokenizer.model"
                                  : file == "tekken.json" ? "tekken.json"
                                                          : "tokenizer.json";
    EXPECT_TRUE(WriteFileAtomically(folder.path() / file_name, bytes, 0600));
    PreparedFolder prepared;
    prepared.tokenizer_bytes_min = 0;
    if (form == Form::kPrepared) {
      prepared.dir = folder.path() / "prepared";
      EXPECT_TRUE(Tokenizer::Load(folder.path(), prepared));  // writes it
    }
    auto tokenizer = Tokenizer::Load(folder.path(), prepared);
    EXPECT_TRUE(tokenizer) << tokenizer.error().message;
    if (tokenizer) kind.tokenizer = std::move(*tokenizer);
    kind.all_literal = file_name != "tokenizer.json";
  }
  return kind;
}

// Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t n) {
    state_ += 0x9E3779B97F4A7C15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return (z ^ (z >> 31)) % n;
  }

 private:
  uint64_t state_;
};

// string_bytes() of make_kinds.py.
class Strings {
 public:
  Strings() {
    const std::string bytes = ReadGolden("pieces.bin");
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = static_cast<uint8_t>(bytes[at]);
      pieces_.push_back(bytes.substr(at + 1, size));
      at += 1 + size;
    }
  }

  std::string At(uint64_t index) const {
    SplitMix64 r(index);
    std::string out;
    for (uint64_t n = 1 + r.Below(5); n > 0; --n) {
      const uint64_t how = r.Below(8);
      if (how == 0) {
        for (uint64_t i = 1 + r.Below(3); i > 0; --i) {
          const uint64_t limit = r.Below(2) == 0 ? 0x3000 : 0x30000;
          Append(r.Below(limit), &out);
        }
      } else if (how == 1) {
        const uint64_t base = r.Below(0x20000);
        for (uint64_t i = 1 + r.Below(6); i > 0; --i) Append(base + r.Below(48), &out);
      } else {
        out += pieces_[r.Below(pieces_.size())];
      }
    }
    return out;
  }

 private:
  static void Append(uint64_t c, std::string* out) {
    AppendUtf8(static_cast<char32_t>(c >= 0xD800 && c <= 0xDFFF ? c ^ 0x8000 : c), out);
  }
  std::vector<std::string> pieces_;
};

// CRC-32 (ISO 3309), its halves combined.
uint16_t Hash16(std::string_view bytes) {
  uint32_t crc = UINT32_MAX;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  crc = ~crc;
  return static_cast<uint16_t>(crc >> 16 ^ crc);
}

uint16_t Hash16(const Ids& ids) {
  std::string bytes;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      bytes.push_back(static_cast<char>(static_cast<uint32_t>(id) >> shift));
  }
  return Hash16(bytes);
}

class Hashes {
 public:
  explicit Hashes(const std::string& kind) : bytes_(ReadGolden(kind + ".hashes")) {}
  uint64_t size() const { return bytes_.size() / 4; }
  uint16_t OfIds(uint64_t index) const { return Number(index * 4); }
  uint16_t OfText(uint64_t index) const { return Number(index * 4 + 2); }

 private:
  uint16_t Number(size_t at) const {
    return static_cast<uint16_t>(static_cast<uint8_t>(bytes_[at]) |
                                 static_cast<uint8_t>(bytes_[at + 1]) << 8);
  }
  std::string bytes_;
};

Ids EncodeWhole(const Kind& kind, const std::string& text) {
  std::vector<TextRange> literal;
  if (kind.all_literal && !text.empty()) literal.push_back({0, text.size()});
  const auto encoded = kind.tokenizer->Encode(text, literal);
  EXPECT_TRUE(encoded) << encoded.error().message;
  const auto prefix = kind.tokenizer->prefix_ids(), suffix = kind.tokenizer->suffix_ids();
  Ids ids(prefix.begin(), prefix.end());
  if (encoded) ids.insert(ids.end(), encoded->begin(), encoded->end());
  ids.insert(ids.end(), suffix.begin(), suffix.end());
  return ids;
}

// An answer of just these tokens, token by token.
std::vector<std::string> Pieces(const Tokenizer& tokenizer, const Ids& ids) {
  OutputSettings settings;
  settings.own_text = true;
  settings.max_tokens = static_cast<int>(ids.size());
  OutputFold fold(&tokenizer, settings);
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(fold.Push(id).text);
  return pieces;
}

std::string Joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

class TokenizerKind : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerKind, DoesAsItsOwnLibrary) {
  const Kind kind = LoadKind(GetParam());
  ASSERT_NE(kind.tokenizer, nullptr);
  const Hashes hashes(GetParam());
  ASSERT_EQ(hashes.size(), kStrings);
  const Strings strings;
  int wrong = 0;
  for (uint64_t i = 0; i < kStrings && wrong < 10; ++i) {
    const std::string text = strings.At(i);
    const Ids ids = EncodeWhole(kind, text);
    const std::string decoded = Joined(Pieces(*kind.tokenizer, ids));
    if (Hash16(ids) == hashes.OfIds(i) && Hash16(decoded) == hashes.OfText(i)) continue;
    ++wrong;
    ADD_FAILURE() << "make_kinds.py " << GetParam() << " " << i << " shows what is expected; here "
                  << testing::PrintToString(text) << " gives " << testing::PrintToString(ids)
                  << ", and that " << testing::PrintToString(decoded);
  }
}

// What was parsed, and what was mapped, are the same in everything that can be asked.
TEST_P(TokenizerKind, PreparedFormDoesTheSame) {
  const Kind parsed = LoadKind(GetParam()), mapped = LoadKind(GetParam(), Form::kPrepared);
  ASSERT_NE(parsed.tokenizer, nullptr);
  ASSERT_NE(mapped.tokenizer, nullptr);
  const Tokenizer &a = *parsed.tokenizer, &b = *mapped.tokenizer;
  ASSERT_EQ(a.vocab_size(), b.vocab_size());
  for (TokenId id = -1; id <= a.vocab_size(); ++id) {
    ASSERT_EQ(a.TokenBytes(id), b.TokenBytes(id)) << id;
    ASSERT_EQ(a.FirstTokenBytes(id), b.FirstTokenBytes(id)) << id;
    ASSERT_EQ(a.IsSpecial(id), b.IsSpecial(id)) << id;
    ASSERT_EQ(a.IdOf(a.TokenBytes(id)), b.IdOf(a.TokenBytes(id))) << id;
  }
  const Strings strings;
  for (uint64_t i = 0; i < kStrings; i += 5) {
    const std::string text = strings.At(i);
    ASSERT_EQ(EncodeWhole(parsed, text), EncodeWhole(mapped, text)) << i;
    ASSERT_EQ(*a.Encode(text), *b.Encode(text)) << i;
  }
}

TEST(PreparedTokenizer, IsMappedMadeAgainAndDoneWithout) {
  const TempFolder folder;
  const auto write = [&](std::string_view content) {
    const Json document = {{"model",
                            {{"type", "BPE"},
                             {"vocab", {{"a", 0}, {"b", 1}, {content, 2}}},
                             {"merges", Json::array({"a b"})}}}};
    ASSERT_TRUE(WriteFileAtomically(folder.path() / "tokenizer.json", DumpJson(document), 0600));
  };
  const PreparedFolder prepared{.dir = folder.path() / "prepared", .tokenizer_bytes_min = 0};
  const auto name = PreparedName(folder.path(), "tokenizer");
  const auto expect_works = [&] {
    for (int i = 0; i < 2; ++i) {
      const auto tokenizer = Tokenizer::Load(folder.path(), prepared);
      ASSERT_TRUE(tokenizer) << tokenizer.error().message;
      EXPECT_EQ(*(*tokenizer)->Encode("abba"), (Ids{2, 1, 0}));
    }
  };
  write("ab");
  expect_works();
  // Each damaged byte is noticed, whatever it belongs to, and the file is made again.
  const std::string good = *ReadFile(prepared.dir / name, size_t{1} << 20);
  for (size_t at = 0; at < good.size(); at += 401) {
    std::string bad = good;
    bad[at] ^= 2;
    ASSERT_TRUE(WriteFileAtomically(prepared.dir / name, bad, 0600));
    expect_works();
  }
  // Another tokenizer in its place.
  write("bb");
  const auto other = Tokenizer::Load(folder.path(), prepared);
  EXPECT_FALSE(other);  // its merge makes a token that it lacks
  write("ab");
  expect_works();
  // No folder can be made where a file is.
  const PreparedFolder nowhere{.dir = folder.path() / "tokenizer.json" / "x",
                               .tokenizer_bytes_min = 0};
  EXPECT_TRUE(Tokenizer::Load(folder.path(), nowhere));
}

// What a client has at any moment is the beginning of the whole answer and cuts no character, and
// where an answer ends early, it is the whole text of the tokens so far.
TEST_P(TokenizerKind, StreamsWhatItDecodes) {
  const Kind kind = LoadKind(GetParam());
  ASSERT_NE(kind.tokenizer, nullptr);
  const Strings strings;
  for (uint64_t i = 0; i < kStrings; i += 20) {
    const Ids ids = EncodeWhole(kind, strings.At(i));
    const std::vector<std::string> pieces = Pieces(*kind.tokenizer, ids);
    const std::string whole = Joined(pieces);
    std::string so_far;
    for (size_t cut = 0; cut < ids.size(); ++cut) {
      ASSERT_TRUE(IsValidUtf8(pieces[cut])) << "string " << i << ", token " << cut;
      so_far += pieces[cut];
      ASSERT_TRUE(whole.starts_with(so_far)) << "string " << i << ", token " << cut;
      std::string ended = Joined(
          Pieces(*kind.tokenizer, Ids(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(cut) + 1)));
      if (ended != so_far && ended.ends_with(kReplacementUtf8))
        ended.resize(ended.size() - kReplacementUtf8.size());
      ASSERT_EQ(ended, so_far) << "string " << i << ", token " << cut;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerKind, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param); });

TEST(TokenizerKinds, AreAllTested) {
  std::vector<std::string> names;
  for (const Json& entry : KindsJson()) names.push_back(entry["name"]);
  EXPECT_EQ(names, std::vector<std::string>(std::begin(kKinds), std::end(kKinds)));
}

}  // namespace
}  // namespace perdure::text
