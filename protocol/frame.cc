#include "protocol/frame.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::protocol {

void AppendFrame(MessageType type, std::string_view payload, std::string* out) {
  CHECK(payload.size() <= limits::kFrameBytesMax);
  const FrameHeaderWire header{static_cast<uint32_t>(payload.size()), static_cast<uint16_t>(type),
                               kProtocolVersion};
  out->append(reinterpret_cast<const char*>(&header), sizeof header);
  out->append(payload);
}

Result<std::optional<Frame>> FrameReader::Next() {
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (rest.size() < sizeof(FrameHeaderWire)) return std::optional<Frame>();
  FrameHeaderWire header;
  std::memcpy(&header, rest.data(), sizeof header);
  if (header.version != kProtocolVersion)
    return Err(ErrorCode::protocol_error,
               fmt::format("a process speaks protocol version {}, this one {}: install all of "
                           "Perdure's programs from one build",
                           header.version, kProtocolVersion));
  if (header.payload_bytes > limits::kFrameBytesMax)
    return Err(ErrorCode::protocol_error,
               fmt::format("a frame of {} bytes exceeds the bound of {}", header.payload_bytes,
                           limits::kFrameBytesMax));
  if (rest.size() < sizeof header + header.payload_bytes) return std::optional<Frame>();
  Frame frame{static_cast<MessageType>(header.type),
              std::string(rest.substr(sizeof header, header.payload_bytes))};
  begin_ += sizeof header + header.payload_bytes;
  // Moving the rest down is amortized over at least as many bytes read.
  if (begin_ == buffer_.size() || begin_ > buffer_.size() / 2) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return std::optional<Frame>(std::move(frame));
}

}  // namespace perdure::protocol
