// KV pages of one sequence, for tests: filled with bytes that are NaN as binary16, so that reading
// a position that was never computed shows.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "engine/aligned_buffer.h"
#include "engine/kv_view.h"

namespace perdure::engine {

class KvMemory {
 public:
  // Pages of these precisions in turn.
  KvMemory(const KvShape& shape, int tokens,
           const std::vector<KvPrecision>& precisions = {KvPrecision::kF16}) {
    const auto count = static_cast<size_t>(KvShape::PagesFor(tokens));
    size_t page_bytes = 0;
    for (const KvPrecision precision : precisions)
      page_bytes = std::max(page_bytes, shape.PageBytes(precision));
    auto memory = AlignedBuffer::Allocate(count * page_bytes, "KV pages");
    CHECK(memory.has_value());
    memory_ = std::move(*memory);
    if (count > 0) std::memset(memory_.data(), 0xFF, memory_.size());
    for (size_t i = 0; i < count; ++i) {
      pages_.push_back(memory_.data() + i * page_bytes);
      precisions_.push_back(precisions[i % precisions.size()]);
    }
  }
  KvView view() const { return {pages_, precisions_}; }
  const AlignedBuffer& memory() const { return memory_; }

 private:
  AlignedBuffer memory_;
  std::vector<std::byte*> pages_;
  std::vector<KvPrecision> precisions_;
};

}  // namespace perdure::engine
