// Copies of environments that are written meanwhile, and environments that are only looked at.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <functional>
#include <random>
#include <string>

#include "base/limits.h"
#include "snapshot/copy_file.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/failing_disk.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string Key(uint64_t number) { return fmt::format("{:06}", number); }

class EnvironmentCopyTest : public testing::Test {
 protected:
  // Copies all of it; `between` is called after each portion but the last. The number of portions.
  int Copy(Environment* environment, const std::function<void()>& between = nullptr) {
    fs::remove(copy_);
    auto copy = CopyFile::Begin(copy_, environment->file_bytes());
    EXPECT_TRUE(copy.has_value()) << copy.error().message;
    environment->BeginCopy();
    for (int portions = 1;; ++portions) {
      const auto portion = environment->NextPortion();
      EXPECT_TRUE(portion.has_value()) << portion.error().message;
      if (!portion) return -1;
      const Status applied = (*copy)->Apply(*portion);
      EXPECT_TRUE(applied.has_value()) << applied.error().message;
      if (portion->is_last) {
        EXPECT_TRUE((*copy)->Finish().has_value());
        return portions;
      }
      if (between) between();
    }
  }
  void ExpectSame(Environment* environment) {
    auto copied = OpenEnvironment(EnvironmentAt(copy_));
    ASSERT_NE(copied, nullptr);
    for (const size_t database : {0, 1})
      EXPECT_TRUE(*GetAll(copied.get(), database) == *GetAll(environment, database)) << database;
  }

  const TempFolder folder_;
  const fs::path file_ = folder_.path() / "kv.mdb", copy_ = folder_.path() / "copy.mdb";
};

