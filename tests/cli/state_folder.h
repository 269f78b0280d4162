// A state folder with conversations, as a service leaves it, and what is in one.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/percent_encode.h"
#include "snapshot/kv_file.h"
#include "snapshot/turn_file.h"
#include "tests/snapshot/kv_pages.h"
#include "tests/snapshot/turns.h"

namespace perdure::cli {

namespace fs = std::filesystem;

inline fs::path ModelFolder(const fs::path& state, const std::string& model) {
  return state / "conversations" / PercentEncode(model, ".");
}

inline std::string BytesOf(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void WriteBytes(const fs::path& file, const std::string& bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

inline std::unique_ptr<snapshot::TurnFile> OpenTurns(const fs::path& state,
                                                     const std::string& model) {
  auto opened = snapshot::TurnFile::Open({.file = ModelFolder(state, model) / "turns.mdb",
                                          .model = model,
                                          .bytes_max = snapshot::kFileBytesMax,
                                          .sync = false});
  EXPECT_TRUE(opened.has_value()) << opened.error().message;
  return opened ? std::move(*opened) : nullptr;
}
inline std::unique_ptr<snapshot::KvFile> OpenPages(const fs::path& state,
                                                   const std::string& model) {
  auto opened = snapshot::KvFile::Open({.file = ModelFolder(state, model) / "kv.mdb",
                                        .model = model,
                                        .bytes_max = snapshot::kFileBytesMax,
                                        .sync = false});
  EXPECT_TRUE(opened.has_value()) << opened.error().message;
  return opened ? std::move(*opened) : nullptr;
}

// Conversations "a" of so many turns and "b" of one, and pages.
inline void FillModel(const fs::path& state, const std::string& model, size_t turns = 3,
                      uint32_t pages = 5) {
  fs::create_directories(ModelFolder(state, model));
  const auto file = OpenTurns(state, model);
  ASSERT_NE(file, nullptr);
  snapshot::CommitTurns(file.get(), "a", turns, 100);
  snapshot::CommitTurns(file.get(), "b", 1, 200);
  const auto kv = OpenPages(state, model);
  ASSERT_NE(kv, nullptr);
  for (uint32_t i = 0; i < pages; ++i) {
    const auto page = snapshot::NumberedPage(i, 70'000);
    const snapshot::PageToWrite write = page.ToWrite();
    ASSERT_TRUE(kv->Write(std::span(&write, 1)).has_value());
  }
}

// All that is in it, in words; the same for the same content.
inline std::string DumpTurns(const fs::path& state, const std::string& model) {
  const auto file = OpenTurns(state, model);
  if (file == nullptr) return "unreadable";
  std::string text;
  for (const std::string& problem : file->problems()) text += "problem: " + problem + '\n';
  auto found = file->TakeConversations();
  std::ranges::sort(found, {}, &snapshot::StoredConversation::id);
  for (const auto& conversation : found) {
    text += snapshot::Text(conversation) + '\n';
    for (uint32_t turn = 1; turn <= conversation.turns; ++turn) {
      const auto loaded = file->Load(conversation.owner, conversation.id, turn);
      text += "  " + (loaded ? snapshot::Text(*loaded) : loaded.error().message) + '\n';
    }
  }
  return text;
}
inline std::string DumpPages(const fs::path& state, const std::string& model) {
  const auto file = OpenPages(state, model);
  if (file == nullptr) return "unreadable";
  std::vector<std::string> lines;
  for (const std::string& problem : file->problems()) lines.push_back("problem: " + problem);
  for (const auto& page : file->TakePages()) {
    std::vector<std::byte> data(page.data_bytes);
    const Status read = file->Read(page, data);
    lines.push_back(fmt::format("{:016x} {} {:016x} {}", page.chain_hash, page.data_bytes,
                                page.data_checksum, read ? "whole" : read.error().message));
  }
  std::ranges::sort(lines);
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  return text;
}

// Every file and folder below, and what is in them; but the lock that says who was here last.
inline std::map<std::string, std::string> Listing(const fs::path& folder) {
  std::map<std::string, std::string> listing;
  if (!fs::exists(folder)) return listing;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    if (name == "lock" || entry.path().extension() == ".lock") continue;
    listing[name] = entry.is_regular_file() ? BytesOf(entry.path()) : "folder";
  }
  return listing;
}

}  // namespace perdure::cli
