// What of KV memory a model cannot do without, from its shapes.
#pragma once

#include <cstdint>

namespace perdure::shm {

struct KvSize {
  uint64_t slab_bytes = 0;   // memory is taken and given back in these
  uint64_t least_bytes = 0;  // whole slabs: a sequence of the whole context, at most kKvGrantBytes
  uint64_t fixed_bytes = 0;  // of an arena, whatever is in it
};

// `page_bytes` in 16 bits. Zeros where nothing is known of the model.
KvSize KvSizeOf(uint64_t page_bytes, int context, int sequences, int conversations);
// The same where the slabs are known.
uint64_t LeastKvBytes(uint64_t slab_bytes, uint64_t page_bytes, int context);

}  // namespace perdure::shm
