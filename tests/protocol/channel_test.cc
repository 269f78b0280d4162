#include "protocol/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstring>

#include "protocol/messages.h"

namespace perdure::protocol {
namespace {

struct Ends {
  Channel a, b;
};

Ends MakeEnds() {
  auto pair = MakeChannelPair();
  EXPECT_TRUE(pair.has_value());
  return {Channel(std::move(pair->a)), Channel(std::move(pair->b))};
}

UniqueFd OpenNull() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

bool SameFile(int a, int b) {
  struct stat x {
  }, y{};
  return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int DescriptorCount() {
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

TEST(Channel, CarriesFramesBothWays) {
  Ends ends = MakeEnds();
  ends.a.Send(Release{7});
  ends.a.Send(Cancel{8});
  ends.b.Send(Drained{});
  auto at_b = ends.b.OnReadable();
  ASSERT_EQ(at_b.frames.size(), 2u);
  EXPECT_EQ(Decode<Release>(at_b.frames[0].frame.payload)->rid, 7u);
  EXPECT_EQ(Decode<Cancel>(at_b.frames[1].frame.payload)->rid, 8u);
  EXPECT_FALSE(at_b.closed);
  EXPECT_EQ(ends.a.OnReadable().frames.size(), 1u);
  EXPECT_TRUE(ends.a.OnReadable().frames.empty());
}

TEST(Channel, CarriesADescriptorWithItsFrame) {
  Ends ends = MakeEnds();
  const UniqueFd original = OpenNull();
  ends.a.Send(Release{1});
  ends.a.Send(ChannelOffer{"x", 1, {}, {}}, UniqueFd(dup(original.get())));
  ends.a.Send(Release{2});
  ends.a.Send(NewChannel{}, OpenNull());
  auto outcome = ends.b.OnReadable();
  ASSERT_EQ(outcome.frames.size(), 4u);
  EXPECT_FALSE(outcome.frames[0].fd);
  ASSERT_TRUE(outcome.frames[1].fd);
  EXPECT_TRUE(SameFile(outcome.frames[1].fd.get(), original.get()));
  EXPECT_NE(fcntl(outcome.frames[1].fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(outcome.frames[2].fd);
  EXPECT_TRUE(outcome.frames[3].fd);
}

TEST(Channel, CarriesFilesOfConversationsBothWays) {
  Ends ends = MakeEnds();
  ends.a.Send(ConversationUpload{1, "t", "id", {}}, OpenNull());
  ends.b.Send(ConversationFile{2, "id", 100}, OpenNull());
  for (Channel* end : {&ends.a, &ends.b}) {
    const auto outcome = end->OnReadable();
    ASSERT_EQ(outcome.frames.size(), 1u);
    EXPECT_TRUE(outcome.frames[0].fd);
    EXPECT_FALSE(outcome.error);
  }
}

TEST(Channel, NeverBlocksAndKeepsTheOrderUnderBackPressure) {
  Ends ends = MakeEnds();
  const int descriptors = DescriptorCount();
  // Far more than the kernel's buffers take, with descriptors in between.
  constexpr int kFrames = 400;
  for (int i = 0; i < kFrames; ++i) {
    Event event;
    event.seq = static_cast<uint64_t>(i);
    event.text = std::string(10'000, 'x');
    ends.a.Send(event);
    if (i % 50 == 0) ends.a.Send(ChannelOffer{"m", static_cast<uint32_t>(i), {}, {}}, OpenNull());
  }
  EXPECT_TRUE(ends.a.wants_write());
  EXPECT_GT(ends.a.outbox_bytes(), 1'000'000u);
  int events = 0, offers = 0;
  while (events + offers < kFrames + kFrames / 50) {
    auto outcome = ends.b.OnReadable();
    ASSERT_FALSE(outcome.closed) << (outcome.error ? outcome.error->message : "");
    for (const ReceivedFrame& received : outcome.frames) {
      if (received.frame.type == MessageType::kChannelOffer) {
        EXPECT_TRUE(received.fd);
        EXPECT_EQ(Decode<ChannelOffer>(received.frame.payload)->epoch,
                  static_cast<uint32_t>(events - 1));
        ++offers;
      } else {
        EXPECT_EQ(Decode<Event>(received.frame.payload)->seq, static_cast<uint64_t>(events));
        ++events;
      }
    }
    ends.a.OnWritable();
  }
  EXPECT_FALSE(ends.a.wants_write());
  EXPECT_EQ(ends.a.outbox_bytes(), 0u);
  EXPECT_EQ(DescriptorCount(), descriptors);
}

TEST(Channel, TellsTheEndAfterTheLastWholeFrame) {
  Ends ends = MakeEnds();
  ends.a.Send(Release{1});
  std::string half = MakeFrame(Release{2});
  half.resize(half.size() - 1);
  ends.a.SendFrame(half, UniqueFd());
  { const Channel gone = std::move(ends.a); }
  auto outcome = ends.b.OnReadable();
  EXPECT_EQ(outcome.frames.size(), 1u);
  EXPECT_TRUE(outcome.closed);
  EXPECT_FALSE(outcome.error.has_value());
  EXPECT_TRUE(ends.b.OnReadable().closed);
}

TEST(Channel, SendingToAPeerThatIsGoneIsNoError) {
  Ends ends = MakeEnds();
  { const Channel gone = std::move(ends.b); }
  for (int i = 0; i < 100; ++i)
    ends.a.Send(ChannelOffer{std::string(100'000, 'x'), 1, {}, {}}, OpenNull());
  EXPECT_FALSE(ends.a.wants_write());
  EXPECT_EQ(ends.a.outbox_bytes(), 0u);
  EXPECT_TRUE(ends.a.OnReadable().closed);
}

TEST(Channel, ReadsNoMoreThanAboutAMebibyteACall) {
  Ends ends = MakeEnds();
  for (int i = 0; i < 40; ++i)
    ends.a.SendFrame(MakeFrame(Event{1, 0, 1, {}, std::string(100'000, 'x')}), {});
  size_t bytes = 0;
  for (int i = 0; i < 100; ++i) {
    size_t once = 0;
    for (const auto& received : ends.b.OnReadable().frames) once += received.frame.payload.size();
    EXPECT_LE(once, (size_t{1} << 20) + 200'000);
    bytes += once;
    ends.a.OnWritable();
  }
  EXPECT_GE(bytes, 4'000'000u);
}

void SendRaw(int socket, const std::string& bytes, const std::vector<int>& fds) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
  }
  ASSERT_EQ(sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

struct BadInput {
  const char* name;
  std::string bytes;
  int descriptors;
};

class BadInputTest : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, ClosesTheChannelWithAnErrorAndKeepsNoDescriptor) {
  const int before = DescriptorCount();
  {
    auto pair = MakeChannelPair();
    ASSERT_TRUE(pair.has_value());
    Channel reader(std::move(pair->b));
    const UniqueFd null = OpenNull();
    SendRaw(pair->a.get(), GetParam().bytes,
            std::vector<int>(static_cast<size_t>(GetParam().descriptors), null.get()));
    const auto outcome = reader.OnReadable();
    EXPECT_TRUE(outcome.closed);
    ASSERT_TRUE(outcome.error.has_value());
    EXPECT_EQ(outcome.error->code, ErrorCode::protocol_error);
    EXPECT_TRUE(outcome.frames.empty());
    EXPECT_TRUE(reader.OnReadable().closed);
  }
  EXPECT_EQ(DescriptorCount(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Inputs, BadInputTest,
    testing::Values(BadInput{"NoFrame", std::string(64, '\xff'), 0},
                    BadInput{"OfferWithoutDescriptor", MakeFrame(ChannelOffer{"x", 1, {}, {}}), 0},
                    BadInput{"NoFrameWithDescriptor", std::string(8, '\xff'), 1},
                    BadInput{"ManyDescriptors", MakeFrame(ChannelOffer{"x", 1, {}, {}}), 20},
                    BadInput{"TwoDescriptors", MakeFrame(ChannelOffer{"x", 1, {}, {}}).substr(0, 5),
                             2}),
    [](const auto& info) { return info.param.name; });

TEST(Channel, ADescriptorWithAFrameThatCarriesNoneIsAnError) {
  auto pair = MakeChannelPair();
  Channel reader(std::move(pair->b));
  const UniqueFd null = OpenNull();
  SendRaw(pair->a.get(), MakeFrame(Release{1}), {null.get()});
  const auto outcome = reader.OnReadable();
  EXPECT_TRUE(outcome.closed);
  EXPECT_TRUE(outcome.error.has_value());
}

}  // namespace
}  // namespace perdure::protocol
