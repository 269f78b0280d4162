// The fields of a message in protobuf's wire format, one after another.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace perdure::text {

struct ProtoField {
  uint32_t number = 0;
  uint64_t value = 0;      // of varints and fixed-width numbers
  std::string_view bytes;  // of strings, bytes and messages
};

class ProtoReader {
 public:
  // `file` stands in errors; it and `message` must outlive the reader.
  ProtoReader(std::string_view message, std::string_view file) : rest_(message), file_(file) {}

  bool more() const { return !rest_.empty(); }
  // bad_model: bytes that are no field.
  Result<ProtoField> Next();

 private:
  tl::unexpected<Error> Bad() const;
  Result<uint64_t> Varint();
  Result<uint64_t> Fixed(size_t bytes);

  std::string_view rest_;
  std::string_view file_;
};

}  // namespace perdure::text
