// What a phase of the thread pool costs beside its work: the phases of a token are some hundreds.
//
//   pool_bench [THREADS]
//
// Each line: phases of so much work a range, one after the other; the time of a phase, and how much
// of it is not the work itself, shared among the threads. Best of several rounds.

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "base/processors.h"
#include "engine/thread_pool.h"

namespace perdure::bench {
namespace {

constexpr int kPhases = 300;
constexpr int kRounds = 60;

volatile double sink;

// A chain of dependent additions: four cycles each, whatever the compiler.
void Work(int additions) {
  double sum = 0.0;
  for (int i = 0; i < additions; ++i) {
    sum += 1.0;
    asm volatile("" : "+x"(sum));
  }
  sink = sum;
}

// Microseconds of one phase of as many ranges as Split makes.
double PhaseUs(engine::ThreadPool& pool, int additions) {
  double best = 1e9;
  for (int round = 0; round < kRounds; ++round) {
    const int64_t begin = MonotonicUs();
    for (int phase = 0; phase < kPhases; ++phase)
      pool.Split(1 << 20, [&](int, int, int) { Work(additions); });
    best = std::min(best, static_cast<double>(MonotonicUs() - begin) / kPhases);
  }
  return best;
}

int Main(int argc, char** argv) {
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : UsableProcessors();
  engine::ThreadPool alone(1), pool(threads);
  std::printf("%d threads\n%12s %12s %12s\n", threads, "work us", "phase us", "overhead us");
  for (int additions : {0, 100, 1'000, 10'000}) {
    const double work = PhaseUs(alone, additions), phase = PhaseUs(pool, additions);
    // A pool of one has one range.
    const double ranges = threads == 1 ? 1 : 8.0 * threads;
    std::printf("%12.2f %12.2f %12.2f\n", work * ranges / threads, phase,
                phase - work * ranges / threads);
  }
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
