// F's end of a channel to a worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace perdure::frontend {

class WorkerPort {
 public:
  virtual ~WorkerPort() = default;
  virtual void Send(std::string frame) = 0;
  virtual size_t outbox_bytes() const = 0;
};

using WorkerId = uint64_t;

}  // namespace perdure::frontend
