// An environment as its owner uses it.
#include "snapshot/environment.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;

const Content kContent = {{"one", "1"}, {"three", std::string(100'000, '3')}, {"two", "2"}};

class EnvironmentTest : public testing::TestWithParam<bool> {
 protected:
  EnvironmentTest() { Reopen(); }
  void Reopen() {
    environment_.reset();
    environment_ = OpenEnvironment(options_);
    ASSERT_NE(environment_, nullptr);
  }
  Content All(size_t database = 0) {
    auto content = GetAll(environment_.get(), database);
    EXPECT_TRUE(content.has_value()) << content.error().message;
    return content ? *content : Content();
  }
  Status Put(const Content& content) { return PutAll(environment_.get(), content); }
  Database a() { return environment_->database(0); }

  TempFolder folder_;
  const fs::path path_ = folder_.path() / "kv.mdb";
  const EnvironmentOptions options_ = EnvironmentAt(path_, GetParam());
  std::unique_ptr<Environment> environment_;
};

INSTANTIATE_TEST_SUITE_P(Sync, EnvironmentTest, testing::Bool());

TEST_P(EnvironmentTest, KeepsWhatWasWritten) {
  ASSERT_TRUE(Put(kContent).has_value());
  ASSERT_TRUE(PutAll(environment_.get(), {{"one", "another"}}, 1).has_value());
  EXPECT_TRUE(environment_->Sync().has_value());
  Reopen();
  EXPECT_EQ(All(), kContent);
  EXPECT_EQ(All(1), (Content{{"one", "another"}}));
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  EXPECT_EQ(environment_->file_bytes(), static_cast<uint64_t>(st.st_size));
  EXPECT_TRUE(PutAsideOf(path_).empty());
}

TEST_P(EnvironmentTest, AnErrorUndoesAll) {
  ASSERT_TRUE(Put({{"one", "1"}}).has_value());
  const Status status = environment_->Write([&](Transaction& transaction) -> Status {
    RETURN_IF_ERROR(transaction.Put(a(), "one", "changed"));
    RETURN_IF_ERROR(transaction.Put(a(), "two", "2"));
    return Err(ErrorCode::not_found, "it was not meant so");
  });
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::not_found);
  EXPECT_EQ(environment_->last_failure(), Environment::Failure::kNone);
  EXPECT_EQ(All(), (Content{{"one", "1"}}));
  EXPECT_TRUE(Put({{"two", "2"}}).has_value());
}

TEST_P(EnvironmentTest, GetPutDelete) {
  ASSERT_TRUE(Put(kContent).has_value());
  const Status status = environment_->Write([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(const auto none, transaction.Get(a(), "none"));
    EXPECT_FALSE(none.has_value());
    ASSIGN_OR_RETURN(const auto one, transaction.Get(a(), "one"));
    ASSIGN_OR_RETURN(const auto three, transaction.Get(a(), "three"));
    EXPECT_EQ(one, "1");
    EXPECT_EQ(three, kContent.at("three"));
    // A value of the same transaction is put.
    RETURN_IF_ERROR(transaction.Put(a(), "four", *three));
    RETURN_IF_ERROR(transaction.Put(a(), "empty", ""));
    RETURN_IF_ERROR(transaction.Delete(a(), "none"));
    RETURN_IF_ERROR(transaction.Delete(a(), "one"));
    std::string value = "as it was";
    ASSIGN_OR_RETURN(const bool has_one, transaction.GetTo(a(), "one", &value));
    EXPECT_FALSE(has_one);
    ASSIGN_OR_RETURN(const bool has_empty, transaction.GetTo(a(), "empty", &value));
    EXPECT_TRUE(has_empty);
    EXPECT_EQ(value, "");
    return {};
  });
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_EQ(All(), (Content{{"empty", ""},
                            {"four", kContent.at("three")},
                            {"three", kContent.at("three")},
                            {"two", "2"}}));
}

TEST_P(EnvironmentTest, ScansInOrder) {
  ASSERT_TRUE(Put(kContent).has_value());
  std::string seen;
  const auto see = [&](std::string_view key, std::string_view value) {
    seen += fmt::format("{}:{} ", key, value.size());
    return key != "three";
  };
  const auto scan = [&](std::string_view from) {
    seen.clear();
    const Status status = environment_->Read(
        [&](Transaction& transaction) { return transaction.Scan(a(), from, see); });
    EXPECT_TRUE(status.has_value());
    return seen;
  };
  EXPECT_EQ(scan({}), "one:1 three:100000 ");
  EXPECT_EQ(scan("p"), "three:100000 ");
  EXPECT_EQ(scan("three"), "three:100000 ");
  EXPECT_EQ(scan("thref"), "two:1 ");
  EXPECT_EQ(scan("z"), "");
  seen.clear();
  EXPECT_TRUE(environment_
                  ->Read([&](Transaction& transaction) {
                    return transaction.ScanKeys(a(), {}, [&](std::string_view key) {
                      seen += key;
                      return true;
                    });
                  })
                  .has_value());
  EXPECT_EQ(seen, "onethreetwo");
}

TEST_P(EnvironmentTest, KeysThatAreNoneAreErrors) {
  for (const std::string& key : {std::string(), std::string(512, 'k')}) {
    EXPECT_FALSE(Put({{key, "1"}}).has_value());
    EXPECT_FALSE(environment_->is_broken());
  }
  EXPECT_TRUE(Put(kContent).has_value());
}

TEST_P(EnvironmentTest, ASecondOneIsRefused) {
  ASSERT_TRUE(Put(kContent).has_value());
  const auto second = Environment::Open(options_, {"a", "b"});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::overloaded);
  EXPECT_NE(second.error().message.find("in use by another process"), std::string::npos);
  EXPECT_EQ(All(), kContent);
}

TEST_P(EnvironmentTest, AnotherProcessIsRefusedUntilThisOneHasDied) {
  environment_.reset();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto held = Environment::Open(options_, {"a", "b"});
    const char is_held = held.has_value() ? 'y' : 'n';
    if (write(ready[1], &is_held, 1) == 1) pause();
    _exit(1);
  }
  char is_held = 0;
  ASSERT_EQ(read(ready[0], &is_held, 1), 1);
  EXPECT_EQ(is_held, 'y');
  EXPECT_FALSE(Environment::Open(options_, {"a", "b"}).has_value());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(path_.string() + ".lock"));
  Reopen();
  EXPECT_TRUE(Put(kContent).has_value());
  close(ready[0]);
  close(ready[1]);
}

