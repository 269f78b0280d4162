#include "text/tokenizer/proto_reader.h"

#include <fmt/format.h>

namespace perdure::text {

tl::unexpected<Error> ProtoReader::Bad() const {
  return Err(ErrorCode::bad_model,
             fmt::format("{} is no protobuf message, or is cut short", file_));
}

Result<uint64_t> ProtoReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest_[0]);
    rest_.remove_prefix(1);
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return Bad();
}

Result<uint64_t> ProtoReader::Fixed(size_t bytes) {
  if (rest_.size() < bytes) return Bad();
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i)
    value |= uint64_t{static_cast<unsigned char>(rest_[i])} << 8 * i;
  rest_.remove_prefix(bytes);
  return value;
}

Result<ProtoField> ProtoReader::Next() {
  ASSIGN_OR_RETURN(const uint64_t tag, Varint());
  ProtoField field;
  field.number = static_cast<uint32_t>(tag >> 3);
  switch (tag & 7) {
    case 0: {
      ASSIGN_OR_RETURN(field.value, Varint());
      return field;
    }
    case 1: {
      ASSIGN_OR_RETURN(field.value, Fixed(8));
      return field;
    }
    case 2: {
      ASSIGN_OR_RETURN(const uint64_t size, Varint());
      if (size > rest_.size()) return Bad();
      field.bytes = rest_.substr(0, size);
      rest_.remove_prefix(size);
      return field;
    }
    case 5: {
      ASSIGN_OR_RETURN(field.value, Fixed(4));
      return field;
    }
    default:
      return Bad();
  }
}

}  // namespace perdure::text
