// Products with quantized weights as fractions of what the machine can do: int8 multiply-adds, f32
// multiply-adds and reading, each measured between the repetitions of the kernels, in this process.
// A figure is the best repetition beside the best of the bounds.
//
//   kernel_bench [--threads N] [--isa NAME] [--inputs 1024,3072] [--outputs 3072]
//                [--rows 1,2,4,8,16,32,64,512] [--only "4-bit g64"] [--float] [--cpu-time]
//
// --float: with activations in f32. --cpu-time: of one thread, the time that it computed, for a
// machine that others keep busy (their use of caches and memory stays in the figures). Weights are
// many matrices, read in turn, so that with few rows they come from memory.

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cli/bench/bounds.h"
#include "engine/packed_matrix.h"

namespace perdure::bench {
namespace {

using engine::Activations;
using engine::Isa;
using engine::PackedMatrix;
using engine::PanelFormat;
using engine::ScaleType;

struct Options {
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  Isa isa = engine::BestIsa();
  std::vector<int> inputs = {1024, 3072};
  std::vector<int> rows = {1, 2, 4, 8, 16, 32, 64, 512};
  int outputs = 3072;
  std::string only;
  Activations activations = Activations::kInt8;
  bool cpu_time = false;
};

[[noreturn]] void Usage(const std::string& what) {
  std::fprintf(stderr,
               "kernel_bench: %s\n"
               "Usage: kernel_bench [--threads N] [--isa NAME] [--inputs N,…] [--outputs N]\n"
               "                    [--rows N,…] [--only FORMAT] [--float] [--cpu-time]\n",
               what.c_str());
  std::exit(2);
}

std::vector<int> Numbers(const std::string& text) {
  std::vector<int> numbers;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    numbers.push_back(std::atoi(text.substr(at, comma - at).c_str()));
    if (numbers.back() < 1) Usage("numbers must be positive");
    at = comma + 1;
  }
  return numbers;
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--float") {
      options.activations = Activations::kFloat32;
      continue;
    }
    if (flag == "--cpu-time") {
      options.cpu_time = true;
      options.threads = 1;
      continue;
    }
    if (flag == "--help" || i + 1 == argc) Usage("speed of the kernels beside the machine's");
    const std::string value = argv[++i];
    if (flag == "--threads") {
      options.threads = Numbers(value).at(0);
    } else if (flag == "--isa") {
      const auto isa = engine::ParseIsa(value);
      if (!isa || !engine::CpuHas(*isa)) Usage("unknown instruction set, or not of this CPU");
      options.isa = *isa;
    } else if (flag == "--inputs") {
      options.inputs = Numbers(value);
    } else if (flag == "--outputs") {
      options.outputs = Numbers(value).at(0);
    } else if (flag == "--rows") {
      options.rows = Numbers(value);
    } else if (flag == "--only") {
      options.only = value;
    } else {
      Usage("unknown flag " + flag);
    }
  }
  return options;
}

struct Format {
  const char* name;
  PanelFormat format;
  int group;
};
constexpr Format kFormats[] = {
    {"4-bit g64", PanelFormat::kQ4, 64},    {"8-bit g64", PanelFormat::kQ8, 64},
    {"4-bit g32", PanelFormat::kQ4, 32},    {"4-bit g128", PanelFormat::kQ4, 128},
    {"8-bit g32", PanelFormat::kQ8, 32},    {"8-bit g128", PanelFormat::kQ8, 128},
    {"mxfp4 g32", PanelFormat::kMxfp4, 32}, {"bf16", PanelFormat::kBf16, 0},
};

