// What a backup gives back, and when nothing is touched.
#include "cli/backup/restore.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/folder_lock.h"
#include "base/hash.h"
#include "cli/backup/backup.h"
#include "cli/backup/check.h"
#include "shm/arena_segment.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/cli/state_folder.h"

namespace perdure::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class RestoreTest : public testing::Test {
 protected:
  RestoreTest() {
    for (const fs::path& folder : {state_, old_}) {
      fs::create_directories(folder);
      fs::permissions(folder, fs::perms::owner_all);
    }
  }
  void MakeBackup() {
    FillModel(old_, "nano");
    FillModel(old_, "org/name", 2, 1);
    WriteBytes(old_ / "saved/nano/one", "1");
    const auto made = cli::MakeBackup(old_, folder_.path() / "run",
                                      {.destination = backup_.string(), .kv = true});
    ASSERT_TRUE(made.has_value()) << made.error().message;
    ASSERT_THAT(made->warnings, IsEmpty());
  }
  Result<RestoreResult> Run(RestoreOptions options = {}) {
    options.backup = backup_.string();
    return Restore(state_, options);
  }
  // Refused, with nothing of the state changed, and without a look at it as well.
  std::string Refusal(RestoreOptions options = {}) {
    const auto before = Listing(state_), backup = Listing(backup_);
    const auto restored = Run(options);
    EXPECT_FALSE(restored.has_value());
    EXPECT_TRUE(Listing(state_) == before);
    EXPECT_TRUE(Listing(backup_) == backup);
    return restored ? std::string() : restored.error().message;
  }
  void ExpectRestored(const std::string& model) {
    EXPECT_EQ(DumpTurns(state_, model), DumpTurns(old_, model));
    EXPECT_EQ(DumpPages(state_, model), DumpPages(old_, model));
  }

  TempFolder folder_;
  const fs::path old_ = folder_.path() / "old", backup_ = folder_.path() / "backup";
  fs::path state_ = folder_.path() / "state";
};

TEST_F(RestoreTest, GivesAllBack) {
  MakeBackup();
  fs::remove(state_);  // it is made
  const auto restored = Run();
  ASSERT_TRUE(restored.has_value()) << restored.error().message;
  EXPECT_TRUE(restored->aside.empty());
  ExpectRestored("nano");
  ExpectRestored("org/name");
  EXPECT_EQ(BytesOf(state_ / "saved/nano/one"), "1");
  EXPECT_EQ(fs::status(state_).permissions(), fs::perms::owner_all);
  EXPECT_FALSE(fs::exists(state_ / "restore.partial"));
  // Nobody is in its way any more.
  EXPECT_TRUE(LockFolder(state_, "--state-dir").has_value());
}

TEST_F(RestoreTest, VerifyOnlyLooks) {
  MakeBackup();
  fs::remove(state_);
  const auto verified = Run({.verify = true});
  ASSERT_TRUE(verified.has_value()) << verified.error().message;
  EXPECT_FALSE(fs::exists(state_));
}

TEST_F(RestoreTest, LeavesWhatIsNotInTheBackup) {
  MakeBackup();
  FillModel(state_, "third", 5, 1);
  const std::string before = DumpTurns(state_, "third");
  WriteBytes(state_ / "prepared/x", "y");
  ASSERT_TRUE(Run().has_value());
  EXPECT_EQ(DumpTurns(state_, "third"), before);
  EXPECT_EQ(BytesOf(state_ / "prepared/x"), "y");
  ExpectRestored("nano");
}

TEST_F(RestoreTest, MovesAsideOnlyWhenToldTo) {
  MakeBackup();
  FillModel(state_, "nano", 9, 2);
  WriteBytes(state_ / "saved/mine", "of today");
  const std::string before = DumpTurns(state_, "nano");
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("there is something already: "),
                               HasSubstr((state_ / "conversations/nano").string()),
                               HasSubstr((state_ / "saved").string()),
                               HasSubstr("with --force it is moved aside")));
  auto restored = Run({.force = true});
  ASSERT_TRUE(restored.has_value()) << restored.error().message;
  ExpectRestored("nano");
  ExpectRestored("org/name");
  // It lies as in a state folder.
  EXPECT_EQ(DumpTurns(restored->aside, "nano"), before);
  EXPECT_EQ(BytesOf(restored->aside / "saved/mine"), "of today");
  EXPECT_FALSE(fs::exists(restored->aside / "conversations/org%2Fname"));
  // And again: another name.
  const auto again = Run({.force = true});
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_NE(again->aside, restored->aside);
  EXPECT_EQ(DumpTurns(restored->aside, "nano"), before);
}

