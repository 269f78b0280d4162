// safetensors files, good and bad: every bad one ends in an error that names the file, the tensor
// and the reason.

#include "engine/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/weights/checkpoint.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string FileOf(uint64_t header_length, const std::string& header, const std::string& data) {
  std::string bytes(reinterpret_cast<const char*>(&header_length), sizeof header_length);
  return bytes + header + data;
}
std::string FileOf(const std::string& header, const std::string& data) {
  return FileOf(header.size(), header, data);
}
std::string Entry(const std::string& shape, const std::string& offsets,
                  const std::string& dtype = "F32") {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}
const std::string kEight(8, 'x');

struct BadFile {
  const char* name;
  std::string bytes;
  std::vector<const char*> reasons;
};

std::vector<BadFile> BadFiles() {
  const std::string two = R"({"a":)" + Entry("[1]", "[0,4]");
  std::string deep(200, '['), nested;
  nested = R"({"a":)" + deep + std::string(200, ']') + "}";
  return {
      {"Empty", "", {"0 bytes are too few"}},
      {"SevenBytes", "1234567", {"7 bytes are too few"}},
      {"HeaderLengthZero", FileOf(0, "", ""), {"header length is 0"}},
      {"HeaderLengthAboveTheLimit", FileOf(100'000'001, "{}", ""), {"100000001", "limit"}},
      {"HeaderLengthHuge", FileOf(~uint64_t{0}, "{}", ""), {"18446744073709551615", "limit"}},
      {"HeaderLengthPastTheEnd", FileOf(3, "{}", ""), {"past the end"}},
      {"HeaderNotJson", FileOf("{\"a\":", ""), {"not valid JSON"}},
      {"HeaderNotAnObject", FileOf("[1]", ""), {"array, not an object"}},
      {"HeaderNotUtf8", FileOf("{\"\xff\":1}", ""), {"not valid JSON"}},
      {"HeaderNested", FileOf(nested, ""), {"nested deeper"}},
      {"DuplicateName",
       FileOf(two + R"(,"a":)" + Entry("[1]", "[4,8]") + "}", kEight),
       {"\"a\" stands twice"}},
      {"MetadataNotAnObject", FileOf(R"({"__metadata__":3})", ""), {"__metadata__"}},
      {"EntryNotAnObject", FileOf(R"({"a":3})", ""), {"tensor a", "integer, not an object"}},
      {"NoDType",
       FileOf(R"({"a":{"shape":[],"data_offsets":[0,4]}})", "1234"),
       {"tensor a", "dtype is missing"}},
      {"UnknownDType",
       FileOf("{\"a\":" + Entry("[1]", "[0,4]", "Q4_K") + "}", "1234"),
       {"tensor a", "unknown dtype \"Q4_K\""}},
      {"NoShape",
       FileOf(R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", "1234"),
       {"tensor a", "shape is missing"}},
      {"NegativeSize",
       FileOf("{\"a\":" + Entry("[-1]", "[0,4]") + "}", "1234"),
       {"tensor a", "[-1]", "no size"}},
      {"FractionalSize",
       FileOf("{\"a\":" + Entry("[1.5]", "[0,4]") + "}", "1234"),
       {"tensor a", "no size"}},
      {"SizeOf2To64",
       FileOf("{\"a\":" + Entry("[18446744073709551616]", "[0,4]") + "}", "1234"),
       {"tensor a", "no size"}},
      {"SizeOf2To63",
       FileOf("{\"a\":" + Entry("[9223372036854775808]", "[0,4]") + "}", "1234"),
       {"tensor a", "no size"}},
      {"ShapeProductOverflows",
       FileOf("{\"a\":" + Entry("[4294967296,4294967296,4]", "[0,4]") + "}", "1234"),
       {"tensor a", "overflows"}},
      {"ShapeBytesOverflow",
       FileOf("{\"a\":" + Entry("[4611686018427387904]", "[0,0]") + "}", ""),
       {"tensor a", "overflows"}},
      {"NoOffsets",
       FileOf(R"({"a":{"dtype":"F32","shape":[1]}})", "1234"),
       {"tensor a", "data_offsets is missing"}},
      {"ThreeOffsets",
       FileOf("{\"a\":" + Entry("[1]", "[0,4,8]") + "}", "1234"),
       {"tensor a", "not a pair"}},
      {"NegativeOffsets",
       FileOf("{\"a\":" + Entry("[1]", "[-4,0]") + "}", "1234"),
       {"tensor a", "[-4,0]"}},
      {"ReversedOffsets",
       FileOf("{\"a\":" + Entry("[1]", "[4,0]") + "}", "1234"),
       {"tensor a", "[4, 0]", "reversed"}},
      {"OffsetsPastTheEnd",
       FileOf("{\"a\":" + Entry("[2]", "[0,8]") + "}", "1234"),
       {"tensor a", "past the 4 bytes"}},
      {"OffsetsHuge",
       FileOf("{\"a\":" + Entry("[1]", "[18446744073709551612,18446744073709551615]") + "}",
              "1234"),
       {"tensor a", "past the 4 bytes"}},
      {"TooFewBytes",
       FileOf("{\"a\":" + Entry("[2]", "[0,4]") + "}", "1234"),
       {"tensor a", "need 8 bytes", "give 4"}},
      {"TooManyBytes",
       FileOf("{\"a\":" + Entry("[1]", "[0,8]") + "}", kEight),
       {"tensor a", "need 4 bytes", "give 8"}},
      {"Overlap",
       FileOf(two + R"(,"b":)" + Entry("[1]", "[2,6]") + "}", "123456"),
       {"tensor b", "overlap"}},
      {"SameBytesTwice",
       FileOf(two + R"(,"b":)" + Entry("[1]", "[0,4]") + "}", "1234"),
       {"tensor b", "overlap"}},
      {"Hole",
       FileOf(two + R"(,"b":)" + Entry("[1]", "[6,10]") + "}", "1234567890"),
       {"tensor b", "2 bytes before it"}},
      {"HoleAtTheBegin",
       FileOf("{\"a\":" + Entry("[1]", "[4,8]") + "}", kEight),
       {"tensor a", "4 bytes before it"}},
      {"BytesAfterTheLast", FileOf(two + "}", kEight), {"last 4 bytes"}},
  };
}

TEST(SafetensorsTest, BadFilesAreRefused) {
  TempDir dir;
  const std::filesystem::path path = dir.path() / "model.safetensors";
  for (const BadFile& bad : BadFiles()) {
    SCOPED_TRACE(bad.name);
    WriteText(path, bad.bytes);
    const auto file = SafetensorsFile::Open(path);
    ASSERT_FALSE(file.has_value());
    EXPECT_EQ(file.error().code, ErrorCode::bad_model);
    EXPECT_THAT(file.error().message, HasSubstr(path.string()));
    for (const char* reason : bad.reasons) EXPECT_THAT(file.error().message, HasSubstr(reason));
  }
}

TEST(SafetensorsTest, GoodFilesAreRead) {
  TempDir dir;
  const std::filesystem::path path = dir.path() / "model.safetensors";
  // Order of names other than that of bytes, an empty tensor, a scalar, padding.
  WriteText(path, FileOf(R"({"b":)" + Entry("[1,2]", "[4,8]", "BF16") + R"(,"a":)" +
                             Entry("[]", "[0,4]") + R"(,"none":)" + Entry("[3,0]", "[4,4]") +
                             R"(,"__metadata__":{"format":"mlx"}}   )",
                         "abcdefgh"));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 3u);
  const TensorInfo* b = file->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::kBf16);
  EXPECT_EQ(b->shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(b->data.size(), 4u);
  EXPECT_EQ(static_cast<char>(b->data[0]), 'e');
  EXPECT_EQ(file->Find("__metadata__"), nullptr);
  EXPECT_TRUE(file->Find("none")->data.empty());

  for (const char* header : {"{}", R"({"__metadata__":null})"}) {
    WriteText(path, FileOf(header, ""));
    EXPECT_TRUE(SafetensorsFile::Open(path).has_value()) << header;
  }
}

