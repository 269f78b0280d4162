// Backups of what is stored, while it is stored.
#include "worker/disk_backup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "snapshot/backup_stream.h"
#include "snapshot/copy_file.h"
#include "snapshot/kv_file.h"
#include "tests/worker/disk_fixture.h"

namespace perdure::worker {
namespace {

namespace fs = std::filesystem;
using snapshot::BackupPart;
using snapshot::PartKind;
using testing::HasSubstr;

class DiskBackupTest : public DiskPersistenceTest {
 protected:
  // The end that reads.
  UniqueFd Begin(bool kv) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    disk_->BackUp(UniqueFd(ends[1]), kv);
    return UniqueFd(ends[0]);
  }
  BackupPart Next(const UniqueFd& from) {
    auto part = snapshot::ReceivePart(from.get());
    EXPECT_TRUE(part.has_value()) << part.error().message;
    return part ? std::move(*part) : BackupPart{.kind = PartKind::kFailed, .text = "no part"};
  }
  // All of it, from the part after `first` on, to files in backup_.
  void Receive(const UniqueFd& from) {
    std::unique_ptr<snapshot::CopyFile> copy;
    for (;;) {
      BackupPart part = Next(from);
      switch (part.kind) {
        case PartKind::kFile: {
          auto begun = snapshot::CopyFile::Begin(backup_ / part.text, part.bytes_max);
          ASSERT_TRUE(begun.has_value()) << begun.error().message;
          copy = std::move(*begun);
          break;
        }
        case PartKind::kPortion:
          ASSERT_TRUE(copy->Apply({std::move(part.records), false}).has_value());
          ++portions_;
          break;
        case PartKind::kFileEnd:
          ASSERT_TRUE(copy->Finish().has_value());
          break;
        case PartKind::kSkipped:
          skipped_ = part.text;
          copy.reset();
          break;
        case PartKind::kDone:
          return;
        default:
          FAIL() << part.text;
      }
    }
  }
  std::map<std::string, uint32_t> CopiedTurns() {
    auto file = snapshot::TurnFile::Open(
        {.file = backup_ / "turns.mdb", .model = "nano", .bytes_max = uint64_t{512} << 20});
    EXPECT_TRUE(file.has_value()) << file.error().message;
    if (!file) return {};
    EXPECT_THAT((*file)->problems(), testing::IsEmpty());
    std::map<std::string, uint32_t> turns;
    for (const auto& each : (*file)->TakeConversations()) turns[each.id] = each.turns;
    return turns;
  }
  size_t CopiedPages() {
    auto file = snapshot::KvFile::Open(
        {.file = backup_ / "kv.mdb", .model = "nano", .bytes_max = uint64_t{512} << 20});
    EXPECT_TRUE(file.has_value()) << file.error().message;
    if (!file) return 0;
    EXPECT_THAT((*file)->problems(), testing::IsEmpty());
    size_t whole = 0;
    for (const auto& page : (*file)->TakePages()) {
      std::vector<std::byte> data(page.data_bytes);
      whole += (*file)->Read(page, data).has_value() ? 1 : 0;
    }
    return whole;
  }
  void KeepPages(int first, int count, size_t bytes) {
    std::vector<PageToKeep> pages;
    for (int i = first; i < first + count; ++i) pages.push_back(PageOf(nullptr, i, bytes));
    disk_->KeepPages(std::move(pages), {});
  }

