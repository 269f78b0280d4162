#include "engine_bench_bounds.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace perdure::bench {
namespace {

using engine::Isa;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// fn(thread) on every thread at once; the wall time.
template <class Fn>
double TimeOnAll(int threads, Fn fn) {
  const double begin = Seconds();
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i) all.emplace_back([&fn, i] { fn(i); });
  for (std::thread& thread : all) thread.join();
  return Seconds() - begin;
}

constexpr int kRounds = 2'000'000;
volatile float sink;

// Enough independent sums to fill two multiply-add pipes; returns operations done.
double ScalarPeak() {
  float sums[16] = {};
  for (int i = 0; i < kRounds; ++i)
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
  for (float sum : sums) sink = sum;
  return 2.0 * 16 * kRounds;
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) double Avx2Peak() {
  __m256 sums[12];
  const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
  for (__m256& sum : sums) sum = one;
  for (int i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sums[j] = _mm256_fmadd_ps(sums[j], half, one);
  float out[8];
  for (const __m256& sum : sums) {
    _mm256_storeu_ps(out, sum);
    sink = out[0];
  }
  return 2.0 * 12 * 8 * kRounds;
}

__attribute__((target("avx512f"))) double Avx512Peak() {
  __m512 sums[12];
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
  for (__m512& sum : sums) sum = one;
  for (int i = 0; i < kRounds; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) sums[j] = _mm512_fmadd_ps(sums[j], half, one);
  float out[16];
  for (const __m512& sum : sums) {
    _mm512_storeu_ps(out, sum);
    sink = out[0];
  }
  return 2.0 * 12 * 16 * kRounds;
}
#endif

double Peak(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return Avx512Peak();
  if (isa == Isa::kAvx2) return Avx2Peak();
#endif
  (void)isa;
  return ScalarPeak();
}

}  // namespace

MachineBounds MeasureBounds(int threads, Isa isa) {
  MachineBounds bounds;
  for (int round = 0; round < 5; ++round) {
    std::vector<double> done(static_cast<size_t>(threads));
    const double seconds =
        TimeOnAll(threads, [&](int thread) { done[static_cast<size_t>(thread)] = Peak(isa); });
    double total = 0.0;
    for (double operations : done) total += operations;
    bounds.f32_flop_per_s = std::max(bounds.f32_flop_per_s, total / seconds);
  }

  constexpr size_t kBytes = size_t{1} << 30;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return bounds;
  madvise(memory, kBytes, MADV_HUGEPAGE);
  std::memset(memory, 1, kBytes);
  const auto* words = static_cast<const uint64_t*>(memory);
  const size_t part = kBytes / sizeof(uint64_t) / static_cast<size_t>(threads) / 8 * 8;
  for (int round = 0; round < 5; ++round) {
    const double seconds = TimeOnAll(threads, [&](int thread) {
      uint64_t sums[8] = {};
      const uint64_t* begin = words + static_cast<size_t>(thread) * part;
      for (size_t i = 0; i < part; i += 8)
        for (size_t j = 0; j < 8; ++j) sums[j] += begin[i + j];
      for (uint64_t sum : sums) sink = static_cast<float>(sum);
    });
    bounds.read_bytes_per_s = std::max(
        bounds.read_bytes_per_s,
        static_cast<double>(part * sizeof(uint64_t) * static_cast<size_t>(threads)) / seconds);
  }
  munmap(memory, kBytes);
  return bounds;
}

}  // namespace perdure::bench
