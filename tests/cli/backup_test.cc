// Backups of a service that does not run.
#include "cli/backup/backup.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/backup/check.h"
#include "snapshot/file_lock.h"
#include "tests/base/temp_folder.h"
#include "tests/cli/run_perdure.h"
#include "tests/cli/state_folder.h"

namespace perdure::cli {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class BackupTest : public testing::Test {
 protected:
  Result<BackupResult> Make(BackupOptions options = {}) {
    options.destination = destination_;
    return MakeBackup(state_, folder_.path() / "run", options);
  }
  std::string Refusal(BackupOptions options = {}) {
    const auto made = Make(std::move(options));
    EXPECT_FALSE(made.has_value());
    EXPECT_FALSE(fs::exists(destination_.string() + ".partial"));
    return made ? std::string() : made.error().message;
  }
  mode_t ModeOf(const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  // As a start of the service finds it.
  void ExpectBackup(const std::string& model, bool kv = true) {
    EXPECT_EQ(DumpTurns(destination_, model), DumpTurns(state_, model));
    if (kv) {
      EXPECT_EQ(DumpPages(destination_, model), DumpPages(state_, model));
    }
  }

  TempFolder folder_;
  const fs::path state_ = folder_.path() / "state";
  fs::path destination_ = folder_.path() / "backups" / "today";
  BackupTest() {
    fs::create_directories(state_);
    fs::permissions(state_, fs::perms::owner_all);
    fs::create_directories(destination_.parent_path());
  }
};

TEST_F(BackupTest, HasAllModels) {
  FillModel(state_, "nano");
  FillModel(state_, "org/name", 70, 2);
  const auto made = Make({.kv = true});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_THAT(made->warnings, IsEmpty());
  ASSERT_EQ(made->manifest.files.size(), 4u);
  EXPECT_EQ(made->manifest.files[0].path, "conversations/nano/turns.mdb");
  EXPECT_EQ(made->manifest.files[0].conversations, 2u);
  EXPECT_EQ(made->manifest.files[0].turns, 4u);
  EXPECT_EQ(made->manifest.files[1].pages, 5u);
  EXPECT_EQ(made->manifest.files[2].path, "conversations/org%2Fname/turns.mdb");
  EXPECT_EQ(made->manifest.files[2].turns, 71u);
  const auto checked = CheckBackup(destination_);
  ASSERT_TRUE(checked.has_value()) << checked.error().message;
  EXPECT_EQ(ManifestText(*checked), ManifestText(made->manifest));
  // For this user alone.
  EXPECT_EQ(ModeOf(destination_), 0700u);
  for (const auto& entry : fs::recursive_directory_iterator(destination_))
    EXPECT_EQ(ModeOf(entry.path()), entry.is_directory() ? 0700u : 0600u) << entry.path();
  EXPECT_THAT(FormatManifest(*checked), HasSubstr("org/name  2              71"));
  ExpectBackup("nano");
  ExpectBackup("org/name");
}

TEST_F(BackupTest, HasPagesOnlyWhereTheyAreWanted) {
  FillModel(state_, "nano");
  ASSERT_TRUE(Make().has_value());
  EXPECT_FALSE(fs::exists(destination_ / "conversations/nano/kv.mdb"));
  ExpectBackup("nano", false);
}

TEST_F(BackupTest, HasWhatIsLeftOfDeletedOnes) {
  FillModel(state_, "nano", 1, 0);
  const std::string secret = "the quick brown fox";
  {
    const auto file = OpenTurns(state_, "nano");
    auto turn = snapshot::FirstTurn(300);
    turn.messages.back() = secret;
    ASSERT_TRUE(file->Commit({1, "gone", true, ""}, turn).has_value());
    ASSERT_TRUE(file->Delete(1, "gone").has_value());
  }
  ASSERT_THAT(BytesOf(ModelFolder(state_, "nano") / "turns.mdb"), HasSubstr(secret));
  ASSERT_TRUE(Make().has_value());
  EXPECT_THAT(BytesOf(destination_ / "conversations/nano/turns.mdb"), Not(HasSubstr(secret)));
}

TEST_F(BackupTest, OfOneModelAlone) {
  FillModel(state_, "nano");
  FillModel(state_, "other");
  WriteBytes(state_ / "saved/x", "y");
  ASSERT_TRUE(Make({.models = {"other"}}).has_value());
  EXPECT_FALSE(fs::exists(destination_ / "conversations/nano"));
  EXPECT_FALSE(fs::exists(destination_ / "saved"));
  ExpectBackup("other", false);
  fs::remove_all(destination_);
  EXPECT_EQ(Refusal({.models = {"nano", "third"}}), "there are no conversations of \"third\" in " +
                                                        state_.string() +
                                                        "; there are some of: nano, other");
}

TEST_F(BackupTest, TheCommandLine) {
  FillModel(state_, "nano");
  FillModel(state_, "other");
  const std::string folders =
      " --state-dir '" + state_.string() + "' --runtime-dir '" + folder_.path().string() + "'";
  const std::string destination = "'" + destination_.string() + "'";
  Output output = RunPerdure(
      folder_.path(), "backup --model nano --model other " + destination + " --kv" + folders);
  EXPECT_EQ(output.code, 0) << output.text;
  EXPECT_THAT(output.text, HasSubstr("4 files"));
  output = RunPerdure(folder_.path(), "backup " + destination + folders);
  EXPECT_EQ(output.code, 111);
  EXPECT_THAT(output.text, HasSubstr("no backup was made: "));
  output = RunPerdure(folder_.path(), "restore --verify --json " + destination);
  EXPECT_EQ(output.code, 0) << output.text;
  EXPECT_EQ(Json::parse(output.text)["files"].size(), 4u);
  output = RunPerdure(folder_.path(),
                      "restore " + destination + " --state-dir '" + state_.string() + "'");
  EXPECT_EQ(output.code, 111);
  EXPECT_THAT(output.text, HasSubstr("was not restored: there is something already"));
  EXPECT_EQ(RunPerdure(folder_.path(), "backup").code, 100);
}

TEST_F(BackupTest, HasWhatWasSaved) {
  WriteBytes(state_ / "saved/nano/one.json", "{}");
  WriteBytes(state_ / "saved/two", std::string(3'000'000, 'x'));
  WriteBytes(state_ / "saved/empty", "");
  WriteBytes(state_ / "prepared/nano.weights", "made again at any time");
  const auto made = Make();
  ASSERT_TRUE(made.has_value()) << made.error().message;
  auto listing = Listing(destination_);
  EXPECT_EQ(listing.erase("backup.json"), 1u);
  auto expected = Listing(state_);
  std::erase_if(expected, [](const auto& entry) { return entry.first.starts_with("prepared"); });
  EXPECT_TRUE(listing == expected);
  EXPECT_TRUE(CheckBackup(destination_).has_value());
}

TEST_F(BackupTest, DoesNotOverwrite) {
  FillModel(state_, "nano", 1, 0);
  fs::create_directories(destination_);  // an empty one will do
  ASSERT_TRUE(Make().has_value());
  const auto before = Listing(destination_);
  EXPECT_THAT(Refusal(), HasSubstr("today is there already: name a folder that does not exist"));
  EXPECT_TRUE(Listing(destination_) == before);
  destination_ = state_ / "file";
  WriteBytes(destination_, "");
  EXPECT_THAT(Refusal(), HasSubstr("file is there already"));
  destination_ = state_ / "saved" / "new";
  EXPECT_THAT(Refusal(), HasSubstr("saved/new is within what is backed up"));
  destination_ = folder_.path() / "link";
  fs::create_directory_symlink(folder_.path() / "backups", destination_);
  EXPECT_THAT(Refusal(), HasSubstr("link is there already"));
  destination_ = folder_.path() / "tomorrow";
  WriteBytes(destination_.string() + ".partial/x", "of an earlier one");
  const auto made = Make();
  ASSERT_FALSE(made.has_value());
  EXPECT_THAT(made.error().message, HasSubstr("tomorrow.partial is there already"));
  EXPECT_EQ(BytesOf(destination_.string() + ".partial/x"), "of an earlier one");
}

TEST_F(BackupTest, OfNothingIsRefused) {
  EXPECT_THAT(Refusal(), HasSubstr("there are no conversations in"));
  fs::create_directories(state_ / "conversations" / "nano");
  EXPECT_THAT(Refusal(), HasSubstr("there are no conversations in"));
  EXPECT_FALSE(MakeBackup(folder_.path() / "elsewhere", folder_.path() / "run",
                          {.destination = destination_.string()})
                   .has_value());
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(BackupTest, LeavesOutWhatIsDamaged) {
  FillModel(state_, "nano");
  const fs::path turns = ModelFolder(state_, "nano") / "turns.mdb",
                 kv = ModelFolder(state_, "nano") / "kv.mdb";
  // In the text of b's only turn; in a page's numbers.
  std::string bytes = BytesOf(turns);
  const size_t at = bytes.rfind("200!");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'x';
  WriteBytes(turns, bytes);
  const auto page = snapshot::NumberedPage(3, 70'000);
  bytes = BytesOf(kv);
  const size_t number =
      bytes.find(std::string(reinterpret_cast<const char*>(page.data.data()) + 1000, 100));
  ASSERT_NE(number, std::string::npos);
  bytes[number] = static_cast<char>(bytes[number] ^ 1);
  WriteBytes(kv, bytes);
  const auto state = Listing(state_);
  const auto made = Make({.kv = true});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_TRUE(Listing(state_) == state) << "it only looks";
  EXPECT_THAT(made->warnings, testing::Contains(HasSubstr("nano: what is damaged is not in the "
                                                          "backup: ")));
  EXPECT_EQ(made->manifest.files[0].conversations, 1u);
  EXPECT_EQ(made->manifest.files[0].turns, 3u);
  EXPECT_EQ(made->manifest.files[1].pages, 4u);
  const auto checked = CheckBackup(destination_);
  EXPECT_TRUE(checked.has_value()) << checked.error().message;
}

TEST_F(BackupTest, GoesOnWithoutPagesThatCannotBeRead) {
  FillModel(state_, "nano");
  WriteBytes(ModelFolder(state_, "nano") / "kv.mdb", std::string(50'000, 'x'));
  const auto made = Make({.kv = true});
  ASSERT_TRUE(made.has_value()) << made.error().message;
  ASSERT_EQ(made->warnings.size(), 1u);
  EXPECT_THAT(made->warnings[0],
              HasSubstr("nano: its KV is not in the backup, and will be computed again: "));
  EXPECT_FALSE(fs::exists(destination_ / "conversations/nano/kv.mdb"));
  EXPECT_TRUE(CheckBackup(destination_).has_value());
  EXPECT_EQ(BytesOf(ModelFolder(state_, "nano") / "kv.mdb"), std::string(50'000, 'x'));
}

TEST_F(BackupTest, IsRefusedWhereTurnsCannotBeRead) {
  FillModel(state_, "nano");
  FillModel(state_, "other");
  const fs::path turns = ModelFolder(state_, "nano") / "turns.mdb";
  const std::string whole = BytesOf(turns);
  for (const std::string& bytes : {std::string(50'000, 'x'), whole.substr(0, whole.size() / 2)}) {
    WriteBytes(turns, bytes);
    EXPECT_THAT(Refusal(), HasSubstr(turns.string()));
    EXPECT_EQ(BytesOf(turns), bytes);
  }
  // The others can be had.
  ASSERT_TRUE(Make({.models = {"other"}}).has_value());
}

// --- Others --------------------------------------------------------------------------------------

TEST_F(BackupTest, TellsWhereAFileIsInUseAndNoServiceAnswers) {
  FillModel(state_, "nano");
  const auto lock = snapshot::LockFile(ModelFolder(state_, "nano") / "turns.mdb", 0);
  ASSERT_TRUE(lock.has_value());
  EXPECT_THAT(Refusal({.wait_ms = 200}),
              testing::AllOf(HasSubstr("the conversations of nano are in use by another "
                                       "process, and the service in"),
                             HasSubstr("no service is running at")));
}

TEST_F(BackupTest, AFullDiskIsSaidAndNothingIsLeft) {
  const fs::path disk = folder_.path() / "disk";
  fs::create_directories(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k,mode=0700") != 0)
    GTEST_SKIP() << "needs root, to mount a small disk";
  FillModel(state_, "nano");
  destination_ = disk / "today";
  const std::string refusal = Refusal({.kv = true});
  const auto left = Listing(disk);
  // Its root cannot be renamed over.
  destination_ = disk;
  const std::string of_the_root = Refusal();
  EXPECT_EQ(umount(disk.c_str()), 0);
  EXPECT_THAT(refusal, testing::AllOf(HasSubstr("today.partial/conversations/nano/kv.mdb"),
                                      HasSubstr("its disk is full; free some space there")));
  EXPECT_THAT(left, IsEmpty());
  EXPECT_THAT(of_the_root, HasSubstr("is the root of a file system: name a new folder below it"));
}

}  // namespace
}  // namespace perdure::cli
