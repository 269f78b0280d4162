#include "worker/kv_store.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "tests/worker/fake_model.h"

namespace perdure::worker {
namespace {

// A killed service's worker may still be giving its memory back when the next service starts.
TEST(KvStore, WaitsForAWriterThatEnds) {
  const UniqueFd arena(memfd_create("arena", MFD_CLOEXEC));
  const FakeModel fake = MakeFakeModel();
  const auto open = [&] {
    return OpenKvStore(fake.engine->info(),
                       {.arena_fd = arena.get(), .pages_budget = 8, .pages_max = 8})
        .value();
  };
  auto first = open();
  first->Seal(*first->Allocate(), shm::kNoPage, {}, std::vector<TokenId>(shm::kArenaPageTokens, 7));
  std::thread end([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    first.reset();
  });
  const auto second = open();
  end.join();
  EXPECT_EQ(second->recovery().kept, 1u);
}

// What is stored on disk is found by it: pages of other weights must not be.
TEST(KvStore, ChainsBeginTheSameWithAndWithoutAnArena) {
  const UniqueFd arena(memfd_create("arena", MFD_CLOEXEC));
  const FakeModel fake = MakeFakeModel();
  const auto root = [&](int fd, uint64_t fingerprint) {
    return OpenKvStore(
               fake.engine->info(),
               {.arena_fd = fd, .pages_budget = 8, .pages_max = 8, .fingerprint = fingerprint})
        .value()
        ->memory()
        .root();
  };
  EXPECT_EQ(root(arena.get(), 5), root(-1, 5));
  EXPECT_NE(root(-1, 5), root(-1, 6));
}

}  // namespace
}  // namespace perdure::worker