  const TempFolder backup_folder_;
  const fs::path backup_ = backup_folder_.path();
  std::string skipped_;
  int portions_ = 0;
};

TEST_F(DiskBackupTest, HasWhatWasStoredBefore) {
  Open();
  for (uint64_t rid = 1; rid <= 30; ++rid)
    Keep("c" + std::to_string(rid % 3), TurnOf(rid, 200'000));
  KeepPages(0, 40, 100'000);
  Await(31);
  Receive(Begin(true));
  EXPECT_GT(portions_, 6);
  EXPECT_EQ(CopiedTurns(), (std::map<std::string, uint32_t>{{"c0", 10}, {"c1", 10}, {"c2", 10}}));
  EXPECT_EQ(CopiedPages(), 40u);
}

TEST_F(DiskBackupTest, PagesAreLeftOutWhereNobodyWantsThem) {
  Open();
  Keep("a", TurnOf(1));
  KeepPages(0, 3, 1000);
  Await(2);
  Receive(Begin(false));
  EXPECT_EQ(CopiedTurns().size(), 1u);
  EXPECT_FALSE(fs::exists(backup_ / "kv.mdb"));
}

// Who reads does not read, and turns and pages are stored all the same; then all of them are in it.
TEST_F(DiskBackupTest, NobodyWaitsForIt) {
  Open();
  for (uint64_t rid = 1; rid <= 40; ++rid) Keep("a", TurnOf(rid, 200'000));
  Await(40);
  const UniqueFd from = Begin(true);
  EXPECT_EQ(Next(from).kind, PartKind::kFile);  // it has begun
  std::unique_ptr<snapshot::CopyFile> copy =
      std::move(*snapshot::CopyFile::Begin(backup_ / "turns.mdb", options_.turns_bytes_max));
  for (uint64_t rid = 100; rid < 140; ++rid) {
    Keep(rid % 2 == 0 ? "a" : "b", TurnOf(rid, 100'000));
    KeepPages(2 * static_cast<int>(rid), 2, 50'000);
  }
  Await(40 + 40 + 40);
  for (const TurnKept& kept : kept_) EXPECT_TRUE(kept.conversation.has_value());
  for (BackupPart part = Next(from); part.kind != PartKind::kFileEnd; part = Next(from)) {
    ASSERT_EQ(part.kind, PartKind::kPortion);
    ASSERT_TRUE(copy->Apply({std::move(part.records), false}).has_value());
  }
  ASSERT_TRUE(copy->Finish().has_value());
  Receive(from);
  EXPECT_EQ(CopiedTurns(), (std::map<std::string, uint32_t>{{"a", 60}, {"b", 20}}));
  EXPECT_EQ(CopiedPages(), 80u);
}

TEST_F(DiskBackupTest, OneAtATime) {
  Open();
  for (uint64_t rid = 1; rid <= 20; ++rid) Keep("a", TurnOf(rid, 200'000));
  Await(20);
  const UniqueFd first = Begin(false);
  const BackupPart second = Next(Begin(false));
  EXPECT_EQ(second.kind, PartKind::kFailed);
  EXPECT_THAT(second.text, HasSubstr("another backup of this model is under way"));
  Receive(first);
  EXPECT_EQ(CopiedTurns()["a"], 20u);
  // And then the next one.
  const UniqueFd third = Begin(false);
  fs::remove(backup_ / "turns.mdb");
  Receive(third);
  EXPECT_EQ(CopiedTurns()["a"], 20u);
}

TEST_F(DiskBackupTest, EndsWithItsReaderAndWithTheWorker) {
  Open();
  for (uint64_t rid = 1; rid <= 20; ++rid) Keep("a", TurnOf(rid, 500'000));
  Await(20);
  Begin(false).reset();  // the reader is gone
  UniqueFd from;
  for (BackupPart part{.kind = PartKind::kFailed}; part.kind == PartKind::kFailed;) {
    from = Begin(false);  // as soon as the first one has noticed
    part = Next(from);
  }
  disk_.reset();  // in the middle: it does not wait for who does not read
  for (;;) {
    const auto part = snapshot::ReceivePart(from.get());
    if (part && part->kind == PartKind::kPortion) continue;
    ASSERT_FALSE(part.has_value()) << static_cast<int>(part->kind);
    EXPECT_EQ(part.error().code, ErrorCode::worker_lost);
    break;
  }
}

}  // namespace
}  // namespace perdure::worker
