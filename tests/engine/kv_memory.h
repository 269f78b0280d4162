// KV pages of one sequence, for tests: filled with bytes that are NaN as binary16, so that reading
// a position that was never computed shows.
#pragma once

#include <cstring>
#include <vector>

#include "base/check.h"
#include "engine/aligned_buffer.h"
#include "engine/kv_view.h"

namespace perdure::engine {

class KvMemory {
 public:
  KvMemory(const KvShape& shape, int tokens) {
    const auto count = static_cast<size_t>(KvShape::PagesFor(tokens));
    auto memory = AlignedBuffer::Allocate(count * shape.PageBytes(), "KV pages");
    CHECK(memory.has_value());
    memory_ = std::move(*memory);
    if (count > 0) std::memset(memory_.data(), 0xFF, memory_.size());
    for (size_t i = 0; i < count; ++i) pages_.push_back(memory_.data() + i * shape.PageBytes());
  }
  KvView view() const { return {pages_}; }
  const AlignedBuffer& memory() const { return memory_; }

 private:
  AlignedBuffer memory_;
  std::vector<std::byte*> pages_;
};

}  // namespace perdure::engine
