// Zeroed memory for weights and activations, aligned to 64 bytes, in huge pages where the system
// has them to give. Movable, not copyable.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"

namespace perdure::engine {

class AlignedBuffer {
 public:
  // out_of_memory names `what`. A size of 0 gives an empty buffer.
  static Result<AlignedBuffer> Allocate(size_t bytes, std::string_view what);

  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace perdure::engine