PackedMatrix RandomMatrix(const Format& f, int inputs, int outputs) {
  PackedMatrix matrix;
  matrix.layout = engine::MakePanelLayout(f.format, inputs, f.group, ScaleType::kBf16);
  matrix.panels = (outputs + engine::kPanelWidth - 1) / engine::kPanelWidth;
  matrix.outputs = matrix.padded_outputs();
  auto memory = engine::AlignedBuffer::Allocate(
      matrix.layout.panel_bytes * static_cast<size_t>(matrix.panels), "weights");
  if (!memory) Usage("no memory for weights");
  matrix.memory = std::move(*memory);
  matrix.data = {matrix.memory.data(), matrix.memory.size()};
  // Bytes that are good as numbers of 2 to 8 bits and as BF16; as E8M0, none far from 1.
  std::mt19937 random(1);
  std::byte* to = matrix.memory.data();
  for (size_t i = 0; i < matrix.memory.size(); ++i) {
    const auto byte = static_cast<uint8_t>(random());
    const bool high = i % 2 != 0;
    to[i] = static_cast<std::byte>(f.format == PanelFormat::kMxfp4 ? (byte & 7u) | 0x78u
                                   : high                          ? 0x3Cu
                                                                   : byte);
  }
  return matrix;
}

double Seconds(const Options& options) {
  timespec now{};
  clock_gettime(options.cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Machine {
  Machine(int threads, Isa isa) : pool(threads), isa(isa), meter(threads, isa) {}
  engine::ThreadPool pool;
  Isa isa;
  cli::BoundsMeter meter;
  cli::MachineBounds bounds;
};

void Measure(Machine& machine, const Format& f, int inputs, const Options& options) {
  // More than the caches hold, up to a point.
  std::vector<PackedMatrix> matrices;
  size_t bytes = 0;
  while (bytes < size_t{256} << 20) {
    matrices.push_back(RandomMatrix(f, inputs, options.outputs));
    bytes += matrices.back().data.size();
  }
  const engine::Kernels& kernels = engine::KernelsFor(machine.isa);
  for (int rows : options.rows) {
    std::vector<float> a(static_cast<size_t>(rows * inputs));
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    for (float& x : a) x = normal(random);
    std::vector<float> packed(engine::PackedRowsFloats(rows, 1, inputs));
    std::vector<float> c(static_cast<size_t>(rows * matrices[0].padded_outputs()));
    const double operations = 2.0 * rows * inputs * options.outputs;
    const double panel_bytes = static_cast<double>(matrices[0].data.size());
    // About 5 ms a repetition.
    const double guess = std::max(operations / 8e11, panel_bytes / 2e10);
    const int times = std::max(1, static_cast<int>(5e-3 / guess));
    double fastest = 1e9;
    size_t next = 0;
    for (int round = 0; round < 12; ++round) {
      if (round % 6 == 0) machine.bounds = cli::Highest(machine.bounds, machine.meter.Measure());
      const double begin = Seconds(options);
      for (int i = 0; i < times; ++i) {
        const PackedMatrix& matrix = matrices[next++ % matrices.size()];
        const engine::Product product{&matrix, c.data(), matrix.padded_outputs()};
        engine::Multiply(kernels, machine.pool, options.activations, a.data(), rows, packed.data(),
                         {&product, 1});
      }
      fastest = std::min(fastest, (Seconds(options) - begin) / times);
    }
    const double rate = operations / fastest;
    std::printf("| %-10s | %5d | %4d | %5.0f | %4.1f | %5.1f | %4.1f |\n", f.name, inputs, rows,
                rate * 1e-9, 100 * rate / machine.bounds.int8_op_per_s,
                100 * rate / machine.bounds.f32_flop_per_s,
                100 * panel_bytes / fastest / machine.bounds.read_bytes_per_s);
    std::fflush(stdout);
  }
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  Machine machine(options.threads, options.isa);
  std::printf("%d threads, %s, %s activations, %d outputs\n", options.threads,
              std::string(engine::IsaName(options.isa)).c_str(),
              std::string(engine::ActivationsName(options.activations)).c_str(), options.outputs);
  std::printf("| weights    |     K | rows | GOP/s | %% of int8 | %% of f32 | %% of reading |\n");
  for (const Format& f : kFormats) {
    if (!options.only.empty() && options.only != f.name) continue;
    for (int inputs : options.inputs) Measure(machine, f, inputs, options);
  }
  std::printf("bounds: int8 %.0f GOP/s, f32 %.0f GFLOP/s, reading %.1f GB/s\n",
              machine.bounds.int8_op_per_s * 1e-9, machine.bounds.f32_flop_per_s * 1e-9,
              machine.bounds.read_bytes_per_s * 1e-9);
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
