#include "frontend/conversation_file_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <string>

#include "base/limits.h"
#include "protocol/channel.h"
#include "tests/frontend/call_fakes.h"

namespace perdure::frontend {
namespace {

UniqueFd AnyFd() { return UniqueFd(eventfd(0, EFD_CLOEXEC)); }

class Port final : public WorkerPort {
 public:
  void Send(std::string frame) override { Take(std::move(frame)); }
  void SendWithFd(std::string frame, UniqueFd fd) override {
    Take(std::move(frame));
    EXPECT_TRUE(protocol::CarriesFd(frames.back().type));
    fds.push_back(std::move(fd));
  }
  size_t outbox_bytes() const override { return 0; }
  template <class T>
  std::vector<T> All() const {
    std::vector<T> messages;
    for (const auto& frame : frames)
      if (frame.type == T::kType) messages.push_back(*protocol::Decode<T>(frame.payload));
    return messages;
  }

  std::vector<protocol::Frame> frames;
  std::vector<UniqueFd> fds;

 private:
  void Take(std::string bytes) {
    reader_.Append(bytes);
    while (auto frame = *reader_.Next()) frames.push_back(std::move(*frame));
  }
  protocol::FrameReader reader_;
};

class ConversationFileCallsTest : public testing::Test {
 protected:
  Status Start(protocol::RequestId rid, bool upload = false) {
    ConversationFileCall call;
    call.command.id = "a";
    call.command.tenant = "t";
    if (upload) {
      call.upload = std::make_shared<UploadedFile>();
      call.upload->fd = AnyFd();
    }
    return calls_.Start(rid, std::move(call), 1, &port_, &sink_, 0);
  }
  ConversationFileCalls calls_;
  Port port_;
  WholeAnswerSink sink_;
};

TEST_F(ConversationFileCallsTest, AFileIsTheResponse) {
  ASSERT_TRUE(Start(7));
  const auto commands = port_.All<protocol::ConversationFileCommand>();
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_EQ(commands[0].rid, 7u);
  calls_.OnFile(2, {7, "a", 10}, AnyFd());
  calls_.OnFile(1, {8, "a", 10}, AnyFd());
  EXPECT_TRUE(sink_.responses.empty()) << "of another worker, or of another call";
  calls_.OnFile(1, {7, "a", 10}, AnyFd());
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].content_length, 10u);
  ASSERT_EQ(sink_.files.size(), 1u);
  EXPECT_TRUE(sink_.files[0]);
  EXPECT_EQ(calls_.active(), 0u);
  calls_.OnFile(1, {7, "a", 10}, AnyFd());
  EXPECT_EQ(sink_.responses.size(), 1u);
}

TEST_F(ConversationFileCallsTest, AnUploadGoesWithItsFile) {
  ASSERT_TRUE(Start(7, true));
  const auto uploads = port_.All<protocol::ConversationUpload>();
  ASSERT_EQ(uploads.size(), 1u);
  EXPECT_EQ(uploads[0].rid, 7u);
  EXPECT_EQ(uploads[0].tenant, "t");
  EXPECT_EQ(uploads[0].id, "a");
  ASSERT_EQ(port_.fds.size(), 1u);
  EXPECT_TRUE(port_.fds[0]);
  EXPECT_TRUE(calls_.OnAnswer(1, {7, 0, R"({"id":"a"})", ""}));
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].body, R"({"id":"a"})");
}

TEST_F(ConversationFileCallsTest, ErrorsHaveTheirStatus) {
  ASSERT_TRUE(Start(7));
  EXPECT_TRUE(calls_.OnAnswer(
      1, {7, static_cast<uint16_t>(ErrorCode::insufficient_storage), "It is full.", ""}));
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 507);
  ASSERT_TRUE(Start(8));
  EXPECT_FALSE(calls_.OnAnswer(1, {8, 0, "{", ""})) << "no JSON is a breach";
}

TEST_F(ConversationFileCallsTest, AWorkerIsToldWhenNobodyWaits) {
  ASSERT_TRUE(Start(7));
  calls_.OnClientGone(7);
  calls_.OnClientGone(9);
  ASSERT_EQ(port_.All<protocol::Cancel>().size(), 1u);
  EXPECT_EQ(port_.All<protocol::Cancel>()[0].rid, 7u);
  EXPECT_TRUE(sink_.responses.empty());
  ASSERT_TRUE(Start(8));
  calls_.OnTick(limits::kFileCallWaitMs - 1);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(limits::kFileCallWaitMs);
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 429);
  EXPECT_EQ(port_.All<protocol::Cancel>().size(), 2u);
  ASSERT_TRUE(Start(9));
  calls_.EndAll();
  EXPECT_EQ(sink_.responses.back().status, 503);
  EXPECT_EQ(port_.All<protocol::Cancel>().size(), 3u);
}

TEST_F(ConversationFileCallsTest, AWorkerThatEndsAnswersNoMore) {
  ASSERT_TRUE(Start(7));
  calls_.OnWorkerGone(2);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnWorkerGone(1);
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 503);
  EXPECT_TRUE(port_.All<protocol::Cancel>().empty()) << "its channel is gone";
}

TEST_F(ConversationFileCallsTest, ThereIsAMost) {
  for (size_t i = 0; i < limits::kConversationCallsMax; ++i) ASSERT_TRUE(Start(i + 1));
  const Status refused = Start(1000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::overloaded);
}

}  // namespace
}  // namespace perdure::frontend
