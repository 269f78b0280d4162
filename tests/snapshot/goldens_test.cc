// Files that older versions have written. A version must read all of them: goldens/v1 and those
// after it are made once, by the first version that writes that format, and never again.
//
// A new format's: PERDURE_WRITE_GOLDENS=1 build/release/bin/snapshot_tests
// --gtest_filter='Goldens*'
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "shm/hashes.h"
#include "snapshot/format.h"
#include "snapshot/kv_file.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRoot = 0x0123456789abcdef;

fs::path FolderOf(uint32_t version) {
  return fs::path(PERDURE_SOURCE_DIR) / "tests/snapshot/goldens" / fmt::format("v{}", version);
}

// --- turns ---------------------------------------------------------------------------------------

void WriteTurns(const fs::path& path) {
  auto file = OpenTurns(path);
  std::vector<StoredTurn> turns;
  for (uint64_t rid = 10; rid < 13; ++rid) {
    turns.push_back(rid == 10 ? FirstTurn(rid) : NextTurn(turns.back(), rid));
    ASSERT_TRUE(file->Commit({7, "by name", true, "anna"}, turns.back()).has_value());
  }
  // Of no owner, without a name; a text, which has no messages.
  StoredTurn text = FirstTurn(20);
  text.messages.clear();
  text.message_hashes.clear();
  text.schedule = {};
  ASSERT_TRUE(file->Commit({0, "conv_0123", false, ""}, text).has_value());
  ASSERT_TRUE(file->Fork(7, "by name", 2, "fork", 1'800'000'000'000).has_value());
  ASSERT_TRUE(file->Commit({7, "fork", true, ""}, FirstTurn(30)).has_value());
  ASSERT_TRUE(file->Commit({7, "gone", true, ""}, FirstTurn(40)).has_value());
  ASSERT_TRUE(file->Delete(7, "gone").has_value());
  ASSERT_TRUE(file->Compact().has_value());
}

std::string DumpTurns(const fs::path& path) {
  auto file = OpenTurns(path);
  if (file == nullptr) return {};
  EXPECT_EQ(file->problems(), std::vector<std::string>{});
  std::vector<StoredConversation> found = file->TakeConversations();
  std::ranges::sort(found, {}, &StoredConversation::id);
  std::string text;
  for (const StoredConversation& conversation : found) {
    text += Text(conversation) + '\n';
    for (uint32_t turn = 1; turn <= conversation.turns; ++turn) {
      const auto loaded = file->Load(conversation.owner, conversation.id, turn);
      text += "  " + (loaded ? Text(*loaded) : loaded.error().message) + '\n';
    }
  }
  // That an answer is stored is known, too.
  const auto again = file->Commit({7, "x", true, ""}, FirstTurn(10));
  return text + "request 10: " + (again ? Text(*again) : again.error().message) + '\n';
}

// --- kv ------------------------------------------------------------------------------------------

std::string Numbers(size_t bytes, uint64_t seed) {
  std::string data;
  while (data.size() < bytes) {
    const uint64_t number = Hash64(fmt::format("{} {}", seed, data.size()));
    data.append(reinterpret_cast<const char*>(&number), sizeof number);
  }
  data.resize(bytes);
  return data;
}

// Every second byte is the same.
std::string SmoothNumbers(size_t bytes, uint64_t seed) {
  std::string data = Numbers(bytes, seed);
  for (size_t i = 1; i < data.size(); i += 2) data[i] = 0x3f;
  return data;
}

void WritePagesAs(const fs::path& path, KvCompression compression) {
  auto file = KvFile::Open(
      {.file = path, .model = "nano", .bytes_max = kFileBytesMax, .compression = compression});
  ASSERT_TRUE(file.has_value()) << file.error().message;
  uint64_t parent = kRoot;
  uint32_t position = 0;
  // One of several chunks; one whose last chunk is full; one that ends its chain.
  for (const size_t bytes : {kChunkBytes + 5, kChunkBytes, size_t{100}}) {
    const std::string data = compression == KvCompression::kNone ? Numbers(bytes, position)
                                                                 : SmoothNumbers(bytes, position);
    StoredPage page;
    page.parent = parent;
    page.position = position++;
    page.key = {static_cast<shm::PageFormat>(position % 3), 7, position * 11};
    for (int i = 0; i < (bytes == 100 ? 5 : 32); ++i)
      page.tokens.push_back(static_cast<TokenId>(position * 1000) + i);
    page.chain_hash = parent = shm::ChainHash(parent, page.key, shm::TokensHash(page.tokens));
    page.drawn = position * 3;
    page.data_checksum = Hash64(data);
    page.data_bytes = static_cast<uint32_t>(bytes);
    page.used_unix_s = 1'700'000'000 + position;
    const PageToWrite write{page, std::as_bytes(std::span(data))};
    const Status written = (*file)->Write(std::span(&write, 1));
    ASSERT_TRUE(written.has_value()) << written.error().message;
  }
  ASSERT_TRUE((*file)->Compact().has_value());
}

