// Time. Pure cores take times as arguments; only shells call these.
#pragma once

#include <cstdint>

namespace perdure {

// Milliseconds / microseconds on CLOCK_MONOTONIC.
int64_t MonotonicMs();
int64_t MonotonicUs();
// Seconds / milliseconds since the epoch, UTC.
int64_t UnixSeconds();
int64_t UnixMs();

}  // namespace perdure
