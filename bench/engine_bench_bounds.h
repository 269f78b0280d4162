// What the machine can do at best, measured, so that the engine's numbers have something to stand
// beside.
#pragma once

#include "engine/isa.h"

namespace perdure::bench {

struct MachineBounds {
  double read_bytes_per_s = 0.0;  // all threads, from memory
  double f32_flop_per_s = 0.0;    // all threads, multiply-adds in registers
};

// Best of several rounds; takes about two seconds.
MachineBounds MeasureBounds(int threads, engine::Isa isa);

}  // namespace perdure::bench
