#include "shm/arena.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "shm/hashes.h"
#include "shm/page_store.h"
#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

constexpr PageIndex kPages = 32;
constexpr ArenaSpec kSpec{
    .fingerprint = 11, .numerics = 22, .shape = {kMixedBytes, kPages, 4}, .pages_budget = kPages};

UniqueFd MemoryFile() { return UniqueFd(memfd_create("arena", MFD_CLOEXEC)); }

ArenaGeometry Geometry() { return *ArenaGeometry::For(kSpec.shape); }

// The store of a new writer, which must be able to attach.
std::unique_ptr<PageStore> Open(int fd, std::string* reset_reason = nullptr,
                                const ArenaSpec& spec = kSpec) {
  auto arena = Arena::Attach(fd, spec);
  if (!arena) {
    ADD_FAILURE() << arena.error().message;
    return nullptr;
  }
  if (reset_reason != nullptr) *reset_reason = (*arena)->reset_reason();
  return std::make_unique<PageStore>(std::move(*arena), spec.pages_budget);
}

// Random work by a writer that ends properly; the pages it leaves cached.
PageIndex Work(int fd, uint64_t seed, int steps = 300) {
  const auto store = Open(fd);
  RandomUser user(store.get(), seed);
  for (int i = 0; i < steps; ++i) user.Step();
  user.ReleaseAll();
  return store->cached();
}

void FlipByte(int fd, uint64_t offset, uint8_t mask) {
  uint8_t byte = 0;
  ASSERT_EQ(pread(fd, &byte, 1, static_cast<off_t>(offset)), 1);
  byte ^= mask;
  ASSERT_EQ(pwrite(fd, &byte, 1, static_cast<off_t>(offset)), 1);
}

TEST(Arena, KeepsItsPagesForTheNextWriter) {
  const UniqueFd fd = MemoryFile();
  std::string reason;
  Open(fd.get(), &reason);
  EXPECT_EQ(reason, "it is new");
  const PageIndex cached = Work(fd.get(), 1);
  ASSERT_GT(cached, 10u);
  const auto store = Open(fd.get(), &reason);
  EXPECT_EQ(reason, "");
  EXPECT_EQ(store->recovery().kept, cached);
  EXPECT_EQ(store->recovery().dropped, 0u);
  EXPECT_EQ(store->referenced(), 0u);
  EXPECT_EQ(store->available(), kPages);
  EXPECT_EQ(CountRightPages(store.get()), cached);
  EXPECT_EQ(store->damaged(), 0u);
}

TEST(Arena, CountsItsWriters) {
  const UniqueFd fd = MemoryFile();
  for (uint64_t epoch = 1; epoch <= 3; ++epoch)
    EXPECT_EQ((*Arena::Attach(fd.get(), kSpec))->epoch(), epoch);
}

