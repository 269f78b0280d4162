// Conversations that are saved and loaded by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/worker/files_fixture.h"
#include "worker/saved_folder.h"

namespace perdure::worker {
namespace {

namespace fs = std::filesystem;
using protocol::ConversationFileOperation;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class SavedTest : public FilesTest {
 protected:
  SavedTest() { BootServer("here"); }
  void Talk(const std::string& id, int seed = 1) {
    SayHere(InTenant(AskIn(id, Text(100, seed), 40)));
    history_ = History(last_rid_);
  }
  Json Save(const std::string& id, const std::string& name, bool overwrite = false,
            bool kv = true) {
    auto command = FileCommand(ConversationFileOperation::kSave, id, name);
    command.overwrite = overwrite;
    command.kv = kv;
    return Do(command);
  }
  Json Load(const std::string& name, const std::string& id = "") {
    return Do(FileCommand(ConversationFileOperation::kLoad, id, name));
  }
  Json Remove(const std::string& name) {
    return Do(FileCommand(ConversationFileOperation::kDeleteSaved, "", name));
  }
  std::vector<std::string> Names() {
    const Json list = Do(FileCommand(ConversationFileOperation::kListSaved, ""));
    std::vector<std::string> names;
    for (const Json& each : list["data"]) names.push_back(each["name"]);
    return names;
  }
  void Delete(const std::string& id) {
    protocol::ConversationCommand remove;
    remove.rid = ++last_rid_;
    remove.operation = protocol::ConversationOperation::kDelete;
    remove.tenant = tenant_;
    remove.id = id;
    generator_->Command(remove);
    RunFiles();
    EXPECT_EQ(AnswerOf(remove.rid).value("deleted", false), true);
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    if (!fs::exists(options_.saved_dir)) return files;
    for (const auto& entry : fs::recursive_directory_iterator(options_.saved_dir))
      if (!entry.is_directory()) files.push_back(entry.path());
    return files;
  }
  Ids history_;
};

TEST_F(SavedTest, ComesBackAfterEverythingElseIsGone) {
  Talk("mine");
  const Json saved = Save("mine", "conversation_001.cache");
  EXPECT_EQ(saved["name"], "conversation_001.cache");
  EXPECT_EQ(saved["id"], "mine");
  EXPECT_EQ(saved["pages"], 5);
  EXPECT_EQ(saved["tokens"], 140);
  ASSERT_EQ(Files().size(), 1u);
  EXPECT_EQ(saved["bytes"], fs::file_size(Files()[0]));
  EXPECT_EQ(Files()[0].filename(), "conversation_001.cache");
  Delete("mine");
  BootServer("here");
  const Json list = Do(FileCommand(ConversationFileOperation::kListSaved, ""));
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["bytes"], saved["bytes"]);
  EXPECT_EQ(list["data"][0]["tokens"], 140);
  EXPECT_EQ(list["data"][0]["pages"], 5);
  EXPECT_EQ(list["data"][0]["id"], "mine");
  const Json loaded = Load("conversation_001.cache");
  EXPECT_EQ(loaded["id"], "mine");
  EXPECT_EQ(loaded["kv"], (Json{{"pages", 5}, {"used", true}}));
  const auto next = AskIn("mine", history_ + Text(20, 2), 20);
  SayHere(next);
  EXPECT_EQ(FromDisk(next.rid), 139);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  // Once more, beside it.
  EXPECT_TRUE(IsError(Load("conversation_001.cache"), ErrorCode::invalid_request));
  EXPECT_EQ(Load("conversation_001.cache", "copy")["id"], "copy");
}

TEST_F(SavedTest, WithoutKv) {
  Talk("mine");
  EXPECT_EQ(Save("mine", "text", false, false)["pages"], 0);
  EXPECT_EQ(Load("text", "copy")["kv"]["used"], false);
}

TEST_F(SavedTest, FilesAreTheirOwnersAlone) {
  const mode_t mask = umask(0);
  Talk("mine");
  Save("mine", "a");
  umask(mask);
  for (const fs::path& path : {options_.saved_dir, Files()[0].parent_path(), Files()[0]}) {
    struct stat st {};
    ASSERT_EQ(lstat(path.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, S_ISDIR(st.st_mode) ? 0700u : 0600u) << path;
  }
}

TEST_F(SavedTest, IsReplacedOnlyWhereThatIsSaid) {
  Talk("a");
  Talk("b", 2);
  Save("a", "x");
  const Json refused = Save("b", "x");
  EXPECT_TRUE(IsError(refused, ErrorCode::invalid_request));
  EXPECT_EQ(refused["param"], "name");
  EXPECT_EQ(Load("x", "still_a")["id"], "still_a");
  EXPECT_EQ(Save("b", "x", true)["id"], "b");
  EXPECT_EQ(Names().size(), 1u);
  Delete("b");
  EXPECT_EQ(Load("x")["id"], "b");
  EXPECT_EQ(Files().size(), 1u) << "no draft is left";
}

TEST_F(SavedTest, ATenantSeesItsOwnAlone) {
  tenant_ = "anna";
  Talk("mine");
  Save("mine", "x");
  tenant_ = "bert";
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_TRUE(IsError(Load("x"), ErrorCode::not_found));
  EXPECT_TRUE(IsError(Remove("x"), ErrorCode::not_found));
  EXPECT_TRUE(IsError(Save("mine", "y"), ErrorCode::not_found));
  Talk("mine", 3);
  Save("mine", "x");
  EXPECT_EQ(Files().size(), 2u);
  EXPECT_EQ(Remove("x")["deleted"], true);
  EXPECT_THAT(Names(), IsEmpty());
  tenant_ = "anna";
  EXPECT_THAT(Names(), ElementsAre("x"));
}

TEST_F(SavedTest, AnyNameIsOneFile) {
  Talk("mine");
  const std::vector<std::string> names = {"%2E", ".",         "..",       "../x",  "/etc/passwd",
                                          "a b", "A\xC3\xB6", "%draft-1", "x.tmp", "C:\\x"};
  for (const std::string& name : names) EXPECT_EQ(Save("mine", name)["name"], name);
  EXPECT_EQ(Files().size(), names.size());
  for (const fs::path& file : Files())
    EXPECT_EQ(file.parent_path().parent_path(), options_.saved_dir);
  auto listed = Names();
  EXPECT_THAT(listed, testing::UnorderedElementsAreArray(names));
  // The longest name, of bytes that are all encoded.
  const std::string longest(limits::kSavedNameBytesMax, '\xFF');
  EXPECT_GT(Save("mine", longest).value("bytes", 0), 0);
  for (const std::string& name : names) EXPECT_EQ(Remove(name)["deleted"], true) << name;
  EXPECT_TRUE(IsError(Remove("."), ErrorCode::not_found));
}

TEST_F(SavedTest, AllOfATenantsTakeOnlySoMuch) {
  Talk("mine");
  const auto one = Save("mine", "a")["bytes"].get<uint64_t>();
  saved_bytes_max_ = one * 2 + one / 2;
  BootServer("here");
  EXPECT_EQ(Save("mine", "b")["bytes"], one);
  const Json refused = Save("mine", "c");
  EXPECT_TRUE(IsError(refused, ErrorCode::insufficient_storage)) << refused;
  EXPECT_THAT(refused["message"].get<std::string>(), HasSubstr("delete some"));
  EXPECT_EQ(Files().size(), 2u) << "nothing is left of it";
  // In the place of one there is room, and without KV.
  EXPECT_EQ(Save("mine", "b", true)["bytes"], one);
  EXPECT_EQ(Save("mine", "c", false, false)["pages"], 0);
  tenant_ = "another";
  Talk("mine");
  EXPECT_EQ(Save("mine", "a")["bytes"], one);
}

TEST_F(SavedTest, ADiskWithoutRoomLeavesNothingHalf) {
  Talk("mine");
  Save("mine", "a");
  const std::string before = [&] {
    std::ifstream in(Files()[0], std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  }();
  // A file may not grow beyond this: as a disk that is full, for this process alone.
  struct rlimit limits {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limits), 0);
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit lower = limits;
  lower.rlim_cur = before.size() / 2;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &lower), 0);
  auto exported = FileCommand(ConversationFileOperation::kExport, "mine");
  const Json no_file = Do(exported);
  const Json refused = Save("mine", "b"), replaced = Save("mine", "a", true);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limits), 0);
  for (const Json& answer : {no_file, refused, replaced}) {
    EXPECT_TRUE(IsError(answer, ErrorCode::insufficient_storage)) << answer;
    EXPECT_THAT(answer["message"].get<std::string>(), HasSubstr("cannot write"));
  }
  ASSERT_EQ(Files().size(), 1u);
  std::ifstream in(Files()[0], std::ios::binary);
  EXPECT_EQ(std::string({std::istreambuf_iterator<char>(in), {}}), before);
  EXPECT_EQ(Save("mine", "b")["bytes"], before.size());
}

TEST_F(SavedTest, DraftsOfACrashGoWithTheNextStart) {
  Talk("mine");
  Save("mine", "a");
  const fs::path draft = Files()[0].parent_path() / "%draft-0000000000000007";
  std::ofstream(draft) << "half";
  EXPECT_THAT(Names(), ElementsAre("a"));
  RemoveDrafts(options_.saved_dir);
  EXPECT_FALSE(fs::exists(draft));
  EXPECT_EQ(Files().size(), 1u);
  RemoveDrafts(options_.saved_dir / "none");
}

TEST_F(SavedTest, WhatIsDamagedIsListedAndNotLoaded) {
  Talk("mine");
  Save("mine", "a");
  fs::resize_file(Files()[0], fs::file_size(Files()[0]) - 1);
  const Json list = Do(FileCommand(ConversationFileOperation::kListSaved, ""));
  EXPECT_EQ(list["data"][0]["damaged"], true);
  EXPECT_TRUE(IsError(Load("a", "b"), ErrorCode::invalid_request));
  EXPECT_EQ(Remove("a")["deleted"], true);
}

}  // namespace
}  // namespace perdure::worker
