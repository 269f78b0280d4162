#include "cli/output_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/base/temp_folder.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OutputFileTest : public testing::Test {
 protected:
  fs::path Path(const std::string& name) const { return folder_.path() / name; }
  static std::string Text(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  size_t Files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), {}));
  }
  static void Make(const fs::path& path, bool replace, const std::string& text) {
    auto file = OutputFile::Create(path, replace);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE(file->Write(text));
    ASSERT_TRUE(file->Finish());
  }
  TempFolder folder_;
};

TEST_F(OutputFileTest, StandsThereOnceItIsWhole) {
  {
    auto file = OutputFile::Create(Path("a"), false);
    ASSERT_TRUE(file) << file.error().message;
    ASSERT_TRUE(file->Write("one, "));
    EXPECT_FALSE(fs::exists(Path("a")));
    ASSERT_TRUE(file->Write("two"));
    ASSERT_TRUE(file->Finish());
  }
  EXPECT_EQ(Text(Path("a")), "one, two");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(OutputFileTest, IsForItsOwnerAlone) {
  const mode_t before = umask(0);
  Make(Path("a"), false, "text");
  umask(before);
  struct stat st {};
  ASSERT_EQ(stat(Path("a").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  // Also in the place of one that others might read.
  fs::permissions(Path("a"), fs::perms{0644});
  Make(Path("a"), true, "more");
  ASSERT_EQ(stat(Path("a").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST_F(OutputFileTest, LeavesNothingOfWhatWasNotFinished) {
  {
    auto file = OutputFile::Create(Path("a"), false);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->Write("half"));
  }
  EXPECT_EQ(Files(), 0u);
}

TEST_F(OutputFileTest, ReplacesNothingUnasked) {
  Make(Path("a"), false, "old");
  const auto refused = OutputFile::Create(Path("a"), false);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr(Path("a").string() + " exists"));
  EXPECT_THAT(refused.error().message, HasSubstr("--force"));
  EXPECT_EQ(Text(Path("a")), "old");
  Make(Path("a"), true, "new");
  EXPECT_EQ(Text(Path("a")), "new");
  // Nor what has come meanwhile.
  auto file = OutputFile::Create(Path("b"), false);
  ASSERT_TRUE(file);
  std::ofstream(Path("b")) << "another's";
  EXPECT_FALSE(file->Finish());
  EXPECT_EQ(Text(Path("b")), "another's");
  // A link to nowhere is something.
  fs::create_symlink("nowhere", Path("link"));
  EXPECT_FALSE(OutputFile::Create(Path("link"), false));
}

TEST_F(OutputFileTest, ReplacesFilesAlone) {
  fs::create_directory(Path("folder"));
  for (const fs::path& path : {Path("folder"), fs::path("/dev/null")}) {
    const auto refused = OutputFile::Create(path, true);
    ASSERT_FALSE(refused) << path;
    EXPECT_THAT(refused.error().message, HasSubstr("no regular file"));
  }
  EXPECT_FALSE(OutputFile::Create(Path("missing") / "a", true));
}

}  // namespace
}  // namespace perdure::cli