TEST(Arena, TakesNoMoreMemoryThanItsSlabs) {
  const UniqueFd fd = MemoryFile();
  const auto blocks = [&] {
    struct stat st {};
    fstat(fd.get(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  };
  ArenaSpec spec = kSpec;
  spec.shape.page_bytes = {{limits::kArenaSlabBytes / 2}};
  const auto geometry = *ArenaGeometry::For(spec.shape);
  const uint64_t described =
      geometry.descriptors_offset + geometry.pages_max * sizeof(PageDescriptorShm);
  auto store = Open(fd.get(), nullptr, spec);
  EXPECT_EQ(blocks(), geometry.descriptors_offset);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store->Allocate().has_value());
  EXPECT_EQ(blocks(), described + 2 * limits::kArenaSlabBytes);
  EXPECT_EQ(store->bytes_granted(), 2 * limits::kArenaSlabBytes);
  store->Release(2);
  EXPECT_EQ(store->ReleaseUnused(), limits::kArenaSlabBytes);
  EXPECT_EQ(blocks(), described + limits::kArenaSlabBytes);
  // What a dead writer had open goes back to the system.
  store.reset();
  store = Open(fd.get(), nullptr, spec);
  EXPECT_EQ(blocks(), described);
}

TEST(Arena, StartsAnewWhereItDoesNotFit) {
  const auto reason_after = [](auto change) {
    const UniqueFd fd = MemoryFile();
    Work(fd.get(), 1);
    ArenaSpec spec = kSpec;
    change(fd.get(), &spec);
    std::string reason;
    const auto store = Open(fd.get(), &reason, spec);
    EXPECT_EQ(store->cached() == 0, !reason.empty());
    EXPECT_EQ(CountRightPages(store.get()), store->cached());
    // And it is a sound arena for whoever comes next.
    RandomUser(store.get(), 5).Step();
    return reason;
  };
  const auto with_header = [&](auto change) {
    return reason_after([&](int fd, ArenaSpec*) {
      ArenaHeaderShm header;
      ASSERT_EQ(pread(fd, static_cast<void*>(&header), sizeof header, 0), ssize_t{sizeof header});
      change(&header);
      header.checksum = HeaderChecksum(header);
      ASSERT_EQ(pwrite(fd, &header, sizeof header, 0), ssize_t{sizeof header});
    });
  };
  EXPECT_EQ(reason_after([](int, ArenaSpec*) {}), "");
  EXPECT_EQ(reason_after([](int, ArenaSpec* s) { ++s->fingerprint; }), "the model has changed");
  EXPECT_NE(reason_after([](int, ArenaSpec* s) { ++s->numerics; }), "");
  EXPECT_NE(reason_after([](int, ArenaSpec* s) { s->shape.page_bytes.values[0] *= 2; }), "");
  EXPECT_NE(reason_after([](int, ArenaSpec* s) { s->shape.page_bytes.values[2] = 0; }), "");
  EXPECT_NE(reason_after([](int, ArenaSpec* s) { s->shape.conversations_max = 5; }), "");
  EXPECT_EQ(reason_after([](int, ArenaSpec* s) { s->shape.conversations_max = 3; }), "");
  EXPECT_NE(reason_after([](int, ArenaSpec* s) { s->shape.pages_max = s->pages_budget = 64; }), "");
  // Room for more than is wanted is no reason: what is wanted follows the memory that is free.
  EXPECT_EQ(reason_after([](int, ArenaSpec* s) { s->shape.pages_max = 64; }), "");
  EXPECT_EQ(reason_after([](int, ArenaSpec* s) { s->shape.pages_max = s->pages_budget = 5; }), "");

  EXPECT_EQ(with_header([](ArenaHeaderShm*) {}), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->magic; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->version; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->signature; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->header_bytes; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->page_bytes[1] = 64; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->page_tokens = 16; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->pages_max = UINT32_MAX; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->pages_max; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->slots_per_slab[0] = 0; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->slots_per_slab[2] = UINT32_MAX; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->pages_wanted = UINT32_MAX; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->conversations_max = UINT32_MAX; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->slabs; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->conversations_offset = 0; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->slab_bytes = uint64_t{1} << 60; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->descriptors_offset += 64; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { h->slabs_offset = 0; }), "");
  EXPECT_NE(with_header([](ArenaHeaderShm* h) { ++h->file_bytes; }), "");
  EXPECT_EQ(with_header([](ArenaHeaderShm* h) { h->epoch = UINT64_MAX; }), "");
  EXPECT_EQ(with_header([](ArenaHeaderShm* h) { h->descriptors_granted = UINT32_MAX; }), "");

  EXPECT_EQ(reason_after([](int fd, ArenaSpec*) { FlipByte(fd, 30, 1); }), "its header is damaged");
  EXPECT_NE(reason_after([](int fd, ArenaSpec*) { ASSERT_EQ(ftruncate(fd, 5000), 0); }), "");
  EXPECT_NE(reason_after([](int fd, ArenaSpec*) { ASSERT_EQ(ftruncate(fd, 100), 0); }), "");
  EXPECT_NE(reason_after([](int fd, ArenaSpec*) { ASSERT_EQ(ftruncate(fd, 1 << 30), 0); }), "");
}

TEST(Arena, AHeaderThatWasBegunIsNone) {
  for (size_t bytes = 0; bytes <= sizeof(ArenaHeaderShm); bytes += 4) {
    const UniqueFd fd = MemoryFile();
    Work(fd.get(), 1);
    // The magic is written last; so much of the rest was.
    char zeros[sizeof(ArenaHeaderShm)] = {};
    ASSERT_GT(pwrite(fd.get(), zeros, 8, 0), 0);
    if (bytes < sizeof zeros) {
      ASSERT_GT(pwrite(fd.get(), zeros, sizeof zeros - bytes, static_cast<off_t>(bytes)), 0);
    }
    std::string reason;
    EXPECT_EQ(Open(fd.get(), &reason)->cached(), 0u);
    EXPECT_NE(reason, "");
  }
}

