#include "base/private_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "tests/base/temp_folder.h"

namespace perdure {
namespace {

std::string BytesIn(int fd, uint64_t offset, size_t bytes) {
  std::string text(bytes, '\0');
  const auto got = ReadAt(fd, offset, std::as_writable_bytes(std::span(text)), "it");
  EXPECT_TRUE(got);
  text.resize(got.value_or(0));
  return text;
}

TEST(PrivateFile, OneWithoutANameIsNowhere) {
  const TempFolder folder;
  const mode_t mask = umask(0);
  const auto fd = OpenUnlinkedFile(folder.path());
  umask(mask);
  ASSERT_TRUE(fd) << fd.error().message;
  struct stat st {};
  ASSERT_EQ(fstat(fd->get(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_EQ(st.st_nlink, 0u);
  ASSERT_TRUE(WriteAll(fd->get(), "hello ", "it"));
  ASSERT_TRUE(WriteAll(fd->get(), "world", "it"));
  ASSERT_TRUE(WriteAt(fd->get(), 1, "a", "it"));
  EXPECT_EQ(BytesIn(fd->get(), 0, 11), "hallo world");
  EXPECT_EQ(BytesIn(fd->get(), 6, 100), "world") << "as much as there is";
  EXPECT_EQ(BytesIn(fd->get(), 100, 1), "");
  EXPECT_EQ(*BytesOfFile(fd->get(), "it"), 11u);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_FALSE(OpenUnlinkedFile(folder.path() / "none"));
}

TEST(PrivateFile, OneWithANameIsNew) {
  const TempFolder folder;
  const auto path = folder.path() / "file";
  ASSERT_TRUE(CreateFile(path));
  const auto again = CreateFile(path);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::io_error);
  std::filesystem::create_symlink(folder.path() / "other", folder.path() / "link");
  EXPECT_FALSE(CreateFile(folder.path() / "link"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "other"));
}

TEST(PrivateFile, ADiskWithoutRoomHasAnErrorOfItsOwn) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  for (const Status& status :
       {WriteAll(full.get(), "x", "it"), WriteAt(full.get(), 0, "x", "it")}) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ErrorCode::insufficient_storage);
    EXPECT_EQ(status.error().message, "cannot write it: No space left on device");
  }
  EXPECT_EQ(WriteAll(-1, "x", "it").error().code, ErrorCode::io_error);
}

}  // namespace
}  // namespace perdure
