#include "engine/aligned_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <utility>

namespace perdure::engine {

Result<AlignedBuffer> AlignedBuffer::Allocate(size_t bytes, std::string_view what) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED)
    return Err(ErrorCode::out_of_memory,
               fmt::format("{} MiB of memory for {} are not to be had", bytes >> 20, what));
  // Best effort: without huge pages it is slower, not wrong.
  madvise(address, bytes, MADV_HUGEPAGE);
  buffer.data_ = static_cast<std::byte*>(address);
  buffer.size_ = bytes;
  return buffer;
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace perdure::engine