TEST(Arena, RefusesWhatIsNoMemoryFile) {
  EXPECT_FALSE(Arena::Attach(-1, kSpec).has_value());
  const UniqueFd null(open("/dev/null", O_RDWR));
  EXPECT_FALSE(Arena::Attach(null.get(), kSpec).has_value());
  const UniqueFd fd = MemoryFile();
  ArenaSpec none = kSpec;
  none.shape.page_bytes = {};
  EXPECT_FALSE(Arena::Attach(fd.get(), none).has_value());
}

TEST(Arena, HasOneWriter) {
  const UniqueFd fd = MemoryFile();
  auto first = Arena::Attach(fd.get(), kSpec);
  ASSERT_TRUE(first.has_value());
  const auto refused = [&] {
    const auto second = Arena::Attach(fd.get(), kSpec);
    return !second && second.error().code == ErrorCode::overloaded &&
           second.error().message.find(std::to_string(getpid())) != std::string::npos;
  };
  EXPECT_TRUE(refused());
  // Another process with the same inherited descriptor is no better off.
  const int child = fork();
  if (child == 0) _exit(Arena::Attach(fd.get(), kSpec).has_value() ? 1 : 0);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  first->reset();
  EXPECT_TRUE(Arena::Attach(fd.get(), kSpec).has_value());
}

TEST(Arena, ADeadWritersLockIsGoneWithIt) {
  const UniqueFd fd = MemoryFile();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const int child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto arena = Arena::Attach(fd.get(), kSpec);
    (void)!write(ready[1], "x", 1);
    pause();
    _exit(arena.has_value());
  }
  char byte;
  EXPECT_EQ(read(ready[0], &byte, 1), 1);
  const auto while_it_lives = Arena::Attach(fd.get(), kSpec);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  ASSERT_FALSE(while_it_lives.has_value());
  EXPECT_NE(while_it_lives.error().message.find(std::to_string(child)), std::string::npos);
  EXPECT_TRUE(Arena::Attach(fd.get(), kSpec).has_value());
  close(ready[0]);
  close(ready[1]);
}

TEST(Arena, SurvivesWritersThatAreKilled) {
  const UniqueFd fd = MemoryFile();
  std::mt19937 random(9);
  int with_pages = 0;
  for (uint64_t round = 0; round < 40; ++round) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const int child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      auto arena = Arena::Attach(fd.get(), kSpec);
      if (!arena) _exit(1);
      PageStore store(std::move(*arena), kPages);
      (void)!write(ready[1], "x", 1);
      RandomUser user(&store, round);
      for (;;) user.Step();
    }
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    usleep(random() % 10'000);
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    close(ready[0]);
    close(ready[1]);
    std::string reason;
    const auto store = Open(fd.get(), &reason);
    ASSERT_EQ(reason, "");
    EXPECT_EQ(store->recovery().dropped, 0u);
    EXPECT_EQ(CountRightPages(store.get()), store->recovery().kept);
    EXPECT_EQ(store->damaged(), 0u);
    with_pages += store->recovery().kept > 0;
  }
  EXPECT_GT(with_pages, 20);
}

TEST(Arena, FlippedBytesNeverMakeAWrongPage) {
  const auto geometry = Geometry();
  const uint64_t descriptors_end =
      geometry.descriptors_offset + geometry.pages_max * sizeof(PageDescriptorShm);
  const uint64_t data_end = geometry.file_bytes;
  std::mt19937_64 random(4);
  size_t kept = 0, lost = 0, damaged = 0;
  for (uint64_t round = 0; round < 300; ++round) {
    const UniqueFd fd = MemoryFile();
    const PageIndex cached = Work(fd.get(), round % 7, 150);
    for (uint64_t flips = 1 + random() % 20; flips-- > 0;) {
      const uint64_t parts[3][2] = {{0, sizeof(ArenaHeaderShm)},
                                    {geometry.descriptors_offset, descriptors_end},
                                    {geometry.slabs_offset, data_end}};
      // Most headers stay whole, or there would be nothing to see.
      const auto& part = parts[random() % 40 == 0 ? 0 : 1 + random() % 2];
      FlipByte(fd.get(), part[0] + random() % (part[1] - part[0]),
               static_cast<uint8_t>(1 + random() % 255));
    }
    const auto store = Open(fd.get());
    const size_t right = CountRightPages(store.get());
    // Pages that nobody has looked for in vain are the right ones.
    EXPECT_EQ(right, store->cached());
    // A descriptor that the flip brought back from the dead can be right, too.
    EXPECT_LE(right, size_t{cached} + 20);
    kept += right;
    lost += cached > right ? cached - right : 0;
    damaged += store->damaged();
    // And work goes on.
    RandomUser user(store.get(), round);
    for (int i = 0; i < 50; ++i) user.Step();
    EXPECT_EQ(CountRightPages(store.get()), store->cached());
  }
  EXPECT_GT(kept, 500u);
  EXPECT_GT(lost, 500u);
  EXPECT_GT(damaged, 100u);
}

