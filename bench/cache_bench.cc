// What the kinds of caches take of memory and give in speed: a token after many others, beside a
// plain cache in the same round. Keys and values are random numbers; speed does not depend on them.
//
//   cache_bench [--model DIR] [--context N] [--rounds N] [--threads N]
//
// Without a model: Qwen3-0.6B's shapes, random weights of 4 bits.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/processors.h"
#include "engine/aligned_buffer.h"
#include "engine/engine.h"
#include "tests/engine/synth_model.h"

namespace perdure::bench {
namespace {

using engine::AlignedBuffer;
using engine::Engine;
using engine::kPageTokens;
using engine::KvPrecision;
using engine::KvRetention;
using engine::KvShape;
using engine::SequenceStep;

struct Options {
  std::string model;
  int context = 4096;
  int rounds = 9;
  engine::EngineOptions engine;
};

// Tokens one after another, timed together.
constexpr int kRun = 16;

struct Kind {
  const char* name;
  KvPrecision precision = KvPrecision::kF16;
  KvRetention retention = {};
  bool in_a_row = false;  // the pages lie behind each other
};
const Kind kKinds[] = {
    {.name = "kv"},
    {.name = "quantized, 8 bits", .precision = KvPrecision::kQ8},
    {.name = "quantized, 4 bits", .precision = KvPrecision::kQ4},
    {.name = "rotating, 4 of 1,024", .retention = {.keep = 4, .size = 1024}},
    {.name = "chunked", .in_a_row = true},
};

// Numbers of one precision for a whole context; kinds of that precision share them.
class Numbers {
 public:
  Numbers(const KvShape& shape, KvPrecision precision, size_t pages)
      : page_bytes_(shape.PageBytes(precision)) {
    auto memory = AlignedBuffer::Allocate(pages * page_bytes_, "keys and values");
    if (!memory) {
      fmt::print(stderr, "cache_bench: {}\n", memory.error().message);
      std::exit(1);
    }
    memory_ = std::move(*memory);
    auto* halves = memory_.as<uint16_t>();
    uint32_t random = 1;
    for (size_t i = 0; i < pages * page_bytes_ / 2; ++i) {  // ±0.25 … 0.5
      random = random * 1664525u + 1013904223u;
      halves[i] = static_cast<uint16_t>(0x3400u | (random >> 22) | (random & 0x80000000u) >> 16);
    }
  }
  std::byte* page(size_t index) const { return memory_.data() + index * page_bytes_; }
  size_t page_bytes() const { return page_bytes_; }

 private:
  size_t page_bytes_;
  AlignedBuffer memory_;
};

class Cache {
 public:
  Cache(const Kind& kind, const std::shared_ptr<const Numbers>& numbers, int context)
      : kind_(kind), numbers_(numbers) {
    const auto count = static_cast<size_t>(KvShape::PagesFor(context + kRun));
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (!kind.in_a_row) std::ranges::shuffle(order, std::mt19937(1));
    for (const size_t at : order) pages_.push_back(numbers->page(at));
    precisions_.assign(count, kind.precision);
    if (kind.retention.size == 0) return;
    const int seen_from = context - (kind.retention.size - kind.retention.keep) + 1;
    for (int page = KvShape::PagesFor(kind.retention.keep); (page + 1) * kPageTokens <= seen_from;
         ++page)
      pages_[static_cast<size_t>(page)] = nullptr;
  }

  // Tokens a second.
  double Decode(Engine& engine, int context) const {
    const int64_t begin = MonotonicUs();
    for (int i = 0; i < kRun; ++i) {
      const TokenId token = 100 + i;
      const SequenceStep step{
          .kv = {.pages = pages_,
                 .precisions = precisions_,
                 .retentions = {&kind_.retention, kind_.retention.size > 0 ? 1u : 0u}},
          .start = context + i,
          .tokens = {&token, 1},
          .logits_from = 0};
      (void)engine.Step({&step, 1});
    }
    return kRun * 1e6 / static_cast<double>(MonotonicUs() - begin);
  }
  const char* name() const { return kind_.name; }
  double token_kib() const {
    return static_cast<double>(numbers_->page_bytes()) / kPageTokens / 1024;
  }
  double held_mib() const {
    const auto dropped = std::ranges::count(pages_, static_cast<std::byte*>(nullptr));
    return static_cast<double>((pages_.size() - static_cast<size_t>(dropped)) *
                               numbers_->page_bytes()) /
           (1 << 20);
  }

