#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace perdure {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "perdure-file-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(FileTest, WritesAndReads) {
  const fs::path path = folder_ / "a";
  ASSERT_TRUE(WriteFileAtomically(path, "one", 0600));
  ASSERT_TRUE(WriteFileAtomically(path, "two", 0600));
  const auto text = ReadFile(path, 100);
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, ErrorsNameThePath) {
  const auto missing = ReadFile(folder_ / "missing", 100);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find((folder_ / "missing").string()), std::string::npos);

  std::ofstream(folder_ / "large") << std::string(101, 'x');
  EXPECT_FALSE(ReadFile(folder_ / "large", 100));
  EXPECT_FALSE(ReadFile(folder_, 100)) << "a folder is no file";
  EXPECT_FALSE(MappedFile::Open(folder_ / "missing"));
}

TEST_F(FileTest, AFifoDoesNotHang) {
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(ReadFile(folder_ / "fifo", 100));
}

TEST_F(FileTest, MapsAndMoves) {
  std::ofstream(folder_ / "m") << "hello";
  std::ofstream(folder_ / "empty");
  auto mapped = MappedFile::Open(folder_ / "m");
  ASSERT_TRUE(mapped);
  MappedFile moved = std::move(*mapped);
  ASSERT_EQ(moved.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(moved.bytes()[1]), 'e');
  const auto empty = MappedFile::Open(folder_ / "empty");
  ASSERT_TRUE(empty);
  EXPECT_TRUE(empty->bytes().empty());
}

TEST_F(FileTest, ReadsFilesThatSayTheyAreEmpty) {
  const auto text = ReadFile("/proc/self/status", 1 << 20);
  ASSERT_TRUE(text);
  EXPECT_NE(text->find("Pid:"), std::string::npos);
}

}  // namespace
}  // namespace perdure