// Of a model that a service has only begun.
TEST_F(RestoreTest, LocksAreNothing) {
  MakeBackup();
  WriteBytes(ModelFolder(state_, "nano") / "turns.mdb.lock", "");
  const auto restored = Run();
  ASSERT_TRUE(restored.has_value()) << restored.error().message;
  EXPECT_TRUE(restored->aside.empty());
  ExpectRestored("nano");
}

TEST_F(RestoreTest, IsRefusedWhileAServiceRuns) {
  MakeBackup();
  {
    const auto lock = LockFolder(state_, "--state-dir");
    ASSERT_TRUE(lock.has_value());
    EXPECT_THAT(Refusal(), HasSubstr("a service runs already in " + state_.string()));
    EXPECT_TRUE(Run({.verify = true}).has_value());
  }
  EXPECT_TRUE(Run().has_value());
}

// What a killed service has left in memory is newer than the backup.
TEST_F(RestoreTest, MemoryIsForgotten) {
  MakeBackup();
  const std::string instance = shm::InstanceName(state_);
  std::string name;
  {
    const auto arena = shm::ArenaSegment::Open(instance, "nano", 0);
    ASSERT_TRUE(arena.has_value());
    name = arena->name();
    ASSERT_FALSE(name.empty());
  }
  const auto has = [&] {
    const auto all = shm::ListArenas();
    return std::ranges::find(all, name) != all.end();
  };
  ASSERT_TRUE(has());
  ASSERT_TRUE(Run().has_value());
  EXPECT_FALSE(has());
}

TEST_F(RestoreTest, AFullDiskIsSaidAndNothingIsLeft) {
  MakeBackup();
  if (mount("tmpfs", state_.c_str(), "tmpfs", 0, "size=256k,mode=0700") != 0)
    GTEST_SKIP() << "needs root, to mount a small disk";
  const std::string refusal = Refusal();
  EXPECT_EQ(umount(state_.c_str()), 0);
  EXPECT_THAT(refusal, HasSubstr("free some space there"));
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(RestoreTest, AnyDamagedFileIsNoticed) {
  MakeBackup();
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(backup_))
    if (entry.is_regular_file()) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 6u);
  for (const fs::path& file : files) {
    SCOPED_TRACE(file);
    const std::string whole = BytesOf(file);
    for (const size_t at : {size_t{0}, whole.size() / 3, whole.size() / 2, whole.size() - 2}) {
      if (at >= whole.size()) continue;
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ 4);
      WriteBytes(file, bytes);
      EXPECT_THAT(Refusal(), HasSubstr(file.string())) << at;
      EXPECT_FALSE(Run({.verify = true}).has_value());
    }
    for (const size_t size : {size_t{0}, whole.size() / 2, whole.size() - 1}) {
      WriteBytes(file, whole.substr(0, size));
      EXPECT_THAT(Refusal(), HasSubstr(file.string())) << size;
    }
    WriteBytes(file, whole + "x");
    EXPECT_THAT(Refusal(), HasSubstr(file.string()));
    fs::remove(file);
    EXPECT_THAT(Refusal(),
                HasSubstr(file.filename() == "backup.json" ? backup_.string() : file.string()));
    fs::create_symlink(folder_.path() / "elsewhere", file);
    WriteBytes(folder_.path() / "elsewhere", whole);
    EXPECT_THAT(Refusal(), HasSubstr(file.string()));
    fs::remove(file);
    WriteBytes(file, whole);
  }
  WriteBytes(backup_ / "conversations/nano/more.mdb", "x");
  EXPECT_THAT(Refusal(), HasSubstr("more.mdb is not in its backup.json"));
  fs::remove(backup_ / "conversations/nano/more.mdb");
  EXPECT_TRUE(Run().has_value()) << "it is whole again";
}

TEST_F(RestoreTest, AFolderThatIsNoBackupIsRefused) {
  EXPECT_THAT(Refusal(), HasSubstr("backup is no backup: there is no backup.json in it"));
  FillModel(backup_, "nano");
  EXPECT_THAT(Refusal(), HasSubstr("backup is no backup: there is no backup.json in it"));
  WriteBytes(backup_ / "backup.json", "{\"models\": []}");
  EXPECT_THAT(Refusal(), HasSubstr("backup.json is not of a backup of Perdure's"));
}

