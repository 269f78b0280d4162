// A store of KV pages in memory of the test's own.
#pragma once

#include <memory>
#include <utility>

#include "shm/page_store.h"

namespace perdure::worker {

inline std::unique_ptr<shm::PageStore> MakeStore(uint64_t page_bytes, shm::PageIndex pages) {
  auto memory = shm::MakePrivateMemory(shm::ArenaGeometry::For(page_bytes, pages).value()).value();
  return std::make_unique<shm::PageStore>(std::move(memory), pages);
}

}  // namespace perdure::worker
