// What LMDB has written is right, whatever was asked of it; what it would stumble over is not.
#include "snapshot/page_check.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

#include "base/file.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

std::string Problem(const std::filesystem::path& path, bool* is_damaged) {
  const Status status = CheckPages(path, is_damaged);
  return status ? "" : status.error().message;
}

// Many small records, long values of up to 50 pages, and lists of free pages that are long, too.
TEST(PageCheck, AllThatIsWrittenIsRight) {
  TempFolder folder;
  const auto path = folder.path() / "turns.mdb";
  auto opened = Environment::Open(
      {.file = path, .name = "turns", .model = "nano", .bytes_max = 48 << 20, .sync = false},
      {"one", "two"});
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  Environment& environment = **opened;
  std::mt19937 random(1);
  size_t full = 0;
  for (int step = 0; step < 400; ++step) {
    const Status written = environment.Write([&](Transaction& transaction) -> Status {
      for (int i = 0; i < 20; ++i) {
        const Database database = environment.database(random() % 2);
        const std::string key = std::to_string(random() % 500) + std::string(random() % 100, 'k');
        const bool is_long = random() % 8 == 0;
        const size_t bytes = random() % (is_long ? 200'000 : 1'500);
        if (step % 50 > 30 || random() % 3 == 0)
          RETURN_IF_ERROR(transaction.Delete(database, key));
        else
          RETURN_IF_ERROR(transaction.Put(database, key, std::string(bytes, 'v')));
      }
      if (step % 50 != 49) return {};
      // Nearly all at once.
      std::vector<std::string> keys;
      RETURN_IF_ERROR(transaction.ScanKeys(environment.database(0), {}, [&](std::string_view key) {
        keys.emplace_back(key);
        return keys.size() < 3000;
      }));
      for (const std::string& key : keys)
        RETURN_IF_ERROR(transaction.Delete(environment.database(0), key));
      return {};
    });
    full += !written;
    bool is_damaged = false;
    ASSERT_EQ(Problem(path, &is_damaged), "") << step;
    ASSERT_FALSE(is_damaged);
  }
  EXPECT_GT(environment.file_bytes(), uint64_t{8} << 20);
  EXPECT_LT(full, 390u);
}

TEST(PageCheck, DamageIsFound) {
  TempFolder folder;
  const auto whole = folder.path() / "turns.mdb", path = folder.path() / "damaged";
  {
    auto file = OpenTurns(whole);
    CommitTurns(file.get(), "a", 100, 1000);
    ASSERT_TRUE(file->Rewind(1, "a", 60).has_value());
  }
  const std::string bytes = *ReadFile(whole, 8 << 20);
  bool is_damaged = false;
  EXPECT_EQ(Problem(whole, &is_damaged), "");
  // Bounds of every page, and where its entries are.
  size_t found = 0, pages = 0;
  for (size_t at = 2 * 4096; at < bytes.size(); at += 4096) {
    uint16_t kind = 0;
    std::memcpy(&kind, bytes.data() + at + 10, 2);
    if (kind != 1 && kind != 2) continue;
    ++pages;
    bool is_found = true;
    for (const size_t field : {10, 12, 14, 16}) {
      std::string damaged = bytes;
      damaged[at + field + 1] = static_cast<char>(0x7f);
      ASSERT_TRUE(WriteFileAtomically(path, damaged, 0600).has_value());
      is_found = is_found && !Problem(path, &is_damaged).empty() && is_damaged;
    }
    found += is_found;
  }
  EXPECT_GT(pages, 10u);
  EXPECT_GT(found, pages / 3);  // the others are free
  ASSERT_TRUE(WriteFileAtomically(path, bytes.substr(0, bytes.size() / 2), 0600).has_value());
  EXPECT_NE(Problem(path, &is_damaged), "");
  EXPECT_TRUE(is_damaged);
  EXPECT_NE(Problem(folder.path() / "none", &is_damaged), "");
}

}  // namespace
}  // namespace perdure::snapshot