TEST(SafetensorsTest, MissingFilesAndFoldersAreErrors) {
  TempDir dir;
  EXPECT_EQ(SafetensorsFile::Open(dir.path() / "none").error().code, ErrorCode::io_error);
  EXPECT_EQ(SafetensorsFile::Open(dir.path()).error().code, ErrorCode::io_error);
}

// Whatever a byte of the header becomes: a file that is read or an error, and no access outside.
TEST(SafetensorsTest, AnyDamageIsAnErrorOrHarmless) {
  TempDir dir;
  const std::filesystem::path path = dir.path() / "model.safetensors";
  const std::string good =
      FileOf(R"({"a":)" + Entry("[2]", "[0,8]") + R"(,"b":)" + Entry("[2,1]", "[8,16]") + "}",
             std::string(16, 'z'));
  std::mt19937_64 random(3);
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = good;
    for (uint64_t n = random() % 3 + 1; n > 0; --n)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (round % 5 == 0) bytes.resize(random() % bytes.size());
    WriteText(path, bytes);
    const auto file = SafetensorsFile::Open(path);
    if (!file) continue;
    unsigned sum = 0;
    for (const TensorInfo& tensor : file->tensors())
      for (std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
    EXPECT_GE(sum, 0u);
  }
}

// --- Shards --------------------------------------------------------------------------------------

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteText(dir_.path() / "one.safetensors", SafetensorsBytes({{"a", "F32", {1}, "1234"}}));
    WriteText(dir_.path() / "two.safetensors", SafetensorsBytes({{"b", "F32", {1}, "5678"}}));
  }
  Result<Checkpoint> WithIndex(const std::string& index) {
    WriteText(dir_.path() / "model.safetensors.index.json", index);
    return Checkpoint::Open(dir_.path());
  }
  TempDir dir_;
};

