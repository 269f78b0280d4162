// What the machine can do at best, measured, so that the engine's numbers have something to stand
// beside.
#pragma once

#include <cstddef>

#include "engine/isa.h"

namespace perdure::cli {

// All threads together; 0: could not be measured.
struct MachineBounds {
  double read_bytes_per_s = 0.0;  // from memory
  double f32_flop_per_s = 0.0;    // multiply-adds in registers, two operations each
  double int8_op_per_s = 0.0;     // the same of bytes into 32-bit sums
};

// The higher of each: a bound is what was ever reached.
MachineBounds Highest(const MachineBounds& a, const MachineBounds& b);

// Measures again and again, between what is held against it: a shared machine drifts.
class BoundsMeter {
 public:
  // Larger than any cache, so that what is read comes from memory.
  static constexpr size_t kBytes = size_t{1} << 30;

  // Reads go through so many bytes, at least 64 MiB.
  BoundsMeter(int threads, engine::Isa isa, size_t bytes = kBytes);
  ~BoundsMeter();
  BoundsMeter(const BoundsMeter&) = delete;
  BoundsMeter& operator=(const BoundsMeter&) = delete;

  // The best of so many rounds of each: kRounds take a quarter of a second where nobody else wants
  // the processors.
  MachineBounds Measure(int rounds = kRounds);
  static constexpr int kRounds = 24;

 private:
  const int threads_;
  const engine::Isa isa_;
  const size_t bytes_;
  std::byte* memory_ = nullptr;  // null: there was none
  size_t next_ = 0;              // offset of the memory to be read next
};

}  // namespace perdure::cli