TEST_F(EnvironmentCopyTest, HasAllAndNothingFree) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  Content content;
  for (uint64_t i = 0; i < 400; ++i) content[Key(i)] = std::string(10'000, static_cast<char>(i));
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  ASSERT_TRUE(PutAll(environment.get(), {{"x", "y"}}, 1).has_value());
  ASSERT_TRUE(environment
                  ->Write([&](Transaction& transaction) -> Status {
                    for (uint64_t i = 0; i < 300; ++i)
                      RETURN_IF_ERROR(transaction.Delete(environment->database(0), Key(i)));
                    return {};
                  })
                  .has_value());
  Copy(environment.get());
  ExpectSame(environment.get());
  EXPECT_LT(fs::file_size(copy_), fs::file_size(file_) / 3);
  struct stat st {};
  ASSERT_EQ(stat(copy_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

// Whatever is written between two portions, in all orders: the copy is as the file is at the end.
TEST_F(EnvironmentCopyTest, FollowsWhatIsWrittenMeanwhile) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    SCOPED_TRACE(seed);
    fs::remove(file_);
    std::mt19937_64 random(seed);
    EnvironmentOptions options = EnvironmentAt(file_);
    options.bytes_max = 64 << 20;
    auto environment = OpenEnvironment(options);
    const auto change = [&](int times) {
      const Status written = environment->Write([&](Transaction& transaction) -> Status {
        for (int i = 0; i < times; ++i) {
          const Database database = environment->database(random() % 2);
          const std::string key = Key(random() % 400);
          if (random() % 4 == 0)
            RETURN_IF_ERROR(transaction.Delete(database, key));
          else
            RETURN_IF_ERROR(transaction.Put(
                database, key, std::string(random() % 40'000, static_cast<char>(random()))));
        }
        return {};
      });
      ASSERT_TRUE(written.has_value()) << written.error().message;
    };
    change(600);
    int changes = 0;
    const int portions = Copy(environment.get(), [&] {
      if (++changes > 40) return;
      change(1 + static_cast<int>(random() % 20));
      // Its databases have other numbers afterwards, perhaps.
      if (changes % 7 == 0) {
        ASSERT_TRUE(environment->Compact().has_value());
      }
    });
    EXPECT_GT(portions, 5);
    ExpectSame(environment.get());
  }
}

TEST_F(EnvironmentCopyTest, LeavesNoTraceOfWhatWasDeletedMeanwhile) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  const std::string secret = "the quick brown fox", changed = "jumps over the lazy dog";
  Content content;
  for (uint64_t i = 0; i < 400; ++i) content[Key(i)] = std::string(9'000, 'a');
  content[Key(3)] = secret + std::string(9'000, 'b');
  content[Key(5)] = changed + std::string(9'000, 'c');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  int portions = 0;
  Copy(environment.get(), [&] {
    if (++portions != 2) return;
    const Status written = environment->Write([&](Transaction& transaction) -> Status {
      RETURN_IF_ERROR(transaction.Delete(environment->database(0), Key(3)));
      return transaction.Put(environment->database(0), Key(5), "other");
    });
    ASSERT_TRUE(written.has_value());
  });
  const std::string bytes = BytesOfFile(copy_);
  EXPECT_EQ(bytes.find(secret), std::string::npos);
  EXPECT_EQ(bytes.find(changed), std::string::npos);
  EXPECT_FALSE(fs::exists(copy_.string() + ".compact"));
  ExpectSame(environment.get());
}

TEST_F(EnvironmentCopyTest, WhatWasNotWrittenAfterAllChangesNothing) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  Content content;
  for (uint64_t i = 0; i < 400; ++i) content[Key(i)] = std::string(9'000, 'a');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  Copy(environment.get(), [&] {
    const Status written = environment->Write([&](Transaction& transaction) -> Status {
      RETURN_IF_ERROR(transaction.Put(environment->database(0), Key(0), "other"));
      return Err(ErrorCode::io_error, "not after all");
    });
    ASSERT_FALSE(written.has_value());
  });
  ExpectSame(environment.get());
}

TEST_F(EnvironmentCopyTest, APortionIsSmall) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  Content content;
  for (uint64_t i = 0; i < 100; ++i) content[Key(i)] = std::string(100'000, 'a');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  environment->BeginCopy();
  for (bool is_last = false; !is_last;) {
    const auto portion = environment->NextPortion();
    ASSERT_TRUE(portion.has_value());
    is_last = portion->is_last;
    size_t bytes = 0;
    for (const CopiedRecord& record : portion->records)
      bytes += record.value ? record.value->size() : 0;
    EXPECT_LE(bytes, limits::kCopyPortionBytes + 100'000);
  }
  EXPECT_FALSE(environment->is_copied());
}

TEST_F(EnvironmentCopyTest, OfAFileThatIsBegunAnewIsAnError) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  environment->BeginCopy();
  ASSERT_TRUE(environment->NextPortion().has_value());
  ASSERT_TRUE(environment->BeginAnew("it is broken").has_value());
  const auto portion = environment->NextPortion();
  ASSERT_FALSE(portion.has_value());
  EXPECT_THAT(portion.error().message, HasSubstr("opened anew"));
}

TEST_F(EnvironmentCopyTest, HasDatabasesThatAreEmpty) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  Copy(environment.get());
  EnvironmentOptions options = EnvironmentAt(copy_);
  options.read_only = true;
  options.lock = false;
  EXPECT_NE(OpenEnvironment(options), nullptr);
  ExpectSame(environment.get());
}

// Of a newer version, say.
TEST_F(EnvironmentCopyTest, HasDatabasesThatNobodyKnows) {
  {
    auto newer = Environment::Open(EnvironmentAt(file_), {"a", "b", "later"});
    ASSERT_TRUE(newer.has_value());
    ASSERT_TRUE(PutAll(newer->get(), {{"k", "v"}}, 2).has_value());
  }
  {
    auto environment = OpenEnvironment(EnvironmentAt(file_));
    Copy(environment.get());
  }
  auto copied = Environment::Open(EnvironmentAt(copy_), {"a", "b", "later"});
  ASSERT_TRUE(copied.has_value());
  EXPECT_EQ(*GetAll(copied->get(), 2), (Content{{"k", "v"}}));
}

// Whichever of its writes and syncs fails.
TEST_F(EnvironmentCopyTest, AFullDiskIsSaid) {
  auto environment = OpenEnvironment(EnvironmentAt(file_));
  Content content;
  for (uint64_t i = 0; i < 50; ++i) content[Key(i)] = std::string(50'000, 'a');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  const auto run = [&]() -> Status {
    fs::remove(copy_);
    ASSIGN_OR_RETURN(const auto copy, CopyFile::Begin(copy_, environment->file_bytes()));
    environment->BeginCopy();
    for (bool is_last = false; !is_last;) {
      ASSIGN_OR_RETURN(const Portion portion, environment->NextPortion());
      is_last = portion.is_last;
      RETURN_IF_ERROR(copy->Apply(portion));
    }
    return copy->Finish();
  };
  int failures = 0;
  for (size_t at = 0;; ++at) {
    FailingDisk disk(at, ENOSPC);
    const Status status = run();
    if (disk.calls() <= at) {
      EXPECT_TRUE(status.has_value());
      break;
    }
    ++failures;
    ASSERT_FALSE(status.has_value()) << at;
    EXPECT_THAT(status.error().message, HasSubstr("its disk is full; free some space there"));
  }
  EXPECT_GT(failures, 3);
}

// --- Only looking --------------------------------------------------------------------------------

EnvironmentOptions ToRead(const fs::path& file) {
  EnvironmentOptions options = EnvironmentAt(file);
  options.read_only = true;
  options.lock = false;
  return options;
}

TEST_F(EnvironmentCopyTest, LookingChangesNothing) {
  {
    auto environment = OpenEnvironment(EnvironmentAt(file_));
    ASSERT_TRUE(PutAll(environment.get(), {{"k", "v"}}).has_value());
  }
  fs::remove(folder_.path() / "kv.mdb.lock");
  ASSERT_EQ(chmod(file_.c_str(), 0444), 0);
  const std::string before = BytesOfFile(file_);
  auto environment = OpenEnvironment(ToRead(file_));
  ASSERT_NE(environment, nullptr);
  EXPECT_EQ(*GetAll(environment.get()), (Content{{"k", "v"}}));
  EXPECT_FALSE(PutAll(environment.get(), {{"k", "w"}}).has_value());
  EXPECT_EQ(*GetAll(environment.get()), (Content{{"k", "v"}}));
  environment.reset();
  EXPECT_EQ(BytesOfFile(file_), before);
  EXPECT_FALSE(fs::exists(folder_.path() / "kv.mdb.lock"));
  struct stat st {};
  ASSERT_EQ(stat(file_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0444u);
}

TEST_F(EnvironmentCopyTest, LookingPutsNothingAside) {
  const auto refusal = [&](const EnvironmentOptions& options) {
    const auto opened = Environment::Open(options, {"a", "b"});
    EXPECT_FALSE(opened.has_value());
    return opened ? std::string() : opened.error().message;
  };
  EXPECT_THAT(refusal(ToRead(file_)), HasSubstr("No such file"));
  EXPECT_FALSE(fs::exists(file_));
  WriteBytes(file_, "");
  EXPECT_THAT(refusal(ToRead(file_)), HasSubstr("is not a file of conversations, or damaged"));
  EXPECT_TRUE(fs::exists(file_));
  WriteBytes(file_, std::string(100'000, 'x'));
  EXPECT_THAT(refusal(ToRead(file_)), HasSubstr("is not a file of conversations, or damaged"));
  fs::remove(file_);
  OpenEnvironment(EnvironmentAt(file_));
  EnvironmentOptions other = ToRead(file_);
  other.model = "another";
  EXPECT_THAT(refusal(other), HasSubstr("is of the model nano, not of another"));
  EXPECT_THAT(PutAsideOf(file_), testing::IsEmpty());
  // Databases that it should have are not made.
  const auto more = Environment::Open(ToRead(file_), {"a", "b", "c"});
  ASSERT_FALSE(more.has_value());
  EXPECT_THAT(more.error().message, HasSubstr("it is damaged"));
}

}  // namespace
}  // namespace perdure::snapshot