 private:
  const Kind kind_;
  const std::shared_ptr<const Numbers> numbers_;
  std::vector<std::byte*> pages_;
  std::vector<KvPrecision> precisions_;
};

double Median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void Run(const std::filesystem::path& dir, const Options& options) {
  auto loaded = Engine::Load(dir, options.engine);
  if (!loaded) {
    fmt::print(stderr, "cache_bench: {}\n", loaded.error().message);
    std::exit(1);
  }
  Engine& engine = **loaded;
  const KvShape shape = engine.info().kv;
  const auto pages = static_cast<size_t>(KvShape::PagesFor(options.context + kRun));
  std::vector<std::shared_ptr<const Numbers>> numbers;
  for (const KvPrecision precision : {KvPrecision::kF16, KvPrecision::kQ8, KvPrecision::kQ4})
    numbers.push_back(std::make_shared<const Numbers>(shape, precision, pages));
  std::vector<Cache> caches;
  for (const Kind& kind : kKinds)
    caches.emplace_back(kind, numbers[static_cast<size_t>(kind.precision)], options.context);

  std::vector<std::vector<double>> rates(caches.size()), ratios(caches.size());
  for (int round = -1; round < options.rounds; ++round)  // the first is not counted
    for (size_t i = 0; i < caches.size(); ++i) {
      const double rate = caches[i].Decode(engine, options.context);
      if (round < 0) continue;
      rates[i].push_back(rate);
      ratios[i].push_back(rate / rates[0].back());
    }
  fmt::print("{} threads, a token after {} others, medians of {} rounds of {} tokens\n",
             options.engine.threads, options.context, options.rounds, kRun);
  fmt::print("{:<22}{:>12}{:>8}{:>12}{:>8}{:>12}{:>18}\n", "cache", "KiB a token", "to kv",
             "MiB held", "to kv", "tokens/s", "to kv");
  for (size_t i = 0; i < caches.size(); ++i)
    fmt::print("{:<22}{:>12.1f}{:>8.2f}{:>12.1f}{:>8.2f}{:>12.1f}{:>8.2f} ({:.2f}-{:.2f})\n",
               caches[i].name(), caches[i].token_kib(),
               caches[i].token_kib() / caches[0].token_kib(), caches[i].held_mib(),
               caches[i].held_mib() / caches[0].held_mib(), Median(rates[i]), Median(ratios[i]),
               std::ranges::min(ratios[i]), std::ranges::max(ratios[i]));
}

int Main(int argc, char** argv) {
  Options options;
  options.engine.threads = UsableProcessors();
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    const int number = std::atoi(value.c_str());
    if (flag == "--model" && !value.empty()) {
      options.model = value;
    } else if (flag == "--context" && number > 0) {
      options.context = number;
    } else if (flag == "--rounds" && number > 0) {
      options.rounds = number;
    } else if (flag == "--threads" && number > 0) {
      options.engine.threads = number;
    } else {
      fmt::print(stderr,
                 "Usage: cache_bench [--model DIR] [--context N] [--rounds N] [--threads N]\n");
      return 2;
    }
  }
  if (!options.model.empty()) {
    Run(options.model, options);
    return 0;
  }
  const engine::TempDir dir;
  engine::WriteSynthModel({.hidden = 1024,
                           .layers = 28,
                           .heads = 16,
                           .kv_heads = 8,
                           .head_dim = 128,
                           .feed_forward = 3072,
                           .vocab = 151936,
                           .bits = 4,
                           .config = R"({"max_position_embeddings": 40960})"},
                          dir.path());
  Run(dir.path(), options);
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
