// A process that dies in the middle of what it does to a file.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <map>

#include "snapshot/kv_file.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/kv_pages.h"

namespace perdure::snapshot {
namespace {

uint32_t BytesOf(uint32_t number) { return 1 + number * 7919 % 150'000; }

// Writes and deletes, tells each that is done, and compacts now and then; for ever.
[[noreturn]] void Work(const KvFile::Options& options, uint32_t first, int tell) {
  auto opened = KvFile::Open(options);
  if (!opened) _exit(1);
  KvFile& file = **opened;
  for (uint32_t number = first;; ++number) {
    const PageWithData page = NumberedPage(number, BytesOf(number));
    if (!file.Write(std::array{page.ToWrite()})) _exit(2);
    if (write(tell, &number, sizeof number) != sizeof number) _exit(3);
    if (number >= 20) {
      const uint64_t old = NumberedPage(number - 20, BytesOf(number - 20)).page.chain_hash;
      if (!file.Delete(std::span(&old, 1))) _exit(4);
    }
    if (number % 7 == 0 && !file.Compact()) _exit(5);
  }
}

class KillTest : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Sync, KillTest, testing::Bool());

TEST_P(KillTest, WhatWasAcknowledgedIsThere) {
  const TempFolder folder;
  const KvFile::Options options{
      .file = folder.path() / "kv.mdb", .model = "nano", .bytes_max = 64 << 20, .sync = GetParam()};
  uint32_t next = 0;  // not acknowledged yet
  for (uint32_t round = 0; round < 30; ++round) {
    int told[2];
    ASSERT_EQ(pipe(told), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(told[0]);
      Work(options, next, told[1]);
    }
    close(told[1]);
    // Killed when it goes on after so many; what it tells meanwhile counts as well.
    uint32_t number = 0;
    for (uint32_t i = 0; i <= round % 9; ++i)
      ASSERT_EQ(read(told[0], &number, sizeof number), static_cast<ssize_t>(sizeof number));
    for (uint32_t i = 0; i < round * 37 % 11; ++i) usleep(50);
    kill(child, SIGKILL);
    while (read(told[0], &next, sizeof next) == static_cast<ssize_t>(sizeof next)) number = next;
    close(told[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    next = number + 1;

    auto opened = KvFile::Open(options);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    EXPECT_TRUE((*opened)->problems().empty());
    EXPECT_TRUE(PutAsideOf(options.file).empty());
    std::map<uint64_t, StoredPage> found;
    for (StoredPage& page : (*opened)->TakePages()) found.emplace(page.chain_hash, page);
    // Of the older ones some may be deleted.
    for (uint32_t i = next < 20 ? 0 : next - 20; i < next; ++i) {
      const PageWithData page = NumberedPage(i, BytesOf(i));
      const auto it = found.find(page.page.chain_hash);
      if (i + 20 < next || (it == found.end() && i + 20 == next)) continue;
      ASSERT_NE(it, found.end()) << i << " of " << next;
      EXPECT_TRUE(Same(it->second, page.page));
      std::vector<std::byte> data(page.page.data_bytes);
      ASSERT_TRUE((*opened)->Read(it->second, data).has_value());
      EXPECT_TRUE(data == page.data);
    }
    // Each death may leave one that was about to be deleted, or was not acknowledged yet.
    EXPECT_LE(found.size(), 22u + 2 * round);
  }
}

}  // namespace
}  // namespace perdure::snapshot
