// Frames: what stands on a channel. Header, then payload_bytes of one encoded message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.h"
#include "protocol/codec.h"
#include "protocol/messages.h"

namespace perdure::protocol {

// Raised whenever a message's fields change; processes of one service are always of one version, so
// a difference means a mixed installation and is refused.
inline constexpr uint16_t kProtocolVersion = 1;

struct FrameHeaderWire {
  uint32_t payload_bytes;
  uint16_t type;     // MessageType
  uint16_t version;  // kProtocolVersion
};
static_assert(sizeof(FrameHeaderWire) == 8);
static_assert(offsetof(FrameHeaderWire, payload_bytes) == 0);
static_assert(offsetof(FrameHeaderWire, type) == 4);
static_assert(offsetof(FrameHeaderWire, version) == 6);
static_assert(std::is_trivially_copyable_v<FrameHeaderWire>);

struct Frame {
  MessageType type{};
  std::string payload;
};

// Appends header and payload to `out`.
void AppendFrame(MessageType type, std::string_view payload, std::string* out);

template <HasFields T>
std::string MakeFrame(const T& message) {
  std::string bytes;
  AppendFrame(T::kType, Encode(message), &bytes);
  return bytes;
}

// Cuts a byte stream into frames. Bytes after the last whole frame wait for more.
class FrameReader {
 public:
  void Append(std::string_view bytes) { buffer_.append(bytes); }
  // The next whole frame, or nothing yet. An error (too large, another version) is final.
  Result<std::optional<Frame>> Next();
  // Bytes of an unfinished frame; discarded when the peer is gone.
  size_t pending_bytes() const { return buffer_.size() - begin_; }

 private:
  std::string buffer_;
  size_t begin_ = 0;
};

}  // namespace perdure::protocol
