// Environments for tests: opened, filled, read.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "snapshot/environment.h"

namespace perdure::snapshot {

inline EnvironmentOptions EnvironmentAt(const std::filesystem::path& file, bool sync = false) {
  return {.file = file, .name = "kv", .model = "nano", .bytes_max = 16 << 20, .sync = sync};
}

// Databases "a" and "b"; fails the test where it cannot be opened.
inline std::unique_ptr<Environment> OpenEnvironment(const EnvironmentOptions& options) {
  auto opened = Environment::Open(options, {"a", "b"});
  EXPECT_TRUE(opened.has_value()) << opened.error().message;
  return opened ? std::move(*opened) : nullptr;
}

using Content = std::map<std::string, std::string>;

inline Status PutAll(Environment* environment, const Content& content, size_t database = 0) {
  return environment->Write([&](Transaction& transaction) -> Status {
    for (const auto& [key, value] : content)
      RETURN_IF_ERROR(transaction.Put(environment->database(database), key, value));
    return {};
  });
}

inline Result<Content> GetAll(Environment* environment, size_t database = 0) {
  Content content;
  RETURN_IF_ERROR(environment->Read([&](Transaction& transaction) {
    return transaction.Scan(environment->database(database), {},
                            [&](std::string_view key, std::string_view value) {
                              content.emplace(key, value);
                              return true;
                            });
  }));
  return content;
}

inline std::string BytesOfFile(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteBytes(const std::filesystem::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

// FILE.damaged-…, oldest first.
inline std::vector<std::filesystem::path> PutAsideOf(const std::filesystem::path& file) {
  std::vector<std::filesystem::path> found;
  const std::string begin = file.filename().string() + ".damaged-";
  for (const auto& entry : std::filesystem::directory_iterator(file.parent_path()))
    if (entry.path().filename().string().starts_with(begin)) found.push_back(entry.path());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace perdure::snapshot