TEST_F(CheckpointTest, ShardsAreJoined) {
  const auto checkpoint =
      WithIndex(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(static_cast<char>(checkpoint->Find("b")->data[0]), '5');
  EXPECT_EQ(checkpoint->data_bytes(), 8u);
  EXPECT_TRUE(checkpoint->Get("a", std::vector<int64_t>{1}).has_value());
  EXPECT_THAT(checkpoint->Get("a", std::vector<int64_t>{1, 1}).error().message,
              AllOf(HasSubstr("one.safetensors"), HasSubstr("tensor a"), HasSubstr("[1]"),
                    HasSubstr("[1, 1]")));
  EXPECT_THAT(checkpoint->Get("c", std::vector<int64_t>{1}).error().message,
              HasSubstr("tensor c is missing"));
}

TEST_F(CheckpointTest, BadIndexesAreRefused) {
  struct Row {
    const char* index;
    const char* reason;
  };
  const Row rows[] = {
      {"{", "not valid JSON"},
      {"[]", "weight_map is missing"},
      {"{}", "weight_map is missing"},
      {R"({"weight_map":[]})", "weight_map is missing"},
      {R"({"weight_map":{}})", "weight_map is empty"},
      {R"({"weight_map":{"a":1}})", "tensor a is no string"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "not a file of this folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "not a file of this folder"},
      {R"({"weight_map":{"a":".."}})", "not a file of this folder"},
      {R"({"weight_map":{"a":"x/one.safetensors"}})", "not a file of this folder"},
      {R"({"weight_map":{"a":"x\\one.safetensors"}})", "not a file of this folder"},
      {R"({"weight_map":{"a":"one.safetensors\u0000"}})", "not a file of this folder"},
      {R"({"weight_map":{"a":""}})", "not a file of this folder"},
      {R"({"weight_map":{"a":"three.safetensors"}})",
       "1 of 1 shards are missing from the folder: three.safetensors"},
      {R"({"weight_map":{"a":"one.safetensors","b":"4.safetensors","c":"3.safetensors"}})",
       "2 of 3 shards are missing from the folder: 3.safetensors, 4.safetensors"},
      {R"({"weight_map":{"a":"two.safetensors"}})", "tensor a is not in its shard two.safetensors"},
      {R"({"weight_map":{"a":"one.safetensors","a":"two.safetensors"}})", "stands twice"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.index);
    const auto checkpoint = WithIndex(row.index);
    ASSERT_FALSE(checkpoint.has_value());
    EXPECT_EQ(checkpoint.error().code, ErrorCode::bad_model);
    EXPECT_THAT(checkpoint.error().message,
                AllOf(HasSubstr("model.safetensors.index.json"), HasSubstr(row.reason)));
  }
}

TEST_F(CheckpointTest, FoldersWithoutWeightsSayWhatIsThere) {
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_FALSE(checkpoint.has_value());
  EXPECT_THAT(checkpoint.error().message,
              AllOf(HasSubstr(dir_.path().string()), HasSubstr("neither model.safetensors"),
                    HasSubstr("there is")));
}

}  // namespace
}  // namespace perdure::engine
