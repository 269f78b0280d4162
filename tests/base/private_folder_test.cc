#include "base/private_folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "base/unique_fd.h"
#include "tests/base/temp_folder.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(PrivateFolder, IsMadeForOneUser) {
  const TempFolder folder;
  const fs::path path = folder.path() / "a/b";
  ASSERT_TRUE(PrepareFolder(path, "folder").has_value());
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  EXPECT_TRUE(CheckFolder(path, "folder").has_value());
  EXPECT_FALSE(CheckFolder(folder.path() / "none", "folder").has_value());
  EXPECT_FALSE(fs::exists(folder.path() / "none"));
  EXPECT_TRUE(PrepareFolder(path, "folder").has_value());
  fs::permissions(path, fs::perms::group_write, fs::perm_options::add);
  EXPECT_THAT(PrepareFolder(path, "folder").error().message, HasSubstr("chmod 700"));
  const UniqueFd file(open((folder.path() / "file").c_str(), O_CREAT | O_WRONLY, 0600));
  EXPECT_FALSE(PrepareFolder(folder.path() / "file", "folder").has_value());
  EXPECT_FALSE(PrepareFolder(folder.path() / "file/x", "folder").has_value());
}

}  // namespace
}  // namespace perdure
