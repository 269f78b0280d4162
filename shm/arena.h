// A model's arena, as the one process sees it that writes to it (the worker).
//
// One writer: the lock is of an open file description of this object's own, not of the inherited
// descriptor, whose description the supervisor and every later worker share and which would hold
// the lock beyond the writer's death.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "shm/mapped_file.h"
#include "shm/page_memory.h"

namespace perdure::shm {

struct ArenaSpec {
  uint64_t fingerprint = 0;   // of the model's weights and settings
  uint64_t numerics = 0;      // hash of the numerics id
  ArenaShape shape;           // what a new arena has room for
  uint32_t pages_budget = 0;  // what this writer needs room for; ≤ shape.pages_max
};

// Memory for a PageStore, which takes over what is in it. Pages are kept where model, numerics and
// sizes of pages are as in `ArenaSpec` and there is room for the budget and the conversations. Not
// thread-safe.
class Arena : public PageMemory {
 public:
  // `fd` stays the caller's. overloaded: another process writes to this arena; it can be tried
  // again when that one has ended. out_of_memory: not even the descriptors fit. io_error: the
  // system refuses; private memory can be used instead.
  static Result<std::unique_ptr<Arena>> Attach(int fd, const ArenaSpec& spec);

  bool Grant(uint32_t slab) override;
  bool GrantDescriptors(uint32_t pages) override;
  uint32_t descriptors_granted() const override { return descriptors_granted_; }
  void Return(uint32_t slab) override;
  bool Adopt(const std::vector<bool>& slabs) override;

  uint64_t epoch() const { return epoch_; }  // 1 for the first writer
  // Why the arena was initialized anew, for the log; empty where its pages were kept.
  const std::string& reset_reason() const { return reset_reason_; }

 private:
  Arena(UniqueFd fd, const ArenaGeometry& geometry, MappedFile mapping, uint64_t root);
  ArenaHeaderShm& header() const;
  void Initialize(const ArenaSpec& spec);
  bool Ask(uint64_t offset, uint64_t bytes);

  UniqueFd fd_;
  MappedFile mapping_;
  uint64_t epoch_ = 0;
  std::string reset_reason_;
  uint32_t descriptors_granted_ = 0;
  bool is_full_ = false;  // the last slab that was asked for was refused
};

}  // namespace perdure::shm
