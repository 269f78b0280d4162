// A store of KV pages in memory of the test's own.
#pragma once

#include <memory>
#include <utility>

#include "engine/kv_view.h"
#include "shm/page_store.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {

// Pages of a shape of KV, in all precisions; room for `pages` of 16 bits.
inline std::unique_ptr<shm::PageStore> MakeStore(const engine::KvShape& kv, shm::PageIndex pages,
                                                 uint32_t conversations = 20) {
  shm::ArenaShape shape;
  for (const shm::PageFormat format : shm::kAllFormats)
    shape.page_bytes[format] = kv.PageBytes(PrecisionOf(format));
  shape.pages_max = pages;
  shape.conversations_max = conversations;
  auto memory = shm::MakePrivateMemory(shm::ArenaGeometry::For(shape).value()).value();
  return std::make_unique<shm::PageStore>(std::move(memory), pages);
}

}  // namespace perdure::worker