void WritePages(const fs::path& path) { WritePagesAs(path, KvCompression::kNone); }
void WriteCompressedPages(const fs::path& path) { WritePagesAs(path, KvCompression::kZstd); }

std::string DumpPages(const fs::path& path) {
  auto file = KvFile::Open({.file = path, .model = "nano", .bytes_max = kFileBytesMax});
  if (!file) return file.error().message;
  EXPECT_EQ((*file)->problems(), std::vector<std::string>{});
  std::vector<StoredPage> pages = (*file)->TakePages();
  std::ranges::sort(pages, {}, &StoredPage::position);
  std::string text;
  for (const StoredPage& page : pages) {
    std::string data(page.data_bytes, '\0');
    const Status read = (*file)->Read(page, std::as_writable_bytes(std::span(data)));
    text += fmt::format(
        "{:x} after {:x} position {} format {} owner {} mask {} tokens {} drawn {} used {} bytes "
        "{} "
        "{:x} {}\n",
        page.chain_hash, page.parent, page.position, static_cast<int>(page.key.format),
        page.key.owner, page.key.mask, page.tokens, page.drawn, page.used_unix_s, page.data_bytes,
        page.data_checksum,
        !read                                             ? read.error().message
        : data == Numbers(page.data_bytes, page.position) ? "as written"
        : data == SmoothNumbers(page.data_bytes, page.position)
            ? fmt::format("as written, codec {}", static_cast<int>(page.compression))
            : "other numbers");
  }
  return text;
}

// -------------------------------------------------------------------------------------------------

void WriteGolden(const fs::path& golden, void (*write)(const fs::path&),
                 std::string (*dump)(const fs::path&)) {
  ASSERT_FALSE(fs::exists(golden)) << golden << " is for ever; a new format has a new folder";
  fs::create_directories(golden.parent_path());
  TempFolder folder;
  const fs::path file = folder.path() / "file.mdb";
  write(file);
  fs::copy_file(file, golden);
  fs::path text = golden;
  text.replace_extension(".txt");
  ASSERT_TRUE(WriteFileAtomically(text, dump(file), 0644).has_value());
}

void ExpectGolden(const char* name, void (*write)(const fs::path&),
                  std::string (*dump)(const fs::path&)) {
  const fs::path newest = FolderOf(kFormatVersion) / fmt::format("{}.mdb", name);
  if (std::getenv("PERDURE_WRITE_GOLDENS") != nullptr && !fs::exists(newest))
    WriteGolden(FolderOf(kFormatVersion) / fmt::format("{}.mdb", name), write, dump);
  for (uint32_t version = 1; version <= kFormatVersion; ++version) {
    SCOPED_TRACE(version);
    TempFolder folder;
    const fs::path file = folder.path() / "file.mdb";
    fs::copy_file(FolderOf(version) / fmt::format("{}.mdb", name), file);
    const auto expected = ReadFile(FolderOf(version) / fmt::format("{}.txt", name), 1 << 20);
    ASSERT_TRUE(expected.has_value()) << expected.error().message;
    EXPECT_EQ(dump(file), *expected);
    // And again: what an Open of this version has done to it is as right.
    EXPECT_EQ(dump(file), *expected);
    EXPECT_LT(fs::file_size(FolderOf(version) / fmt::format("{}.mdb", name)), 200'000u);
  }
}

TEST(Goldens, Turns) { ExpectGolden("turns", WriteTurns, DumpTurns); }
TEST(Goldens, Pages) { ExpectGolden("kv", WritePages, DumpPages); }
TEST(Goldens, CompressedPages) { ExpectGolden("kv_zstd", WriteCompressedPages, DumpPages); }

}  // namespace
}  // namespace perdure::snapshot