// With right checksums: of damage that was there when it was made, or by somebody's hand.
TEST_F(RestoreTest, WhatIsWithinIsReadToo) {
  MakeBackup();
  const auto with = [&](const std::string& path, const std::function<void(std::string&)>& change) {
    const std::string whole = BytesOf(backup_ / path), manifest = BytesOf(backup_ / "backup.json");
    std::string bytes = whole;
    change(bytes);
    WriteBytes(backup_ / path, bytes);
    auto parsed = ParseManifest(manifest, "backup.json");
    for (BackupFile& file : parsed->files) {
      if (file.path != path) continue;
      file.bytes = bytes.size();
      file.checksum = Hash64(bytes);
    }
    WriteBytes(backup_ / "backup.json", ManifestText(*parsed));
    const std::string refusal = Refusal();
    WriteBytes(backup_ / path, whole);
    WriteBytes(backup_ / "backup.json", manifest);
    return refusal;
  };
  const std::string turns = "conversations/nano/turns.mdb", kv = "conversations/nano/kv.mdb";
  EXPECT_THAT(with(turns, [](std::string& bytes) { bytes[bytes.rfind("200!")] = 'x'; }),
              AllOf(HasSubstr("the backup is damaged: "), HasSubstr("turns.mdb has damage: ")));
  EXPECT_THAT(with(turns, [](std::string& bytes) { bytes.assign(9000, 'x'); }),
              AllOf(HasSubstr("turns.mdb cannot be read: "), HasSubstr("is not a file of")));
  EXPECT_THAT(with(turns, [](std::string& bytes) { bytes.resize(bytes.size() / 2); }),
              HasSubstr("turns.mdb cannot be read: "));
  EXPECT_THAT(with(kv,
                   [](std::string& bytes) {
                     const auto page = snapshot::NumberedPage(3, 70'000);
                     const std::string numbers(reinterpret_cast<const char*>(page.data.data()), 99);
                     bytes[bytes.find(numbers)] ^= 1;
                   }),
              HasSubstr("kv.mdb has damage: "));
  EXPECT_THAT(with(turns, [&](std::string& bytes) { bytes = BytesOf(backup_ / kv); }),
              HasSubstr("turns.mdb cannot be read: "));
  EXPECT_THAT(with(turns,
                   [&](std::string& bytes) {
                     bytes = BytesOf(backup_ / "conversations/org%2Fname/turns.mdb");
                   }),
              HasSubstr("is of the model org/name, not of nano"));
  EXPECT_TRUE(Run().has_value());
}

TEST_F(RestoreTest, ACountThatIsNotSoIsRefused) {
  MakeBackup();
  auto parsed = ParseManifest(BytesOf(backup_ / "backup.json"), "backup.json");
  ++parsed->files[0].turns;
  WriteBytes(backup_ / "backup.json", ManifestText(*parsed));
  EXPECT_THAT(Refusal(), HasSubstr("turns.mdb has 2 conversations, 4 turns and 0 pages, not 2, 5 "
                                   "and 0"));
}

TEST_F(RestoreTest, OfANewerVersionIsRefused) {
  MakeBackup();
  Json json = Json::parse(BytesOf(backup_ / "backup.json"));
  json["perdure_backup"] = kManifestVersion + 1;
  WriteBytes(backup_ / "backup.json", json.dump());
  EXPECT_THAT(Refusal(), HasSubstr("was made by a newer version of Perdure"));
}

// --- Older versions ------------------------------------------------------------------------------

// Backups that older versions have made: a version must restore all of them. Each is made once, by
// the first version that makes that kind: PERDURE_WRITE_GOLDENS=1 build/release/bin/cli_tests
// --gtest_filter='*BackupsOfOlderVersions*'
TEST_F(RestoreTest, BackupsOfOlderVersions) {
  const fs::path goldens = fs::path(PERDURE_SOURCE_DIR) / "tests/cli/goldens/backups";
  const std::string newest = fmt::format("v{}", kManifestVersion);
  const auto dump = [&](const fs::path& state) {
    return DumpTurns(state, "nano") + DumpPages(state, "nano") + DumpTurns(state, "org/name") +
           BytesOf(state / "saved/nano/one") + "\n";
  };
  if (std::getenv("PERDURE_WRITE_GOLDENS") != nullptr) {
    ASSERT_FALSE(fs::exists(goldens / newest)) << "it is for ever; a new format has a new folder";
    FillModel(old_, "nano", 3, 1);
    FillModel(old_, "org/name", 1, 0);
    WriteBytes(old_ / "saved/nano/one", "1");
    fs::create_directories(goldens);
    const auto made = cli::MakeBackup(old_, folder_.path() / "run",
                                      {.destination = (goldens / newest).string(), .kv = true});
    ASSERT_TRUE(made.has_value()) << made.error().message;
    ASSERT_TRUE(WriteFileAtomically(goldens / (newest + ".txt"), dump(old_), 0644).has_value());
  }
  for (int64_t version = 1; version <= kManifestVersion; ++version) {
    SCOPED_TRACE(version);
    state_ = folder_.path() / fmt::format("state{}", version);
    const auto restored =
        Restore(state_, {.backup = (goldens / fmt::format("v{}", version)).string()});
    ASSERT_TRUE(restored.has_value()) << restored.error().message;
    EXPECT_EQ(dump(state_), BytesOf(goldens / fmt::format("v{}.txt", version)));
  }
}

}  // namespace
}  // namespace perdure::cli
