// Attention, over keys and values of a precision, beside the machine's bounds: prompts as a share
// of the f32 multiply-adds, single tokens as a share of the bandwidth that reads K and V once.
// Bounds and cases take turns; of both the best round counts, as on a shared machine the others
// measure its other users.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cli/bench/bounds.h"
#include "engine/aligned_buffer.h"
#include "engine/kernels/kernels.h"
#include "engine/kv_view.h"
#include "engine/thread_pool.h"

namespace perdure::bench {
namespace {

using engine::AlignedBuffer;
using engine::AttentionTile;
using engine::Isa;
using engine::Kernels;
using engine::kPageTokens;
using engine::KvPrecision;
using engine::KvShape;
using engine::ThreadPool;

// `rows` new positions of each of `sequences` sequences, after `start` others.
struct Case {
  int head_dim, group, kv_heads, sequences, start, rows;
  bool IsDecode() const { return rows == 1; }
};

const Case kCases[] = {
    {128, 2, 8, 1, 0, 512},   {128, 2, 8, 1, 512, 512}, {128, 2, 8, 1, 4096, 96},
    {128, 2, 8, 1, 8192, 96}, {128, 4, 8, 1, 0, 512},   {128, 4, 8, 1, 8192, 48},
    {128, 7, 4, 1, 512, 512}, {64, 7, 2, 1, 512, 512},  {80, 1, 32, 1, 512, 512},
    {128, 2, 8, 1, 1146, 16}, {128, 2, 8, 1, 8192, 1},  {128, 2, 8, 1, 1024, 1},
    {128, 2, 8, 4, 2048, 1},  {128, 2, 8, 16, 1024, 1}, {128, 4, 8, 1, 8192, 1},
    {128, 7, 4, 1, 8192, 1},  {64, 7, 2, 1, 8192, 1},   {80, 1, 32, 1, 2048, 1},
};

// What single tokens read in one measurement: more than the caches hold.
constexpr size_t kDecodeBytes = size_t{640} << 20;
constexpr size_t kMemoryBytes = size_t{800} << 20;

double Seconds() { return static_cast<double>(MonotonicUs()) * 1e-6; }

class Bench {
 public:
  Bench(const Kernels& kernels, int threads, KvPrecision precision)
      : kernels_(kernels), pool_(threads), precision_(precision) {
    memory_ = Allocate(kMemoryBytes);
    auto* halves = memory_.as<uint16_t>();
    uint32_t random = 1;
    for (size_t i = 0; i < kMemoryBytes / 2; ++i) {  // ±0.25 … 0.5
      random = random * 1664525u + 1013904223u;
      halves[i] = static_cast<uint16_t>(0x3400u | (random >> 22) | (random & 0x80000000u) >> 16);
    }
  }

  // Seconds of one layer.
  double Run(const Case& c) {
    const size_t head_bytes = KvShape{1, 1, c.head_dim}.HeadBytes(precision_);
    const auto pages = static_cast<size_t>(KvShape::PagesFor(c.start + c.rows));
    const size_t sequence_bytes = pages * head_bytes * static_cast<size_t>(c.kv_heads);
    const size_t layer_bytes = sequence_bytes * static_cast<size_t>(c.sequences);
    const size_t layers = c.IsDecode() ? std::max<size_t>(1, kDecodeBytes / layer_bytes) : 1;
    const size_t page_bytes = layers * static_cast<size_t>(c.kv_heads) * head_bytes;
    std::vector<const std::byte*> pointers;
    for (size_t i = 0; i < pages * static_cast<size_t>(c.sequences); ++i)
      pointers.push_back(memory_.data() + i * page_bytes);
    if (pointers.size() * page_bytes > kMemoryBytes) std::abort();

    const std::vector<KvPrecision> precisions(pointers.size(), precision_);

    const int heads = c.kv_heads * c.group;
    const ptrdiff_t stride = ptrdiff_t{heads} * c.head_dim;
    const auto rows = static_cast<size_t>(c.rows) * static_cast<size_t>(c.sequences);
    AlignedBuffer q = Allocate(rows * static_cast<size_t>(stride) * 4);
    AlignedBuffer out = Allocate(rows * static_cast<size_t>(stride) * 4);
    for (size_t i = 0; i < rows * static_cast<size_t>(stride); ++i)
      q.as<float>()[i] = static_cast<float>(i * 2654435761u % 2001) * 1e-3f - 1.0f;
    std::memset(out.data(), 0, out.size());  // its pages are there when the clock starts
    const size_t scratch_floats = (engine::AttentionScratchFloats(c.head_dim) + 15) / 16 * 16;
    AlignedBuffer scratch = Allocate(scratch_floats * 4 * static_cast<size_t>(pool_.threads()));

    const int tile_rows = std::max(1, engine::kAttentionQueries / c.group);
    const int runs = (c.rows + tile_rows - 1) / tile_rows;
    const double begin = Seconds();
    for (size_t layer = 0; layer < layers; ++layer) {
      const int items = runs * c.sequences * c.kv_heads;
      pool_.Claim(items, [&](int item, int thread) {
        const int last = items - 1 - item;
        const int kv_head = last % c.kv_heads, run = last / c.kv_heads % runs;
        const int sequence = last / c.kv_heads / runs;
        const int first = run * tile_rows;
        const ptrdiff_t at = (ptrdiff_t{sequence} * c.rows + first) * stride +
                             ptrdiff_t{kv_head} * c.group * c.head_dim;
        const AttentionTile tile{
            .pages = pointers.data() + static_cast<size_t>(sequence) * pages,
            .precisions = precisions.data(),
            .head = layer * static_cast<size_t>(c.kv_heads) + static_cast<size_t>(kv_head),
            .head_dim = c.head_dim,
            .group = c.group,
            .rows = std::min(tile_rows, c.rows - first),
            .start = c.start + first,
            .window = 0,
            .q = q.as<float>() + at,
            .out = out.as<float>() + at,
            .q_stride = stride,
            .out_stride = stride,
            .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim))};
        kernels_.attend(tile, scratch.as<float>() + static_cast<size_t>(thread) * scratch_floats);
      });
    }
    return (Seconds() - begin) / static_cast<double>(layers);
  }

