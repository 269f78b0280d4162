#include "base/clock.h"

#include <ctime>

namespace perdure {
namespace {
int64_t MonotonicNs() {
  timespec ts{};
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}
}  // namespace

int64_t MonotonicMs() { return MonotonicNs() / 1'000'000; }
int64_t MonotonicUs() { return MonotonicNs() / 1'000; }
int64_t UnixSeconds() { return time(nullptr); }
int64_t UnixMs() {
  timespec ts{};
  clock_gettime(CLOCK_REALTIME, &ts);
  return int64_t{ts.tv_sec} * 1000 + ts.tv_nsec / 1'000'000;
}

}  // namespace perdure
