// The layers, held against the code: which folder may include which, by their #include lines.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace perdure {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"protocol", {"base"}},
    {"shm", {"base"}},
    {"snapshot", {"base", "shm"}},
    {"engine", {"base"}},
    {"text", {"base"}},
    {"hub", {"base"}},
    {"supervisor", {"base", "protocol", "shm", "hub"}},
    {"worker", {"base", "protocol", "shm", "snapshot", "engine", "text"}},
    {"frontend", {"base", "protocol", "shm"}},
    {"cli", {"base", "protocol", "shm", "snapshot", "engine", "text", "hub"}},
    {"programs", {"base", "protocol", "supervisor", "worker", "frontend", "cli"}},
};

// Sockets and shared memory are not the business of these.
const std::set<std::string> kPure = {"engine", "text"};
const std::vector<std::string> kSystemOnlyForShells = {
    "sys/socket.h", "netinet/",           "sys/epoll.h", "boost/asio",
    "boost/beast",  "boost/interprocess", "curl/"};

struct Include {
  fs::path file;
  int line;
  std::string target;
};

std::vector<Include> IncludesBelow(const fs::path& folder) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::vector<Include> includes;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension();
    if (extension != ".h" && extension != ".cc" && extension != ".inc") continue;
    std::ifstream in(entry.path());
    std::string text;
    for (int line = 1; std::getline(in, text); ++line) {
      std::smatch match;
      if (std::regex_search(text, match, kInclude))
        includes.push_back({entry.path(), line, match[1]});
    }
  }
  return includes;
}

const fs::path kSource = PERDURE_SOURCE_DIR;

TEST(Layers, IncludesGoOneWay) {
  for (const auto& [layer, allowed] : kMayInclude) {
    const std::vector<Include> includes = IncludesBelow(kSource / layer);
    EXPECT_FALSE(includes.empty()) << "nothing was read below " << layer;
    for (const Include& include : includes) {
      const std::string first = include.target.substr(0, include.target.find('/'));
      if (first == layer || !kMayInclude.contains(first)) continue;
      EXPECT_TRUE(allowed.contains(first)) << include.file << ":" << include.line << " includes "
                                           << include.target << ": " << layer << " may not";
    }
  }
}

TEST(Layers, EngineAndTextKnowNoSocketsAndNoSharedMemory) {
  for (const std::string& layer : kPure) {
    for (const Include& include : IncludesBelow(kSource / layer)) {
      for (const std::string& banned : kSystemOnlyForShells) {
        EXPECT_FALSE(include.target.starts_with(banned))
            << include.file << ":" << include.line << " includes " << include.target;
      }
    }
  }
}

TEST(Layers, EveryFolderWithCodeIsALayer) {
  const std::set<std::string> not_layers = {"tests", "bench", "tools", "build",
                                            "cmake", "docs",  "etc",   "models"};
  for (const auto& entry : fs::directory_iterator(kSource)) {
    const std::string name = entry.path().filename();
    if (!entry.is_directory() || name.starts_with('.') || not_layers.contains(name)) continue;
    EXPECT_TRUE(kMayInclude.contains(name)) << name << " is not in the table of layers";
  }
}

}  // namespace
}  // namespace perdure