// --- Compaction ----------------------------------------------------------------------------------

TEST_P(EnvironmentTest, CompactLeavesNoTraceOfWhatWasDeleted) {
  // Small and large, beside others and alone on their pages.
  Content content;
  for (int i = 0; i < 500; ++i) {
    const bool is_secret = i % 3 == 0;
    std::string value = is_secret ? "xyzzy" : "plain";
    for (int j = i % 50; j > 0; --j) value += value.substr(0, 5);
    if (i % 100 == 0) value.append(20'000, is_secret ? '!' : '.');
    content[fmt::format("{}{:04}", is_secret ? "secret" : "other", i)] = value;
  }
  ASSERT_TRUE(Put(content).has_value());
  ASSERT_TRUE(PutAll(environment_.get(), {{"b", "2"}}, 1).has_value());
  ASSERT_TRUE(environment_
                  ->Write([&](Transaction& transaction) -> Status {
                    for (const auto& [key, value] : content)
                      if (key.starts_with("secret")) RETURN_IF_ERROR(transaction.Delete(a(), key));
                    return {};
                  })
                  .has_value());
  std::erase_if(content, [](const auto& entry) { return entry.first.starts_with("secret"); });
  ASSERT_NE(BytesOfFile(path_).find("xyzzy"), std::string::npos);
  const uint64_t before = environment_->file_bytes();
  const Status status = environment_->Compact();
  ASSERT_TRUE(status.has_value()) << status.error().message;
  const std::string bytes = BytesOfFile(path_);
  EXPECT_EQ(bytes.find("xyzzy"), std::string::npos);
  EXPECT_EQ(bytes.find("secret"), std::string::npos);
  EXPECT_EQ(bytes.find("!!!!"), std::string::npos);
  EXPECT_LT(environment_->file_bytes(), before);
  EXPECT_LE(environment_->used_bytes(), environment_->file_bytes());
  EXPECT_FALSE(fs::exists(path_.string() + ".compact"));
  EXPECT_EQ(All(), content);
  EXPECT_EQ(All(1), (Content{{"b", "2"}}));
  // It goes on with the new file.
  content["more"] = "and more";
  ASSERT_TRUE(Put({{"more", "and more"}}).has_value());
  Reopen();
  EXPECT_EQ(All(), content);
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_P(EnvironmentTest, CompactsMoreThanOneCommit) {
  Content content;
  for (int i = 0; i < 12; ++i)
    content[fmt::format("{:02}", i)] = std::string(size_t{3} << 20, static_cast<char>('a' + i));
  environment_.reset();
  EnvironmentOptions options = options_;
  options.bytes_max = 64 << 20;
  environment_ = OpenEnvironment(options);
  ASSERT_TRUE(Put(content).has_value());
  const Status status = environment_->Compact();
  ASSERT_TRUE(status.has_value()) << status.error().message;
  EXPECT_EQ(All(), content);
}

TEST_P(EnvironmentTest, WhatACompactionHasLeftIsRemoved) {
  ASSERT_TRUE(Put(kContent).has_value());
  environment_.reset();
  WriteBytes(path_.string() + ".compact", "half of it");
  Reopen();
  EXPECT_FALSE(fs::exists(path_.string() + ".compact"));
  EXPECT_EQ(All(), kContent);
  WriteBytes(path_.string() + ".compact", "half of it");
  EXPECT_TRUE(environment_->Compact().has_value());
  EXPECT_EQ(All(), kContent);
}

TEST_P(EnvironmentTest, UsedBytesAreThoseInUse) {
  const uint64_t empty = environment_->used_bytes();
  EXPECT_GT(empty, 0u);
  ASSERT_TRUE(Put({{"large", std::string(1 << 20, 'l')}}).has_value());
  EXPECT_GE(environment_->used_bytes(), empty + (1 << 20));
  ASSERT_TRUE(
      environment_
          ->Write([&](Transaction& transaction) { return transaction.Delete(a(), "large"); })
          .has_value());
  EXPECT_LT(environment_->used_bytes(), empty + 64 * 4096);
  EXPECT_GE(environment_->file_bytes(), 1u << 20);
}

TEST_P(EnvironmentTest, BeginAnewPutsTheFileAside) {
  ASSERT_TRUE(Put(kContent).has_value());
  ASSERT_TRUE(environment_->BeginAnew("a test said so").has_value());
  EXPECT_EQ(All(), Content());
  ASSERT_TRUE(Put({{"new", "1"}}).has_value());
  const auto aside = PutAsideOf(path_);
  ASSERT_EQ(aside.size(), 1u);
  Reopen();
  EXPECT_EQ(All(), (Content{{"new", "1"}}));
  environment_.reset();
  fs::rename(aside[0], path_);
  Reopen();
  EXPECT_EQ(All(), kContent);
}

// --- What was deleted --------------------------------------------------------------------------

class EnvironmentScrubTest : public EnvironmentTest {
 protected:
  Status Forget(const std::string& key, const Status& then = {}) {
    return environment_->Write([&](Transaction& transaction) -> Status {
      RETURN_IF_ERROR(transaction.NoteDeletion());
      RETURN_IF_ERROR(transaction.Delete(a(), key));
      return then;
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Sync, EnvironmentScrubTest, testing::Bool());

TEST_P(EnvironmentScrubTest, ADeletionIsNotedUntilItIsScrubbed) {
  EXPECT_FALSE(environment_->needs_scrub());
  ASSERT_TRUE(Put(kContent).has_value());
  EXPECT_FALSE(environment_->needs_scrub());
  ASSERT_TRUE(Forget("one").has_value());
  EXPECT_TRUE(environment_->needs_scrub());
  Reopen();
  EXPECT_TRUE(environment_->needs_scrub()) << "whoever opens it next learns of it";
  ASSERT_TRUE(Forget("two").has_value());
  ASSERT_TRUE(environment_->Compact().has_value());
  EXPECT_FALSE(environment_->needs_scrub());
  EXPECT_EQ(All().size(), 1u);
  Reopen();
  EXPECT_FALSE(environment_->needs_scrub());
  ASSERT_TRUE(Forget("three").has_value());
  EXPECT_TRUE(environment_->needs_scrub());
}

TEST_P(EnvironmentScrubTest, ADeletionThatFailsIsNotNoted) {
  ASSERT_TRUE(Put(kContent).has_value());
  EXPECT_FALSE(Forget("one", Err(ErrorCode::not_found, "it was not meant so")).has_value());
  EXPECT_FALSE(environment_->needs_scrub());
  Reopen();
  EXPECT_FALSE(environment_->needs_scrub());
  EXPECT_EQ(All(), kContent);
}

TEST_P(EnvironmentScrubTest, TheNoteIsCommittedWithTheDeletion) {
  ASSERT_TRUE(Put(kContent).has_value());
  const pid_t child = fork();
  if (child == 0) {
    // The lock is the parent's; the file is not touched by it meanwhile.
    (void)environment_->Write([&](Transaction& transaction) -> Status {
      if (!transaction.NoteDeletion() || !transaction.Delete(a(), "one")) _exit(2);
      _exit(7);  // within
    });
    _exit(3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 7);
  Reopen();
  EXPECT_FALSE(environment_->needs_scrub());
  EXPECT_EQ(All(), kContent);
}

TEST_P(EnvironmentScrubTest, ADamagedNoteIsANote) {
  environment_.reset();
  WriteRaw(path_, "meta", std::string(kScrubKey), "x");
  Reopen();
  EXPECT_TRUE(environment_->needs_scrub());
  ASSERT_TRUE(environment_->Compact().has_value());
  environment_.reset();
  EXPECT_EQ(ReadRaw(path_, "meta").size(), 1u);
}

}  // namespace
}  // namespace perdure::snapshot
