#include "shm/arena_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>

#include "shm/arena_lock.h"
#include "tests/shm/scratch_arena.h"

namespace perdure::shm {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

struct stat StatOf(int fd) {
  struct stat st {};
  fstat(fd, &st);
  return st;
}

TEST(ArenaName, IsOneFileNameForAnyModel) {
  EXPECT_EQ(ArenaName("8000", "nano"), "perdure.8000.nano");
  EXPECT_EQ(ArenaName("a.b", "Qwen/Qwen3-0.6B"), "perdure.a%2Eb.Qwen%2FQwen3-0.6B");
  EXPECT_EQ(ArenaName("1", "ä%~"), "perdure.1.%C3%A4%25%7E");
  EXPECT_NE(ArenaName("1", "a/b"), ArenaName("1", "a%2Fb"));
  EXPECT_NE(ArenaName("1.a", "b"), ArenaName("1", "a.b"));
}

TEST(ArenaName, OfALongNameIsShortAndItsOwn) {
  const std::string slashes(200, '/');
  const std::string a = ArenaName("1", slashes + "a");
  EXPECT_LE(a.size(), 255u);
  EXPECT_NE(a, ArenaName("1", slashes + "b"));
  EXPECT_EQ(a, ArenaName("1", slashes + "a"));
}

TEST(ArenaSegment, IsTheSameForWhoeverOpensItNext) {
  const ScratchArena scratch;
  auto first = ArenaSegment::Open(scratch.instance(), "a/b", 1 << 20);
  ASSERT_TRUE(first.has_value()) << first.error().message;
  if (first->name().empty()) GTEST_SKIP() << first->unnamed_reason();
  EXPECT_EQ(StatOf(first->fd()).st_mode & 07777, 0600u);
  EXPECT_EQ(StatOf(first->fd()).st_size, 0);
  EXPECT_THAT(ListArenas(), Contains(first->name()));
  // A worker has the descriptor still, but not the owner's lock.
  const UniqueFd workers(fcntl(first->fd(), F_DUPFD_CLOEXEC, 0));
  first = Err(ErrorCode::io_error, "gone");
  auto second = ArenaSegment::Open(scratch.instance(), "a/b", 1 << 20);
  EXPECT_EQ(second->unnamed_reason(), "");
  EXPECT_EQ(StatOf(workers.get()).st_ino, StatOf(second->fd()).st_ino);
  second->Unlink();
  EXPECT_THAT(ListArenas(), Not(Contains(second->name())));
  // Who holds a descriptor has the memory still; a new name is new memory.
  ASSERT_EQ(ftruncate(workers.get(), 4096), 0);
  EXPECT_EQ(StatOf(second->fd()).st_size, 4096);
  const auto third = ArenaSegment::Open(scratch.instance(), "a/b", 1 << 20);
  EXPECT_NE(StatOf(second->fd()).st_ino, StatOf(third->fd()).st_ino);
}

TEST(ArenaSegment, HasOneOwner) {
  const ScratchArena scratch;
  auto first = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  if (first->name().empty()) GTEST_SKIP() << first->unnamed_reason();
  const auto second = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  ASSERT_TRUE(second.has_value()) << second.error().message;
  EXPECT_EQ(second->name(), "");
  EXPECT_THAT(second->unnamed_reason(), HasSubstr("another service uses /dev/shm/perdure."));
  EXPECT_NE(StatOf(first->fd()).st_ino, StatOf(second->fd()).st_ino);
}

TEST(ArenaSegment, OfADeadOwnerIsAnOrphan) {
  const ScratchArena scratch;
  auto segment = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  const std::string name = segment->name();
  if (name.empty()) GTEST_SKIP() << segment->unnamed_reason();
  const auto orphan = [&]() -> std::optional<uint64_t> {
    for (const OrphanedArena& found : ListOrphanedArenas())
      if (found.name == name) return found.bytes;
    return std::nullopt;
  };
  ASSERT_EQ(fallocate(segment->fd(), 0, 0, 1 << 20), 0);
  EXPECT_EQ(orphan(), std::nullopt);
  UniqueFd writer = LockArena(segment->fd(), ArenaLock::kWriter).value();
  segment = Err(ErrorCode::io_error, "gone");
  EXPECT_EQ(orphan(), std::nullopt) << "its worker is about to end";
  writer.reset();
  EXPECT_EQ(orphan(), 1 << 20);
}

TEST(ArenaSegment, ItsDescriptorIsNotInheritedByChance) {
  const ScratchArena scratch;
  const auto segment = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  EXPECT_NE(fcntl(segment->fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(ArenaSegment, IsAMemoryFileWhereDevShmIsTooSmall) {
  const ScratchArena scratch;
  const auto segment = ArenaSegment::Open(scratch.instance(), "m", uint64_t{1} << 60);
  ASSERT_TRUE(segment.has_value());
  EXPECT_EQ(segment->name(), "");
  EXPECT_THAT(segment->unnamed_reason(), HasSubstr("/dev/shm"));
  EXPECT_EQ(ftruncate(segment->fd(), 4096), 0);
}

TEST(ArenaSegment, IsClosedToOthersWhoeverMadeIt) {
  const ScratchArena scratch;
  auto segment = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  ASSERT_EQ(fchmod(segment->fd(), 0666), 0);
  segment = Err(ErrorCode::io_error, "gone");
  segment = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  EXPECT_EQ(StatOf(segment->fd()).st_mode & 07777, 0600u);
}

TEST(ArenaSegment, RefusesWhatBelongsToSomebodyElse) {
  const ScratchArena scratch;
  auto segment = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  if (fchown(segment->fd(), 65534, 65534) != 0) GTEST_SKIP() << "only root can give files away";
  segment = Err(ErrorCode::io_error, "gone");
  const auto refused = ArenaSegment::Open(scratch.instance(), "m", 1 << 20);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::forbidden);
  EXPECT_THAT(refused.error().message, HasSubstr("65534"));
}

TEST(OpenArenaForReading, TellsWhichThereAre) {
  const ScratchArena scratch;
  const auto segment = ArenaSegment::Open(scratch.instance(), "there", 1 << 20);
  const auto missing = OpenArenaForReading("perdure.x.nowhere");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_THAT(missing.error().message, HasSubstr(segment->name()));
  EXPECT_FALSE(OpenArenaForReading("../../etc/passwd").has_value());
  EXPECT_FALSE(OpenArenaForReading("").has_value());
  const auto fd = OpenArenaForReading(segment->name());
  ASSERT_TRUE(fd.has_value());
  EXPECT_NE(ftruncate(fd->get(), 4096), 0);
}

}  // namespace
}  // namespace perdure::shm
