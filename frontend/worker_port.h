// F's end of a channel to a worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/unique_fd.h"

namespace perdure::frontend {

class WorkerPort {
 public:
  virtual ~WorkerPort() = default;
  virtual void Send(std::string frame) = 0;
  // A frame of a type that carries a descriptor.
  virtual void SendWithFd(std::string frame, UniqueFd fd) = 0;
  virtual size_t outbox_bytes() const = 0;
};

using WorkerId = uint64_t;

}  // namespace perdure::frontend
