// A shared mapping of a descriptor. Boost.Interprocess stays behind it.
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.h"

namespace perdure::shm {

// Movable; the address is stable. The descriptor may be closed while this lives.
class MappedFile {
 public:
  MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  ~MappedFile();

  // Maps the first `bytes` to be read and written. They may reach beyond what the system has
  // allocated: touching a byte that it cannot provide ends in SIGBUS.
  static Result<MappedFile> Map(int fd, size_t bytes);

  std::byte* data() const;

 private:
  struct Region;
  std::unique_ptr<Region> region_;
};

}  // namespace perdure::shm
