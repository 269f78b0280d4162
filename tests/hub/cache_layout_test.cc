#include "hub/cache_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "hub/model_source.h"

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kCommit[] = "0123456789abcdef0123456789abcdef01234567";

class HubTest : public testing::Test {
 protected:
  HubTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-hub-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    cache_ = folder_ / "hub";
    places_.cache_dir = cache_;
    places_.executable_dir = folder_ / "prefix/bin";
  }
  ~HubTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  // As huggingface_hub leaves a download: a link into blobs.
  void AddModel(const std::string& folder) {
    const fs::path repo = cache_ / folder;
    Write(repo / "refs/main", kCommit);
    Write(repo / "refs/refs/pr/3", std::string(kCommit) + "\n");
    Write(repo / "blobs/abc", "{}");
    fs::create_directories(repo / "snapshots" / kCommit);
    fs::create_symlink("../../blobs/abc", repo / "snapshots" / kCommit / "config.json");
  }
  Result<fs::path> Find(const std::string& text) {
    const auto repo = ParseRepoId(text);
    if (!repo) return Err(repo.error());
    return FindSnapshot(cache_, *repo);
  }

  fs::path folder_, cache_;
  ModelPlaces places_;
};

TEST(ParseRepoId, TakesNamesAndRevisions) {
  const auto plain = ParseRepoId("Qwen/Qwen3-0.6B_x");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->org, "Qwen");
  EXPECT_EQ(plain->name, "Qwen3-0.6B_x");
  EXPECT_EQ(plain->revision, "main");
  EXPECT_EQ(RepoFolderName(*plain), "models--Qwen--Qwen3-0.6B_x");
  EXPECT_EQ(ParseRepoId("a/b@refs/pr/3")->revision, "refs/pr/3");
}

TEST(ParseRepoId, RefusesWhatCouldLeaveTheCache) {
  for (const char* text :
       {"",         "/",        "a",       "a/",   "/b",       "a/b/c",  "../b",   "a/..",
        "a/../b",   "a//b",     ".a/b",    "a/.b", "a/b.",     "a--b/c", "a/b--c", "-a/b",
        "a/b-",     "a\\b/c",   "a b/c",   "a/b@", "a/b@../x", "a/b@/x", "a/b@x/", "a/b@x//y",
        "a/b@.git", "a/b@x/.y", "a/b@x y", "~/b",  "a/b\n",    "C:/x"})
    EXPECT_FALSE(ParseRepoId(text).has_value()) << text;
  EXPECT_FALSE(ParseRepoId(std::string(97, 'a') + "/b").has_value());
  EXPECT_FALSE(ParseRepoId(std::string("a\0/b", 4)).has_value());
}

TEST_F(HubTest, FindsASnapshotByBranchCommitAndPullRequest) {
  AddModel("models--org--name");
  const fs::path expected = cache_ / "models--org--name/snapshots" / kCommit;
  for (const std::string& text :
       {std::string("org/name"), std::string("org/name@main"), std::string("org/name@refs/pr/3"),
        std::string("org/name@") + kCommit}) {
    const auto found = Find(text);
    ASSERT_TRUE(found.has_value()) << text << ": " << found.error().message;
    EXPECT_EQ(*found, expected);
    EXPECT_TRUE(FindModel(text, places_).has_value());
  }
}

TEST_F(HubTest, SaysWhereItLooked) {
  EXPECT_THAT(Find("org/name").error().message, HasSubstr(cache_ / "models--org--name"));
  AddModel("models--org--name");
  EXPECT_THAT(Find("org/name@v2").error().message, HasSubstr("refs/v2"));
  const std::string other(40, 'f');
  EXPECT_THAT(Find("org/name@" + other).error().message, HasSubstr("snapshots/" + other));
  const auto missing = FindModel("no/where", places_);
  EXPECT_THAT(missing.error().message, HasSubstr("does not download"));
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
}

TEST_F(HubTest, ARefThatHoldsNoCommitIsAnError) {
  AddModel("models--org--name");
  for (const std::string& text :
       {std::string("../../../../etc"), std::string(), std::string(40, 'g'), std::string(39, 'a'),
        std::string(100'000, 'a')}) {
    Write(cache_ / "models--org--name/refs/main", text);
    EXPECT_FALSE(Find("org/name").has_value()) << text.substr(0, 50);
  }
}

TEST_F(HubTest, AnIncompleteSnapshotIsSaid) {
  AddModel("models--org--name");
  fs::remove(cache_ / "models--org--name/blobs/abc");
  EXPECT_THAT(FindModel("org/name", places_).error().message, HasSubstr("no config.json"));
}

TEST_F(HubTest, ListsWhatIsInTheCache) {
  EXPECT_TRUE(ListCache(cache_).empty());
  AddModel("models--org--name");
  AddModel("models--a--b-c.d");
  Write(cache_ / "models--a--b-c.d/refs/v1", kCommit);
  Write(cache_ / "models--a--gone/refs/main", kCommit);  // no snapshot
  Write(cache_ / "models--x/refs/main", kCommit);        // no name
  AddModel("datasets--org--data");
  Write(cache_ / "version.txt", "1");
  fs::create_directories(cache_ / ".locks/models--org--name");
  std::vector<std::string> found;
  for (const RepoId& repo : ListCache(cache_))
    found.push_back(repo.org + "/" + repo.name + "@" + repo.revision);
  EXPECT_THAT(found, testing::ElementsAre("a/b-c.d@main", "a/b-c.d@v1", "org/name@main"));
}

TEST_F(HubTest, TheBuiltInModelLiesBesideTheProgram) {
  const auto missing = FindModel("nano", places_);
  ASSERT_FALSE(missing.has_value());
  EXPECT_THAT(missing.error().message, HasSubstr(folder_ / "prefix/share/perdure/models/nano"));
  Write(folder_ / "models/nano/config.json", "{}");
  EXPECT_FALSE(FindModel("nano", places_).has_value());
  Write(folder_ / "prefix/share/perdure/models/nano/config.json", "{}");
  EXPECT_EQ(*FindModel("nano", places_), folder_ / "prefix/share/perdure/models/nano");
  // As in a build tree.
  places_.executable_dir = folder_ / "build/release/bin";
  EXPECT_EQ(*FindModel("nano", places_), folder_ / "models/nano");
  places_.builtin_dir = folder_ / "elsewhere";
  EXPECT_FALSE(FindModel("nano", places_).has_value());
  Write(folder_ / "elsewhere/nano/config.json", "{}");
  EXPECT_EQ(*FindModel("nano", places_), folder_ / "elsewhere/nano");
}

TEST_F(HubTest, AFolderNeedsAConfig) {
  fs::create_directories(folder_ / "m");
  EXPECT_THAT(FindModel(folder_ / "none", places_).error().message,
              HasSubstr("there is no folder"));
  EXPECT_THAT(FindModel(folder_ / "m", places_).error().message, HasSubstr("config.json"));
  Write(folder_ / "m/config.json", "{}");
  EXPECT_EQ(*FindModel(folder_ / "x/../m", places_), folder_ / "m");
  EXPECT_THAT(FindModel("nothing", places_).error().message, HasSubstr("neither"));
  EXPECT_THAT(FindModel("../m", places_).error().message, HasSubstr("neither"));
}

}  // namespace
}  // namespace perdure::hub
