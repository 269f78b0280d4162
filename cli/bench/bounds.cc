#include "cli/bench/bounds.h"

#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace perdure::cli {
namespace {

using engine::Isa;

// Read by all threads in one round: some milliseconds, between which a neighbour may have slept.
constexpr size_t kRoundBytes = size_t{1} << 26;
constexpr int kLoops = 200'000;  // of a compute round: below a millisecond

volatile uint64_t sink;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// work(thread, round) on all threads at once, round by round; the seconds of the fastest round.
template <class Work>
double FastestRound(int threads, int rounds, Work work) {
  double fastest = 1e9, begin = 0.0;
  std::barrier barrier(threads);
  const auto body = [&](int thread) {
    for (int round = 0; round < rounds; ++round) {
      barrier.arrive_and_wait();
      if (thread == 0) begin = Seconds();
      work(thread, round);
      barrier.arrive_and_wait();
      if (thread == 0) fastest = std::min(fastest, Seconds() - begin);
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(body, i);
  body(0);
  for (std::thread& other : others) other.join();
  return fastest;
}

// Each peak keeps enough independent sums under way to fill two pipes of five cycles, and returns
// the operations done.

double ScalarF32() {
  float sums[16] = {};
  for (int i = 0; i < kLoops; ++i)
    for (float& sum : sums) sum = sum * 0.5f + 1.0f;
  for (float sum : sums) sink = static_cast<uint64_t>(sum);
  return 2.0 * 16 * kLoops;
}

uint64_t ReadWords(const std::byte* from, size_t bytes) {
  const auto* words = reinterpret_cast<const uint64_t*>(from);
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes / sizeof(uint64_t); i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

#if defined(__x86_64__)
constexpr int kSums = 12;

__attribute__((target("avx2,fma"))) double Avx2F32() {
  __m256 sums[kSums];
  const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
  for (__m256& sum : sums) sum = one;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm256_fmadd_ps(sums[j], half, one);
  for (const __m256& sum : sums) sink = static_cast<uint64_t>(_mm256_cvtss_f32(sum));
  return 2.0 * kSums * 8 * kLoops;
}

__attribute__((target("avx512f"))) double Avx512F32() {
  __m512 sums[kSums];
  const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
  for (__m512& sum : sums) sum = one;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm512_fmadd_ps(sums[j], half, one);
  for (const __m512& sum : sums) sink = static_cast<uint64_t>(_mm512_cvtss_f32(sum));
  return 2.0 * kSums * 16 * kLoops;
}

// Without VNNI: bytes to 16-bit sums of two, to 32-bit sums of four, added up.
__attribute__((target("avx2"))) double Avx2Int8() {
  __m256i sums[kSums];
  const __m256i ones = _mm256_set1_epi16(1);
  for (__m256i& sum : sums) sum = ones;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j)
      sums[j] =
          _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_maddubs_epi16(ones, sums[j]), ones));
  for (const __m256i& sum : sums) sink = static_cast<uint64_t>(_mm256_extract_epi32(sum, 0));
  return 2.0 * kSums * 32 * kLoops;
}

__attribute__((target("avx512f,avx512bw"))) double Avx512Int8() {
  __m512i sums[kSums];
  const __m512i ones = _mm512_set1_epi16(1);
  for (__m512i& sum : sums) sum = ones;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j)
      sums[j] =
          _mm512_add_epi32(sums[j], _mm512_madd_epi16(_mm512_maddubs_epi16(ones, sums[j]), ones));
  for (const __m512i& sum : sums)
    sink = static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
  return 2.0 * kSums * 64 * kLoops;
}

__attribute__((target("avx2,avxvnni"))) double AvxVnniInt8() {
  __m256i sums[kSums];
  const __m256i ones = _mm256_set1_epi8(1);
  for (__m256i& sum : sums) sum = ones;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm256_dpbusd_avx_epi32(sums[j], ones, ones);
  for (const __m256i& sum : sums) sink = static_cast<uint64_t>(_mm256_extract_epi32(sum, 0));
  return 2.0 * kSums * 32 * kLoops;
}

__attribute__((target("avx512f,avx512vnni"))) double Avx512VnniInt8() {
  __m512i sums[kSums];
  const __m512i ones = _mm512_set1_epi8(1);
  for (__m512i& sum : sums) sum = ones;
  for (int i = 0; i < kLoops; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kSums; ++j) sums[j] = _mm512_dpbusd_epi32(sums[j], ones, ones);
  for (const __m512i& sum : sums)
    sink = static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
  return 2.0 * kSums * 64 * kLoops;
}