// Descriptors with right checksums, as only a faulty writer would leave them.
class ForgedDescriptors : public testing::Test {
 protected:
  ForgedDescriptors() : fd_(MemoryFile()) {
    const auto store = Open(fd_.get());
    ReleaseAll(store.get(), PutWord(store.get(), {0, 0, 0}));
  }

  void Change(PageIndex page, const std::function<void(PageDescriptorShm*)>& change,
              PageIndex from = kNoPage) {
    const auto offset = [](PageIndex p) {
      return static_cast<off_t>(Geometry().descriptors_offset + p * sizeof(PageDescriptorShm));
    };
    PageDescriptorShm descriptor;
    ASSERT_GT(pread(fd_.get(), static_cast<void*>(&descriptor), sizeof descriptor,
                    offset(from == kNoPage ? page : from)),
              0);
    change(&descriptor);
    descriptor.checksum = DescriptorChecksum(descriptor, page);
    ASSERT_GT(pwrite(fd_.get(), &descriptor, sizeof descriptor, offset(page)), 0);
  }

  PageStore::Recovery Recovered() {
    const auto store = Open(fd_.get());
    EXPECT_EQ(CountRightPages(store.get()), store->cached());
    return store->recovery();
  }

  UniqueFd fd_;
};

TEST_F(ForgedDescriptors, NoneIsTheBeginning) { EXPECT_EQ(Recovered().kept, 3u); }

TEST_F(ForgedDescriptors, ACycle) {
  Change(0, [](PageDescriptorShm* d) { d->parent_page = 2; });
  EXPECT_EQ(Recovered().kept, 0u);
}

TEST_F(ForgedDescriptors, ItsOwnParent) {
  Change(1, [](PageDescriptorShm* d) { d->parent_page = 1; });
  EXPECT_EQ(Recovered().kept, 1u);
}

TEST_F(ForgedDescriptors, AParentBeyondAllPages) {
  Change(1, [](PageDescriptorShm* d) { d->parent_page = kPages + 5; });
  EXPECT_EQ(Recovered().kept, 1u);
  Change(0, [](PageDescriptorShm* d) { d->position = UINT32_MAX; });
  EXPECT_EQ(Recovered().kept, 0u);
}

TEST_F(ForgedDescriptors, AParentThatIsGone) {
  Change(0, [](PageDescriptorShm* d) { d->state = static_cast<uint32_t>(PageState::kFree); });
  EXPECT_EQ(Recovered().dropped, 2u);
}

TEST_F(ForgedDescriptors, TheSamePageTwice) {
  Change(
      7, [](PageDescriptorShm*) {}, 1);
  const auto recovery = Recovered();
  EXPECT_EQ(recovery.kept, 3u);
  EXPECT_EQ(recovery.dropped, 1u);
}

TEST_F(ForgedDescriptors, AStateThatThereIsNot) {
  Change(2, [](PageDescriptorShm* d) { d->state = 77; });
  EXPECT_EQ(Recovered().kept, 2u);
}

TEST_F(ForgedDescriptors, ACopyOfAnothersDescriptor) {
  PageDescriptorShm descriptor;
  ASSERT_GT(pread(fd_.get(), static_cast<void*>(&descriptor), sizeof descriptor,
                  static_cast<off_t>(Geometry().descriptors_offset)),
            0);
  ASSERT_GT(pwrite(fd_.get(), &descriptor, sizeof descriptor,
                   static_cast<off_t>(Geometry().descriptors_offset + sizeof descriptor)),
            0);
  const auto recovery = Recovered();
  EXPECT_EQ(recovery.kept, 1u);
  EXPECT_EQ(recovery.dropped, 2u);
}

