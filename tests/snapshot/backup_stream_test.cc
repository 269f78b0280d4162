#include "snapshot/backup_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/limits.h"

namespace perdure::snapshot {
namespace {

using testing::HasSubstr;

class BackupStreamTest : public testing::Test {
 protected:
  BackupStreamTest() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    sender_.reset(fds[0]);
    receiver_.reset(fds[1]);
  }
  void SendRaw(const std::string& bytes) {
    ASSERT_EQ(write(sender_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd sender_, receiver_;
  std::atomic<bool> ends_ = false;
};

std::string Length(uint32_t bytes) { return {reinterpret_cast<const char*>(&bytes), sizeof bytes}; }

TEST_F(BackupStreamTest, PartsArriveInOrder) {
  std::thread sends([&] {
    EXPECT_TRUE(SendPart(sender_.get(),
                         {.kind = PartKind::kFile, .text = "turns.mdb", .bytes_max = 77}, ends_)
                    .has_value());
    EXPECT_TRUE(SendPart(sender_.get(),
                         {.kind = PartKind::kPortion,
                          .records = {{"turns", "key", std::string(3 << 20, 'v')},
                                      {"requests", std::string("\0k", 2), std::nullopt}}},
                         ends_)
                    .has_value());
  });
  const auto file = ReceivePart(receiver_.get());
  ASSERT_TRUE(file.has_value());
  EXPECT_EQ(file->kind, PartKind::kFile);
  EXPECT_EQ(file->text, "turns.mdb");
  EXPECT_EQ(file->bytes_max, 77u);
  const auto portion = ReceivePart(receiver_.get());
  sends.join();
  ASSERT_TRUE(portion.has_value());
  ASSERT_EQ(portion->records.size(), 2u);
  EXPECT_EQ(portion->records[0].value, std::string(3 << 20, 'v'));
  EXPECT_EQ(portion->records[1].key, std::string("\0k", 2));
  EXPECT_FALSE(portion->records[1].value.has_value());
}

TEST_F(BackupStreamTest, TheOthersEndIsNoticed) {
  SendRaw(Length(100) + "abc");
  sender_.reset();
  const auto part = ReceivePart(receiver_.get());
  ASSERT_FALSE(part.has_value());
  EXPECT_EQ(part.error().code, ErrorCode::worker_lost);
}

TEST_F(BackupStreamTest, TheReadersEndIsNoticed) {
  receiver_.reset();
  const Status sent = SendPart(sender_.get(), {}, ends_);
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code, ErrorCode::worker_lost);
}

TEST_F(BackupStreamTest, ASenderThatIsToEndWaitsForNobody) {
  Status sent;
  std::thread sends(
      [&] { sent = SendPart(sender_.get(), {.text = std::string(16 << 20, 'x')}, ends_); });
  ends_ = true;
  sends.join();
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code, ErrorCode::shutting_down);
}

TEST_F(BackupStreamTest, OtherBytesAreRefused) {
  SendRaw(Length(limits::kCopyPartBytesMax + 1));
  EXPECT_EQ(ReceivePart(receiver_.get()).error().code, ErrorCode::protocol_error);
  SendRaw(Length(5) + "abcde");
  EXPECT_EQ(ReceivePart(receiver_.get()).error().code, ErrorCode::protocol_error);
  BackupPart part;
  part.version = kBackupStreamVersion + 1;
  ASSERT_TRUE(SendPart(sender_.get(), part, ends_).has_value());
  const auto newer = ReceivePart(receiver_.get());
  ASSERT_FALSE(newer.has_value());
  EXPECT_THAT(newer.error().message, HasSubstr("of another version than this program"));
}

}  // namespace
}  // namespace perdure::snapshot
