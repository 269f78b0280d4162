// What stands in the place of an environment without being one, or being a damaged one.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <lmdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "base/codec.h"
#include "base/limits.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;
using Failure = Environment::Failure;

constexpr size_t kPage = 4096;

class DamageTest : public testing::Test {
 protected:
  void Fill(const Content& content = {{"one", "1"}, {"large", std::string(100'000, 'l')}}) {
    ASSERT_TRUE(PutAll(OpenEnvironment(options_).get(), content).has_value());
  }
  // A new one is begun, and the old one is kept with these bytes.
  void ExpectPutAside(const std::string& bytes) {
    const auto environment = OpenEnvironment(options_);
    ASSERT_NE(environment, nullptr);
    EXPECT_EQ(*GetAll(environment.get()), Content());
    EXPECT_TRUE(PutAll(environment.get(), {{"new", "1"}}).has_value());
    const auto aside = PutAsideOf(path_);
    ASSERT_EQ(aside.size(), 1u);
    EXPECT_EQ(BytesOfFile(aside[0]), bytes);
  }
  void ExpectRefused(std::string_view why) {
    const auto opened = Environment::Open(options_, {"a", "b"});
    ASSERT_FALSE(opened.has_value());
    EXPECT_NE(opened.error().message.find(why), std::string::npos) << opened.error().message;
    EXPECT_TRUE(PutAsideOf(path_).empty());
  }
  void PutFormat(const std::string& record) {
    WriteRaw(path_, "meta", std::string(kFormatKey), record);
  }

  const TempFolder folder_;
  const fs::path path_ = folder_.path() / "kv.mdb";
  const EnvironmentOptions options_ = EnvironmentAt(path_);
};

TEST_F(DamageTest, GarbageIsPutAside) {
  for (const size_t bytes : {size_t{1}, size_t{100}, kPage, 2 * kPage, size_t{100'000}}) {
    for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
    const std::string garbage(bytes, bytes % 2 == 0 ? '\0' : 'g');
    WriteBytes(path_, garbage);
    ExpectPutAside(garbage);
  }
}

TEST_F(DamageTest, AnEmptyFileIsANewOne) {
  WriteBytes(path_, "");
  fs::permissions(path_, fs::perms::all);
  const auto environment = OpenEnvironment(options_);
  EXPECT_EQ(*GetAll(environment.get()), Content());
  EXPECT_TRUE(PutAsideOf(path_).empty());
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(DamageTest, WhatIsNoFileIsRefused) {
  fs::create_directory(path_);
  ExpectRefused("is not a regular file");
  fs::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  ExpectRefused("is not a regular file");
  fs::remove(path_);
  fs::create_symlink(folder_.path() / "elsewhere", path_);
  ExpectRefused("is a symbolic link");
  EXPECT_FALSE(fs::exists(folder_.path() / "elsewhere"));
  fs::remove(path_);
  fs::create_symlink(folder_.path() / "elsewhere", path_.string() + ".lockx");
  fs::remove(path_.string() + ".lock");
  fs::rename(path_.string() + ".lockx", path_.string() + ".lock");
  ExpectRefused("is a symbolic link");
}

TEST_F(DamageTest, AFileOfSomebodyElseIsRefused) {
  Fill();
  if (chown(path_.c_str(), 12345, 12345) != 0) GTEST_SKIP() << "only root may give files away";
  ExpectRefused("belongs to user 12345");
}

TEST_F(DamageTest, AFolderThatIsNotThereIsAnError) {
  EnvironmentOptions options = options_;
  options.file = folder_.path() / "none" / "kv.mdb";
  const auto opened = Environment::Open(options, {"a"});
  ASSERT_FALSE(opened.has_value());
  EXPECT_EQ(opened.error().code, ErrorCode::io_error);
}

TEST_F(DamageTest, TheNewestThreeAreKept) {
  // Never one in the place of another, even within a second.
  for (int i = 0; i < 5; ++i) {
    WriteBytes(path_, fmt::format("garbage {}", i));
    OpenEnvironment(options_);
  }
  WriteBytes(path_.string() + ".damaged-by-hand", "kept");
  WriteBytes(path_, "garbage 5");
  OpenEnvironment(options_);
  std::vector<std::string> texts;
  for (const auto& aside : PutAsideOf(path_)) texts.push_back(BytesOfFile(aside));
  EXPECT_EQ(texts, (std::vector<std::string>{"garbage 3", "garbage 4", "garbage 5", "kept"}));
}

// --- The format record ---------------------------------------------------------------------------

TEST_F(DamageTest, OfAnotherModelOrEnvironment) {
  for (const bool is_model : {true, false}) {
    for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
    EnvironmentOptions other = options_;
    (is_model ? other.model : other.name) = "other";
    fs::remove(path_);
    ASSERT_TRUE(PutAll(OpenEnvironment(other).get(), {{"one", "1"}}).has_value());
    ExpectPutAside(BytesOfFile(path_));
  }
}

TEST_F(DamageTest, WithADamagedFormatRecord) {
  Fill();
  std::string record = ReadRaw(path_, "meta").at(std::string(kFormatKey));
  const std::string original = BytesOfFile(path_);
  std::vector<std::string> wrong = {"",
                                    "short",
                                    record + "x",
                                    Seal("else", FormatRecord{}),
                                    SealRecord(RecordKind::kPage, 1, kFormatKey, "x"),
                                    SealRecord(RecordKind::kFormat, 1, kFormatKey, "xyz")};
  for (size_t byte = 0; byte < record.size(); ++byte) {
    wrong.push_back(record);
    wrong.back()[byte] ^= static_cast<char>(1 << byte % 8);
  }
  for (const std::string& text : wrong) {
    for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
    WriteBytes(path_, original);
    PutFormat(text);
    ExpectPutAside(BytesOfFile(path_));
  }
  for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
  WriteBytes(path_, original);
  WriteRaw(path_, "meta", std::string(kFormatKey), std::nullopt);
  ExpectPutAside(BytesOfFile(path_));
}

TEST_F(DamageTest, OfANewerFormat) {
  Fill();
  FormatRecord format;
  format.version = kFormatVersion + 2;
  format.reader_min = kFormatVersion + 1;
  format.environment = "kv";
  format.model = "nano";
  for (const uint16_t version : {1, 2}) {
    std::string payload = Encode(format);
    if (version == 2) payload += "and more";
    PutFormat(SealRecord(RecordKind::kFormat, version, kFormatKey, payload));
    const std::string bytes = BytesOfFile(path_);
    ExpectRefused(
        "was written by a newer version of Perdure (format 3, this one reads up to 1): use that "
        "version, or move kv.mdb away");
    EXPECT_EQ(BytesOfFile(path_), bytes);
  }
  // One that this code may still read.
  format.reader_min = kFormatVersion;
  PutFormat(SealRecord(RecordKind::kFormat, 2, kFormatKey, Encode(format) + "and more"));
  EXPECT_EQ(GetAll(OpenEnvironment(options_).get())->size(), 2u);
}

TEST_F(DamageTest, SomebodyElsesDatabase) {
  MDB_env* env = nullptr;
  ASSERT_EQ(mdb_env_create(&env), 0);
  ASSERT_EQ(mdb_env_open(env, path_.c_str(), MDB_NOSUBDIR | MDB_NOLOCK, 0600), 0);
  MDB_txn* txn = nullptr;
  MDB_dbi main = 0;
  ASSERT_EQ(mdb_txn_begin(env, nullptr, 0, &txn), 0);
  ASSERT_EQ(mdb_dbi_open(txn, nullptr, 0, &main), 0);
  char text[] = "meta";
  MDB_val value{4, text};
  ASSERT_EQ(mdb_put(txn, main, &value, &value, 0), 0);
  ASSERT_EQ(mdb_txn_commit(txn), 0);
  mdb_env_close(env);
  ExpectPutAside(BytesOfFile(path_));
}

TEST_F(DamageTest, UnknownDatabasesOutliveACompaction) {
  {
    auto opened = Environment::Open(options_, {"a", "b", "newer"});
    ASSERT_TRUE(PutAll(opened->get(), {{"one", "1"}}, 2).has_value());
  }
  {
    const auto environment = OpenEnvironment(options_);
    const Status status = environment->Compact();
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  EXPECT_EQ(ReadRaw(path_, "newer"), (RawDatabase{{"one", "1"}}));
}

// --- Cut short -----------------------------------------------------------------------------------

TEST_F(DamageTest, CutShortWhileOpen) {
  for (const bool is_read : {true, false}) {
    Fill();
    for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
    auto environment = OpenEnvironment(options_);
    ASSERT_EQ(truncate(path_.c_str(), kPage), 0);
    if (is_read) {
      const auto content = GetAll(environment.get());
      ASSERT_FALSE(content.has_value());
      EXPECT_EQ(content.error().code, ErrorCode::io_error);
      EXPECT_NE(content.error().message.find("cannot be read any more"), std::string::npos);
    } else {
      EXPECT_FALSE(PutAll(environment.get(), {{"two", "2"}}).has_value());
    }
    EXPECT_EQ(environment->last_failure(), Failure::kDisk);
    EXPECT_TRUE(environment->is_broken());
    // Nothing of it works any more, and nothing crashes.
    EXPECT_FALSE(GetAll(environment.get()).has_value());
    EXPECT_FALSE(PutAll(environment.get(), {{"two", "2"}}).has_value());
    EXPECT_FALSE(environment->Sync().has_value());
    EXPECT_FALSE(environment->Compact().has_value());
    EXPECT_EQ(environment->used_bytes(), 0u);
    EXPECT_EQ(environment->last_failure(), Failure::kDisk);
    environment.reset();
    ExpectPutAside(BytesOfFile(path_));
    fs::remove(path_);
  }
}

TEST_F(DamageTest, ABrokenOneCanBeginAnew) {
  Fill();
  auto environment = OpenEnvironment(options_);
  ASSERT_EQ(truncate(path_.c_str(), 2 * kPage), 0);
  EXPECT_FALSE(GetAll(environment.get()).has_value());
  ASSERT_TRUE(environment->BeginAnew("it is broken").has_value());
  EXPECT_FALSE(environment->is_broken());
  EXPECT_TRUE(PutAll(environment.get(), {{"two", "2"}}).has_value());
  EXPECT_EQ(*GetAll(environment.get()), (Content{{"two", "2"}}));
}

TEST_F(DamageTest, CutShortWhileClosed) {
  Fill();
  const std::string bytes = BytesOfFile(path_);
  // The value's pages are the last ones.
  for (size_t pages = 1; pages * kPage < bytes.size(); ++pages) {
    for (const auto& aside : PutAsideOf(path_)) fs::remove(aside);
    WriteBytes(path_, bytes.substr(0, pages * kPage));
    auto environment = OpenEnvironment(options_);
    const auto content = GetAll(environment.get());
    ASSERT_TRUE(content.has_value()) << pages << content.error().message;
    // All of it, if only free pages were cut off; else none.
    EXPECT_EQ(content->size(), PutAsideOf(path_).empty() ? 2u : 0u) << pages;
    EXPECT_TRUE(PutAll(environment.get(), {{"two", "2"}}).has_value());
  }
}

TEST_F(DamageTest, FreePagesThatWereNeverWrittenMayLackAtTheEnd) {
  Fill();
  {
    const auto environment = OpenEnvironment(options_);
    const Status status = environment->Write([&](Transaction& transaction) -> Status {
      const Database a = environment->database(0);
      RETURN_IF_ERROR(transaction.Put(a, "gone", std::string(200'000, 'g')));
      for (int i = 0; i < 300; ++i)
        RETURN_IF_ERROR(transaction.Put(a, fmt::format("gone{}", i), std::string(500, 'g')));
      for (int i = 0; i < 300; ++i)
        RETURN_IF_ERROR(transaction.Delete(a, fmt::format("gone{}", i)));
      return transaction.Delete(a, "gone");
    });
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  EXPECT_EQ(GetAll(OpenEnvironment(options_).get())->size(), 2u);
  EXPECT_TRUE(PutAsideOf(path_).empty());
}

// --- Flipped bits --------------------------------------------------------------------------------

// Whatever comes out, the process lives, and a new file can be begun.
void Use(const EnvironmentOptions& options, bool writes) {
  auto opened = Environment::Open(options, {"a", "b"});
  if (!opened) return;
  Environment& environment = **opened;
  (void)GetAll(&environment);
  (void)GetAll(&environment, 1);
  (void)environment.used_bytes();
  if (writes) (void)PutAll(&environment, {{"two", "2"}});
  (void)environment.Compact();
  if (environment.is_broken() || environment.last_failure() != Failure::kNone) {
    EXPECT_TRUE(environment.BeginAnew("it is damaged").has_value());
    EXPECT_TRUE(PutAll(&environment, {{"two", "2"}}).has_value());
  }
}

TEST_F(DamageTest, BothMetaPages) {
  Fill();
  std::string bytes = BytesOfFile(path_);
  for (const size_t page : {size_t{0}, kPage}) bytes[page + 16] ^= 1;
  WriteBytes(path_, bytes);
  ExpectPutAside(bytes);
}

TEST_F(DamageTest, EveryFieldOfTheMetaPages) {
  Fill();
  const std::string bytes = BytesOfFile(path_);
  std::mt19937 random(1);
  for (size_t at = 0; at < 152; ++at) {
    std::string damaged = bytes;
    // In both: LMDB would use the other one.
    for (const size_t page : {size_t{0}, kPage})
      damaged[page + at] ^= static_cast<char>(1 << random() % 8);
    WriteBytes(path_, damaged);
    Use(options_, true);
  }
}

TEST_F(DamageTest, AnyBitsOfPages) {
  Content content;
  for (int i = 0; i < 400; ++i)
    content[fmt::format("{:04}", i)] = std::string(static_cast<size_t>(i % 97 * 3), 'v');
  content["large"] = std::string(20'000, 'l');
  Fill(content);
  const std::string bytes = BytesOfFile(path_);
  std::mt19937 random(2);
  for (int round = 0; round < 300; ++round) {
    std::string damaged = bytes;
    for (uint32_t flips = 1 + random() % 20; flips > 0; --flips) {
      // Headers and tables of pages more often than what they hold.
      const size_t page = random() % (bytes.size() / kPage);
      const size_t at = random() % 2 == 0 ? random() % 64 : random() % kPage;
      damaged[page * kPage + at] ^= static_cast<char>(1 << random() % 8);
    }
    WriteBytes(path_, damaged);
    Use(options_, true);
  }
}

}  // namespace
}  // namespace perdure::snapshot
