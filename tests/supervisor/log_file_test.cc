#include "supervisor/log_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/base/temp_folder.h"

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;

std::string Content(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}
void Say(const std::string& text) {
  ASSERT_EQ(write(STDERR_FILENO, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

class LogFileTest : public testing::Test {
 protected:
  LogFileTest() : terminal_(folder_.path() / "terminal"), file_(folder_.path() / "log") {
    saved_.reset(dup(STDERR_FILENO));
    const UniqueFd terminal(open(terminal_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
    dup2(terminal.get(), STDERR_FILENO);
  }
  ~LogFileTest() override { dup2(saved_.get(), STDERR_FILENO); }

  TempFolder folder_;
  fs::path terminal_, file_;
  UniqueFd saved_;
};

TEST_F(LogFileTest, StandardErrorIsTheFileAndComesBack) {
  LogFile log;
  Say("1");
  ASSERT_TRUE(log.Use(file_));
  Say("2");
  EXPECT_EQ(fs::status(file_).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  ASSERT_TRUE(log.Use(folder_.path() / "other"));
  Say("3");
  ASSERT_TRUE(log.Use(file_));
  Say("4");
  ASSERT_TRUE(log.Use({}));
  Say("5");
  ASSERT_TRUE(log.Use({})) << "which it is already";
  EXPECT_EQ(Content(terminal_), "15");
  EXPECT_EQ(Content(file_), "24") << "appended to";
  EXPECT_EQ(Content(folder_.path() / "other"), "3");
}

TEST_F(LogFileTest, WhoRenamesItGetsANewOne) {
  LogFile log;
  ASSERT_TRUE(log.Use(file_));
  Say("1");
  fs::rename(file_, folder_.path() / "log.1");
  Say("2");
  ASSERT_TRUE(log.Reopen());
  Say("3");
  EXPECT_EQ(Content(folder_.path() / "log.1"), "12");
  EXPECT_EQ(Content(file_), "3");
}

TEST_F(LogFileTest, WhatCannotBeOpenedChangesNothing) {
  LogFile log;
  const Status none = log.Use(folder_.path() / "missing" / "log");
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, testing::HasSubstr("missing/log (server.log_file)"));
  Say("1");
  ASSERT_TRUE(log.Use(file_));
  EXPECT_FALSE(log.Use(folder_.path()));
  Say("2");
  EXPECT_EQ(log.path(), file_);
  EXPECT_EQ(Content(terminal_), "1");
  EXPECT_EQ(Content(file_), "2");
}

}  // namespace
}  // namespace perdure::supervisor
