#include "shm/arena_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "base/clock.h"
#include "base/limits.h"
#include "shm/arena.h"
#include "shm/hashes.h"
#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

using testing::HasSubstr;

constexpr ArenaSpec kSpec{
    .fingerprint = 0xabc, .numerics = 0xdef, .shape = {kMixedBytes, 32, 4}, .pages_budget = 32};

UniqueFd MemoryFile() { return UniqueFd(memfd_create("arena", MFD_CLOEXEC)); }

std::unique_ptr<PageStore> Open(int fd) {
  auto arena = Arena::Attach(fd, kSpec);
  return arena ? std::make_unique<PageStore>(std::move(*arena), kSpec.pages_budget) : nullptr;
}

TEST(ArenaReport, OfAnArenaInUse) {
  const UniqueFd fd = MemoryFile();
  const auto store = Open(fd.get());
  const std::vector<PageIndex> chain = PutWord(store.get(), {0, 1, 2});
  const std::vector<PageIndex> other = PutWord(store.get(), {0, 2});
  store->Release(other[1]);
  store->Release(store->Seal(*store->Allocate(), chain[0], {}, std::vector<TokenId>{1, 2, 3}));
  ASSERT_TRUE(store->Allocate().has_value());
  const auto report = ReadArena(fd.get());
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->problems_found, 0u) << report->problems.front();
  EXPECT_EQ(report->version, kArenaVersion);
  EXPECT_EQ(report->fingerprint, 0xabcu);
  EXPECT_EQ(report->numerics, 0xdefu);
  EXPECT_EQ(report->writer, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(report->epoch, 1u);
  EXPECT_EQ(report->page_bytes, kMixedBytes);
  EXPECT_EQ(report->pages_wanted, 32u);
  EXPECT_EQ(report->sealed, (PerFormat<uint32_t>{{2, 1, 2}}));
  EXPECT_EQ(report->Sealed(), 5u);
  EXPECT_EQ(report->hollow, 0u);
  EXPECT_EQ(report->open, 1u);
  EXPECT_EQ(report->free, report->pages_max - 6);
  ASSERT_EQ(report->longest_chains.size(), 3u);
  EXPECT_EQ(report->longest_chains[0].pages, 3u);
  EXPECT_EQ(report->longest_chains[0].tokens, 96u);
  EXPECT_EQ(report->longest_chains[0].page, chain[2]);
  EXPECT_EQ(report->longest_chains[1].pages, 2u);
  EXPECT_EQ(report->longest_chains[2].tokens, 35u);
}

TEST(ArenaReport, OfWhatIsNone) {
  EXPECT_FALSE(ReadArena(-1).has_value());
  const UniqueFd fd = MemoryFile();
  EXPECT_THAT(ReadArena(fd.get())->problems.front(), HasSubstr("empty"));
  ASSERT_EQ(ftruncate(fd.get(), 10), 0);
  EXPECT_EQ(ReadArena(fd.get())->problems_found, 1u);
  // A sparse file that says it is enormous.
  ArenaHeaderShm header{};
  header.magic = kArenaMagic;
  header.version = kArenaVersion;
  header.signature = kArenaSignature;
  header.pages_max = header.descriptors_granted = UINT32_MAX;
  header.descriptors_offset = kArenaConversationsOffset;
  header.checksum = HeaderChecksum(header);
  ASSERT_GT(pwrite(fd.get(), &header, sizeof header, 0), 0);
  EXPECT_EQ(ReadArena(fd.get())->pages_read, 0u);
  ASSERT_EQ(ftruncate(fd.get(), off_t{1} << 40), 0);
  EXPECT_EQ(ReadArena(fd.get())->pages_read, limits::kArenaDescriptorsMax);
}

TEST(ArenaReport, TellsWhatIsWrong) {
  const UniqueFd fd = MemoryFile();
  {
    const auto store = Open(fd.get());
    PutWord(store.get(), {0, 1, 2});
  }
  const auto write = [&](PageIndex page, size_t field, uint32_t value) {
    const auto offset = ArenaGeometry::For(kSpec.shape)->descriptors_offset +
                        page * sizeof(PageDescriptorShm) + field;
    ASSERT_GT(pwrite(fd.get(), &value, sizeof value, static_cast<off_t>(offset)), 0);
  };
  write(0, offsetof(PageDescriptorShm, state), 0);
  auto report = *ReadArena(fd.get());
  EXPECT_EQ(report.problems_found, 1u);
  EXPECT_THAT(report.problems.front(), HasSubstr("page 1: the page before it"));
  write(1, offsetof(PageDescriptorShm, chain_hash), 0);
  EXPECT_THAT(ReadArena(fd.get())->problems.front(),
              HasSubstr("page 1: its descriptor is damaged"));
  for (PageIndex page = 0; page < 32; ++page) write(page, offsetof(PageDescriptorShm, state), 99);
  report = *ReadArena(fd.get());
  EXPECT_EQ(report.problems_found, 32u);
  EXPECT_EQ(report.problems.size(), limits::kArenaProblemsShown);
}

TEST(ArenaReport, SurvivesARunningWriterAndAnyDamage) {
  const UniqueFd fd = MemoryFile();
  const auto start_writer = [&](uint64_t seed) {
    const int child = fork();
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(STDERR_FILENO);
    const auto store = Open(fd.get());
    if (!store) _exit(1);
    RandomUser user(store.get(), seed);
    for (;;) user.Step();
  };
  std::mt19937_64 random(5);
  int undisturbed = 0;
  for (uint64_t round = 0; round < 8; ++round) {
    const int writer = start_writer(round);
    // Beside a writer that does nothing wrong there is nothing wrong to see.
    for (int64_t end = MonotonicMs() + 60'000;
         ReadArena(fd.get())->Sealed() == 0 && MonotonicMs() < end;)
      usleep(1000);
    for (int i = 0; i < 100; ++i) {
      const auto report = ReadArena(fd.get());
      ASSERT_TRUE(report.has_value());
      for (const std::string& problem : report->problems)
        EXPECT_THAT(problem, testing::Not(HasSubstr("descriptor")));
      undisturbed += report->Sealed() > 0;
    }
    for (int i = 0; i < 100; ++i) {
      if (random() % 50 == 0) {
        (void)!ftruncate(fd.get(), static_cast<off_t>(random() % (6 << 20)));
      } else {
        const uint64_t garbage = random();
        const uint64_t place = random() % 2 == 0 ? random() % 128 : random() % 12'000;
        (void)!pwrite(fd.get(), &garbage, 1 + random() % 8, static_cast<off_t>(place));
      }
      const auto report = ReadArena(fd.get());
      ASSERT_TRUE(report.has_value());
      EXPECT_LE(report->pages_read, limits::kArenaDescriptorsMax);
      EXPECT_LE(report->problems.size(), limits::kArenaProblemsShown);
      for (const auto& chain : report->longest_chains) EXPECT_LE(chain.pages, report->pages_read);
    }
    // The writer may have met its end where the file was cut short.
    kill(writer, SIGKILL);
    waitpid(writer, nullptr, 0);
    const auto store = Open(fd.get());
    ASSERT_NE(store, nullptr);
    EXPECT_EQ(CountRightPages(store.get()), store->cached());
  }
  EXPECT_GT(undisturbed, 100);
}

}  // namespace
}  // namespace perdure::shm