TEST_F(ForgedDescriptors, OtherTokensThanItsHashSays) {
  const auto other = TokensOf({1});
  Change(0, [&](PageDescriptorShm* d) { std::ranges::copy(other, d->tokens); });
  EXPECT_EQ(Recovered().kept, 0u);
}

TEST_F(ForgedDescriptors, AnotherOwner) {
  Change(1, [](PageDescriptorShm* d) { d->owner = 99; });
  EXPECT_EQ(Recovered().kept, 1u);
}

TEST_F(ForgedDescriptors, CountsBeyondAPage) {
  for (const uint32_t count : {0u, 33u, UINT32_MAX}) {
    Change(2, [&](PageDescriptorShm* d) { d->count = count; });
    EXPECT_EQ(Recovered().kept, 2u);
  }
}

TEST_F(ForgedDescriptors, AFormatThatThereIsNot) {
  Change(2, [](PageDescriptorShm* d) { d->format = PageFormat{3}; });
  EXPECT_EQ(Recovered().kept, 2u);
}

TEST_F(ForgedDescriptors, SlotsOfOthersOrOfNobody) {
  for (const SlotIndex slot : {SlotIndex{0}, SlotIndex{3}, SlotIndex{100'000}, kNoSlot - 1}) {
    Change(2, [&](PageDescriptorShm* d) { d->slot = slot; });
    EXPECT_EQ(Recovered().kept, 2u) << slot;
  }
  // In a slab of another format.
  Change(
      1, [](PageDescriptorShm* d) { d->format = PageFormat::kBits4; }, 1);
  EXPECT_EQ(Recovered().kept, 1u);
}

TEST_F(ForgedDescriptors, AHollowPageIsNoDamage) {
  Change(1, [](PageDescriptorShm* d) { d->slot = kNoSlot; });
  const auto recovery = Recovered();
  EXPECT_EQ(recovery.kept, 2u);
  EXPECT_EQ(recovery.hollow, 1u);
  EXPECT_EQ(recovery.dropped, 0u);
}

TEST_F(ForgedDescriptors, UsedInAllEternity) {
  Change(0, [](PageDescriptorShm* d) { d->last_use = UINT64_MAX; });
  EXPECT_EQ(Recovered().kept, 3u);
}

TEST_F(ForgedDescriptors, HolesInTheData) {
  const auto geometry = Geometry();
  ASSERT_EQ(fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(geometry.slabs_offset),
                      static_cast<off_t>(geometry.slabs * geometry.slab_bytes)),
            0);
  const auto store = Open(fd_.get());
  EXPECT_EQ(store->recovery().kept, 3u);
  EXPECT_EQ(CountRightPages(store.get()), 0u);
  EXPECT_EQ(store->damaged(), 3u);
  EXPECT_EQ(store->cached(), 0u);
}

// A file system of 40 MiB for one process, as /dev/shm of a container is.
TEST(Arena, AFullDevShmIsNoPageAndNoSigbus) {
  const auto folder = std::filesystem::temp_directory_path() / "perdure_full_shm";
  std::filesystem::create_directories(folder);
  const int child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0) _exit(77);
    mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=40m") != 0) _exit(77);
    const UniqueFd fd(open((folder / "arena").c_str(), O_RDWR | O_CREAT, 0600));
    ArenaSpec spec = kSpec;
    spec.shape.page_bytes = {{limits::kArenaSlabBytes / 4}};
    auto arena = Arena::Attach(fd.get(), spec);
    if (!arena) _exit(1);
    PageStore store(std::move(*arena), kPages);
    // Two slabs of 16 MiB fit, the third does not.
    for (int i = 0; i < 4; ++i) {
      const auto page = store.Allocate();
      if (!page) _exit(2);
      std::memset(store.address(*page), i, store.page_bytes());
    }
    if (store.Allocate()) _exit(3);
    store.Release(2);
    if (store.Allocate() != 2u) _exit(4);
    // Where not even the descriptors fit, it is an error.
    std::ofstream(folder / "filler") << std::string(8 << 20, 'x');
    const UniqueFd other(open((folder / "other").c_str(), O_RDWR | O_CREAT, 0600));
    const auto refused = Arena::Attach(other.get(), spec);
    _exit(!refused && refused.error().code == ErrorCode::out_of_memory ? 0 : 5);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::filesystem::remove(folder);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "needs to mount";
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace perdure::shm