// Two streams a thread: one alone leaves the memory idle at times.
__attribute__((target("avx2"))) uint64_t Avx2Read(const std::byte* from, size_t bytes) {
  __m256i sums[4] = {};
  const std::byte* second = from + bytes / 2;
  for (size_t i = 0; i < bytes / 2; i += 64)
    for (size_t j = 0; j < 4; ++j) {
      const std::byte* at = (j < 2 ? from : second) + i + j % 2 * 32;
      sums[j] = _mm256_add_epi64(sums[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(at)));
    }
  const __m256i sum =
      _mm256_add_epi64(_mm256_add_epi64(sums[0], sums[1]), _mm256_add_epi64(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(sum, 0));
}

__attribute__((target("avx512f"))) uint64_t Avx512Read(const std::byte* from, size_t bytes) {
  __m512i sums[4] = {};
  const std::byte* second = from + bytes / 2;
  for (size_t i = 0; i < bytes / 2; i += 128)
    for (size_t j = 0; j < 4; ++j)
      sums[j] =
          _mm512_add_epi64(sums[j], _mm512_load_si512((j < 2 ? from : second) + i + j % 2 * 64));
  const __m512i sum =
      _mm512_add_epi64(_mm512_add_epi64(sums[0], sums[1]), _mm512_add_epi64(sums[2], sums[3]));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm512_castsi512_si128(sum)));
}
#endif

double F32Peak(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return Avx512F32();
  if (isa >= Isa::kAvx2) return Avx2F32();
#endif
  (void)isa;
  return ScalarF32();
}

double Int8Peak(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Vnni) return Avx512VnniInt8();
  if (isa == Isa::kAvx512) return Avx512Int8();
  if (isa == Isa::kAvxVnni) return AvxVnniInt8();
  if (isa == Isa::kAvx2) return Avx2Int8();
#endif
  return F32Peak(isa);  // nothing is faster with bytes there
}

uint64_t Read(Isa isa, const std::byte* from, size_t bytes) {
#if defined(__x86_64__)
  if (isa >= Isa::kAvx512) return Avx512Read(from, bytes);
  if (isa >= Isa::kAvx2) return Avx2Read(from, bytes);
#endif
  (void)isa;
  return ReadWords(from, bytes);
}

double RateOf(int threads, int rounds, double (*peak)(Isa), Isa isa) {
  std::vector<double> operations(static_cast<size_t>(threads));
  const double seconds = FastestRound(threads, rounds, [&](int thread, int) {
    operations[static_cast<size_t>(thread)] = peak(isa);
  });
  return operations[0] * threads / seconds;
}

}  // namespace

MachineBounds Highest(const MachineBounds& a, const MachineBounds& b) {
  return {.read_bytes_per_s = std::max(a.read_bytes_per_s, b.read_bytes_per_s),
          .f32_flop_per_s = std::max(a.f32_flop_per_s, b.f32_flop_per_s),
          .int8_op_per_s = std::max(a.int8_op_per_s, b.int8_op_per_s)};
}

BoundsMeter::BoundsMeter(int threads, Isa isa, size_t bytes)
    : threads_(threads), isa_(isa), bytes_(bytes / kRoundBytes * kRoundBytes) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  madvise(memory, bytes_, MADV_HUGEPAGE);
  std::memset(memory, 1, bytes_);
  memory_ = static_cast<std::byte*>(memory);
}

BoundsMeter::~BoundsMeter() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

MachineBounds BoundsMeter::Measure(int rounds) {
  MachineBounds bounds;
  bounds.f32_flop_per_s = RateOf(threads_, rounds, F32Peak, isa_);
  bounds.int8_op_per_s = RateOf(threads_, rounds, Int8Peak, isa_);
  if (memory_ == nullptr) return bounds;
  // Parts of whole 256-byte steps; rounds go through all of the memory before any is read again.
  const size_t part = kRoundBytes / static_cast<size_t>(threads_) / 256 * 256;
  const size_t begin =
      std::exchange(next_, (next_ + static_cast<size_t>(rounds) * kRoundBytes) % bytes_);
  const double seconds = FastestRound(threads_, rounds, [&](int thread, int round) {
    const size_t at = (begin + static_cast<size_t>(round) * kRoundBytes) % bytes_;
    sink = Read(isa_, memory_ + at + static_cast<size_t>(thread) * part, part);
  });
  bounds.read_bytes_per_s = static_cast<double>(part * static_cast<size_t>(threads_)) / seconds;
  return bounds;
}

}  // namespace perdure::cli
