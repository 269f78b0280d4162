#include "shm/status.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "base/check.h"

namespace perdure::shm {
namespace {

UniqueFd Copy(const StatusBlock& block) { return UniqueFd(dup(block.fd())); }

TEST(StatusBlock, BothSidesSeeTheSameMemory) {
  auto created = StatusBlock::Create();
  ASSERT_TRUE(created.has_value());
  auto attached = StatusBlock::Attach(Copy(*created).release());
  ASSERT_TRUE(attached.has_value()) << attached.error().message;
  EXPECT_NE(&**created, &**attached);
  (*attached)->progress = 42;
  EXPECT_EQ((*created)->progress, 42u);
  EXPECT_EQ((*created)->phase, static_cast<uint32_t>(Phase::kStarting));
}

TEST(StatusBlock, MovesWithoutMovingTheMemory) {
  auto created = StatusBlock::Create();
  StatusShm* address = &**created;
  StatusBlock moved = std::move(*created);
  EXPECT_EQ(&*moved, address);
  moved = std::move(*StatusBlock::Create());
  EXPECT_EQ(moved->progress, 0u);
}

TEST(StatusBlock, AChildCannotCutItShort) {
  auto created = StatusBlock::Create();
  EXPECT_NE(ftruncate(created->fd(), 0), 0);
  EXPECT_NE(ftruncate(created->fd(), 1 << 20), 0);
}

TEST(StatusBlock, AttachRefusesWhatIsNoStatusBlock) {
  EXPECT_FALSE(StatusBlock::Attach(-1).has_value());
  EXPECT_FALSE(StatusBlock::Attach(open("/dev/null", O_RDWR)).has_value());
  EXPECT_FALSE(StatusBlock::Attach(memfd_create("empty", 0)).has_value());
  const int zeros = memfd_create("zeros", 0);
  ASSERT_EQ(ftruncate(zeros, sizeof(StatusShm)), 0);
  EXPECT_FALSE(StatusBlock::Attach(zeros).has_value());
}

TEST(StatusBlock, AttachRefusesAnotherMagicVersionOrSize) {
  const auto refused = [](auto change) {
    auto block = StatusBlock::Create();
    change(**block);
    return !StatusBlock::Attach(Copy(*block).release()).has_value();
  };
  EXPECT_FALSE(refused([](StatusShm&) {}));
  EXPECT_TRUE(refused([](StatusShm& s) { ++s.magic; }));
  EXPECT_TRUE(refused([](StatusShm& s) { ++s.version; }));
  EXPECT_TRUE(refused([](StatusShm& s) { s.struct_bytes -= 8; }));
}

TEST(Manifest, StandsFromBeginToEnd) {
  auto block = StatusBlock::Create();
  StatusShm& status = **block;
  const std::vector<uint64_t> rids{11, 22, 33};
  BeginStep(status, 9, rids);
  EXPECT_EQ(ReadLastWords(status).step, 9u);
  EXPECT_EQ(ReadLastWords(status).step_rids, rids);
  EndStep(status);
  EXPECT_EQ(ReadLastWords(status).step, 0u);
  EXPECT_TRUE(ReadLastWords(status).step_rids.empty());
  EXPECT_EQ(status.steps_completed, 1u);
  EXPECT_EQ(status.progress, 1u);
}

TEST(Manifest, HasRoomForSoManyAndNoMore) {
  auto block = StatusBlock::Create();
  const std::vector<uint64_t> rids(limits::kSequencesMax + 50, 7);
  BeginStep(**block, 1, rids);
  EXPECT_EQ(ReadLastWords(**block).step_rids.size(), static_cast<size_t>(limits::kSequencesMax));
}

TEST(LastWords, GarbageIsClamped) {
  auto block = StatusBlock::Create();
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    auto* bytes = reinterpret_cast<unsigned char*>(&**block);
    for (size_t i = 0; i < sizeof(StatusShm); ++i) bytes[i] = static_cast<unsigned char>(random());
    const LastWords words = ReadLastWords(**block);
    EXPECT_LE(words.step_rids.size(), static_cast<size_t>(limits::kSequencesMax));
    EXPECT_LE(words.panic_text.size(), limits::kPanicTextBytes);
    EXPECT_LE(static_cast<uint32_t>(words.phase), static_cast<uint32_t>(Phase::kDraining));
  }
}

TEST(PanicSink, OutlivesTheProcess) {
  auto block = StatusBlock::Create();
  const int child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    InstallPanicSink(**block);
    CHECK_MSG(getpid() == 0, std::string(2000, 'y'));
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  const std::string text = ReadLastWords(**block).panic_text;
  EXPECT_NE(text.find("getpid() == 0"), std::string::npos);
  EXPECT_LE(text.size(), limits::kPanicTextBytes);
}

}  // namespace
}  // namespace perdure::shm
