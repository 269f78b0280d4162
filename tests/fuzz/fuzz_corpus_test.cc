// Replays what fuzzing has found, and the seeds, in every build: a target that aborts fails.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <vector>

#include "fuzz_target.h"

namespace perdure::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kCorpus = fs::path(PERDURE_SOURCE_DIR) / "tests/fuzz/corpus";

class FuzzCorpus : public testing::TestWithParam<std::string> {};

TEST_P(FuzzCorpus, Replays) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(kCorpus / GetParam()))
    files.push_back(entry.path());
  ASSERT_FALSE(files.empty());
  std::sort(files.begin(), files.end());
  for (const fs::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    std::cout << "replaying " << path.string() << std::endl;  // an abort leaves no other trace
    Targets().at(GetParam())(text.str());
  }
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const auto& [name, entry] : Targets()) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzCorpus, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

TEST(FuzzCorpusFolders, EachIsOfATarget) {
  std::set<std::string> folders;
  for (const auto& entry : fs::directory_iterator(kCorpus))
    folders.insert(entry.path().filename().string());
  const std::vector<std::string> names = Names();
  EXPECT_EQ(folders, std::set<std::string>(names.begin(), names.end()));
}

}  // namespace
}  // namespace perdure::fuzz
