#include "protocol/frame.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/limits.h"

namespace perdure::protocol {
namespace {

std::string ThreeFrames() {
  std::string bytes;
  AppendFrame(MessageType::kEvent, "first", &bytes);
  AppendFrame(MessageType::kRelease, "", &bytes);
  AppendFrame(MessageType::kEnd, std::string(1000, 'x'), &bytes);
  return bytes;
}

std::vector<Frame> TakeAll(FrameReader& reader) {
  std::vector<Frame> frames;
  for (;;) {
    auto next = reader.Next();
    EXPECT_TRUE(next.has_value());
    if (!next || !*next) return frames;
    frames.push_back(std::move(**next));
  }
}

TEST(FrameReader, TakesAStreamSplitAtEveryByte) {
  const std::string bytes = ThreeFrames();
  for (size_t split = 0; split <= bytes.size(); ++split) {
    FrameReader reader;
    reader.Append(std::string_view(bytes).substr(0, split));
    std::vector<Frame> frames = TakeAll(reader);
    reader.Append(std::string_view(bytes).substr(split));
    for (Frame& frame : TakeAll(reader)) frames.push_back(std::move(frame));
    ASSERT_EQ(frames.size(), 3u) << split;
    EXPECT_EQ(frames[0].type, MessageType::kEvent);
    EXPECT_EQ(frames[0].payload, "first");
    EXPECT_EQ(frames[1].payload, "");
    EXPECT_EQ(frames[2].payload.size(), 1000u);
    EXPECT_EQ(reader.pending_bytes(), 0u);
  }
}

TEST(FrameReader, TakesAStreamByteByByte) {
  const std::string bytes = ThreeFrames();
  FrameReader reader;
  size_t frames = 0;
  for (const char c : bytes) {
    reader.Append({&c, 1});
    frames += TakeAll(reader).size();
  }
  EXPECT_EQ(frames, 3u);
}

// As docs/wire_protocol.md shows it.
TEST(Frame, TheWorkedExample) {
  const unsigned char expected[] = {0x0c, 0, 0, 0, 9, 0, 1, 0,    8, 7,
                                    6,    5, 4, 3, 2, 1, 0, 0x10, 0, 0};
  EXPECT_EQ(MakeFrame(Credit{0x0102030405060708, 4096}),
            std::string(reinterpret_cast<const char*>(expected), sizeof expected));
}

TEST(FrameReader, RefusesAnotherVersion) {
  FrameHeaderWire header{0, 1, kProtocolVersion + 1};
  FrameReader reader;
  reader.Append({reinterpret_cast<const char*>(&header), sizeof header});
  const auto next = reader.Next();
  ASSERT_FALSE(next.has_value());
  EXPECT_EQ(next.error().code, ErrorCode::protocol_error);
}

TEST(FrameReader, RefusesASizeBeyondTheBoundBeforeItsBytesCome) {
  FrameHeaderWire header{static_cast<uint32_t>(limits::kFrameBytesMax + 1), 1, kProtocolVersion};
  FrameReader reader;
  reader.Append({reinterpret_cast<const char*>(&header), sizeof header});
  EXPECT_FALSE(reader.Next().has_value());
}

TEST(FrameReader, AnUnfinishedFrameWaits) {
  std::string bytes;
  AppendFrame(MessageType::kEvent, "whole", &bytes);
  AppendFrame(MessageType::kEvent, "half", &bytes);
  FrameReader reader;
  reader.Append(std::string_view(bytes).substr(0, bytes.size() - 1));
  EXPECT_EQ(TakeAll(reader).size(), 1u);
  EXPECT_EQ(reader.pending_bytes(), sizeof(FrameHeaderWire) + 3);
}

}  // namespace
}  // namespace perdure::protocol