  static double Flops(const Case& c) {
    double positions = 0.0;
    for (int r = 0; r < c.rows; ++r) positions += c.start + r + 1;
    return positions * 4.0 * c.head_dim * c.group * c.kv_heads * c.sequences;
  }
  double Bytes(const Case& c) const {
    const double block = static_cast<double>(KvShape{1, 1, c.head_dim}.HeadBytes(precision_));
    return block / kPageTokens * c.kv_heads * c.sequences * (c.start + c.rows);
  }

 private:
  static AlignedBuffer Allocate(size_t bytes) {
    auto memory = AlignedBuffer::Allocate(bytes, "attention_bench");
    if (!memory) std::abort();
    return std::move(*memory);
  }

  const Kernels& kernels_;
  ThreadPool pool_;
  const KvPrecision precision_;
  AlignedBuffer memory_;
};

[[noreturn]] void Usage() {
  std::fprintf(stderr,
               "Usage: attention_bench [--threads N] [--isa NAME] [--rounds N] [--kv 16|8|4]\n");
  std::exit(2);
}

int Main(int argc, char** argv) {
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency())), rounds = 10;
  Isa isa = engine::BestIsa();
  KvPrecision precision = KvPrecision::kF16;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) Usage();
    const std::string flag = argv[i], value = argv[i + 1];
    const auto parsed = engine::ParseIsa(value);
    if (flag == "--threads")
      threads = std::max(1, std::atoi(value.c_str()));
    else if (flag == "--rounds")
      rounds = std::max(1, std::atoi(value.c_str()));
    else if (flag == "--isa" && parsed)
      isa = *parsed;
    else if (flag == "--kv" && (value == "16" || value == "8" || value == "4"))
      precision = value == "16"  ? KvPrecision::kF16
                  : value == "8" ? KvPrecision::kQ8
                                 : KvPrecision::kQ4;
    else
      Usage();
  }
  Bench bench(engine::KernelsFor(isa), threads, precision);
  cli::BoundsMeter meter(threads, isa);
  constexpr size_t kCount = std::size(kCases);
  std::vector<double> seconds(kCount, 1e9);
  cli::MachineBounds bounds;
  for (int round = 0; round < rounds; ++round) {
    bounds = cli::Highest(bounds, meter.Measure());
    for (size_t i = 0; i < kCount; ++i) seconds[i] = std::min(seconds[i], bench.Run(kCases[i]));
  }
  std::printf("%d threads, %s: reads %.1f GB/s, f32 multiply-adds %.0f GFLOP/s\n", threads,
              std::string(engine::IsaName(isa)).c_str(), bounds.read_bytes_per_s * 1e-9,
              bounds.f32_flop_per_s * 1e-9);
  std::printf("head_dim group kv_heads sequences start rows |  layer ms | share of bound\n");
  for (size_t i = 0; i < kCount; ++i) {
    const Case& c = kCases[i];
    const double share = c.IsDecode() ? bench.Bytes(c) / seconds[i] / bounds.read_bytes_per_s
                                      : Bench::Flops(c) / seconds[i] / bounds.f32_flop_per_s;
    std::printf("%8d %5d %8d %9d %5d %4d | %9.3f | %5.1f%% of %s\n", c.head_dim, c.group,
                c.kv_heads, c.sequences, c.start, c.rows, seconds[i] * 1e3, share * 100.0,
                c.IsDecode() ? "read bandwidth" : "f32 peak");
  }
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
