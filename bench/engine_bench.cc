// Prefill and decode of a model with the shapes of a known one and random weights (or of a given
// folder), beside the machine's bounds measured in the same run.
//
//   engine_bench [--threads N] [--isa avx512|avx2|scalar] [--bits 16,8,4,mxfp4] [--model DIR]
//                [--shape qwen3-0.6b|qwen3-30b-a3b] [--layers N] [--prompt 512] [--decode 32]
//
// qwen3-30b-a3b has 2 of its 48 layers unless --layers says otherwise: 128 experts each.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/aligned_buffer.h"
#include "engine/config.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine_bench_bounds.h"
#include "tests/engine/synth_model.h"

namespace perdure::bench {
namespace {

using engine::Engine;
using engine::Isa;
using engine::KvShape;

struct Options {
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  Isa isa = engine::BestIsa();
  std::vector<std::string> bits = {"16", "8", "4"};
  std::string model;
  std::string shape = "qwen3-0.6b";
  int prompt = 512;
  int decode = 32;
  int layers = 0;  // 0: the shape's
};

[[noreturn]] void Usage(const char* what) {
  std::fprintf(stderr,
               "engine_bench: %s\n"
               "Usage: engine_bench [--threads N] [--isa scalar|avx2|avx512] "
               "[--bits 16,8,4,mxfp4]\n"
               "                    [--shape qwen3-0.6b|qwen3-30b-a3b] [--layers N]\n"
               "                    [--prompt N] [--decode N] [--model FOLDER]\n",
               what);
  std::exit(2);
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--help") Usage("speed of the engine beside the machine's bounds");
    if (i + 1 == argc) Usage(("no value for " + flag).c_str());
    const std::string value = argv[++i];
    if (flag == "--threads") {
      options.threads = std::atoi(value.c_str());
    } else if (flag == "--isa") {
      const auto isa = engine::ParseIsa(value);
      if (!isa) Usage("unknown instruction set");
      options.isa = *isa;
    } else if (flag == "--bits") {
      options.bits.clear();
      for (size_t at = 0; at < value.size();) {
        const size_t comma = std::min(value.find(',', at), value.size());
        options.bits.push_back(value.substr(at, comma - at));
        at = comma + 1;
      }
    } else if (flag == "--model") {
      options.model = value;
    } else if (flag == "--shape") {
      options.shape = value;
    } else if (flag == "--prompt") {
      options.prompt = std::atoi(value.c_str());
    } else if (flag == "--decode") {
      options.decode = std::atoi(value.c_str());
    } else if (flag == "--layers") {
      options.layers = std::atoi(value.c_str());
    } else {
      Usage(("unknown flag " + flag).c_str());
    }
  }
  if (options.threads < 1 || options.prompt < 1 || options.decode < 1 || options.layers < 0)
    Usage("numbers must be positive");
  return options;
}

engine::SynthSpec Shape(const Options& options, const std::string& bits) {
  engine::SynthSpec spec{.hidden = 1024,
                         .layers = 28,
                         .heads = 16,
                         .kv_heads = 8,
                         .head_dim = 128,
                         .feed_forward = 3072,
                         .vocab = 151936};
  if (options.shape == "qwen3-30b-a3b") {
    spec.model_type = "qwen3_moe";
    spec.hidden = 2048;
    spec.layers = 2;
    spec.heads = 32;
    spec.kv_heads = 4;
    spec.feed_forward = 6144;
    spec.tied = false;
    spec.experts = 128;
    spec.experts_per_token = 8;
    spec.expert_feed_forward = 768;
  } else if (options.shape != "qwen3-0.6b") {
    Usage("unknown shape");
  }
  if (options.layers > 0) spec.layers = options.layers;
  spec.bits = bits == "16" ? 0 : bits == "mxfp4" ? 4 : std::atoi(bits.c_str());
  if (bits == "mxfp4") spec.mode = bits;
  return spec;
}

int64_t HeadWeights(const std::filesystem::path& dir, const engine::ModelInfo& info) {
  const auto config = engine::ReadModelConfig(dir);
  if (!config) Usage(config.error().message.c_str());
  return int64_t{info.vocab_size} * config->hidden_size;
}

double Since(int64_t begin_us) { return static_cast<double>(MonotonicUs() - begin_us) * 1e-6; }

void Measure(const std::filesystem::path& dir, const Options& options,
             const MachineBounds& bounds) {
  const int64_t load_begin = MonotonicUs();
  auto loaded =
      Engine::Load(dir, {.threads = options.threads, .isa = options.isa, .on_progress = {}});
  if (!loaded) {
    std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
    std::exit(1);
  }
  Engine& engine = **loaded;
  const double load_s = Since(load_begin);
  const engine::ModelInfo& info = engine.info();

  const int positions = options.prompt + options.decode + 1;
  const auto pages = static_cast<size_t>(KvShape::PagesFor(positions));
  auto memory = engine::AlignedBuffer::Allocate(pages * info.kv.PageBytes(), "KV");
  if (!memory) Usage("no memory for KV");
  std::vector<std::byte*> views;
  for (size_t i = 0; i < pages; ++i) views.push_back(memory->data() + i * info.kv.PageBytes());

  const std::vector<TokenId> prompt = engine::SynthTokens(1, options.prompt, info.vocab_size);
  double prefill_s = 1e9;
  TokenId next = 0;
  engine::Sampler sampler;
  const engine::SamplingParams greedy{.temperature = 0.0f, .logit_bias = {}};
  for (int round = 0; round < 2; ++round) {
    const engine::SequenceStep step{
        .kv = {views}, .start = 0, .tokens = prompt, .logits_from = options.prompt - 1};
    const int64_t begin = MonotonicUs();
    const auto logits = engine.Step({&step, 1});
    prefill_s = std::min(prefill_s, Since(begin));
    next = sampler.Sample(logits, greedy, {}, {}).id;
  }
  const int64_t decode_begin = MonotonicUs();
  for (int i = 0; i < options.decode; ++i) {
    const engine::SequenceStep step{
        .kv = {views}, .start = options.prompt + i, .tokens = {&next, 1}, .logits_from = 0};
    next = sampler.Sample(engine.Step({&step, 1}), greedy, {}, {}).id;
  }
  const double decode_s = Since(decode_begin) / options.decode;

  // Bounds: the multiply-adds of the layers' weights (the embedding is looked up, the head works
  // for one token), and the bytes that every token has to read. Of experts, the chosen ones count.
  const double layer_weights = static_cast<double>(info.token_weights - HeadWeights(dir, info));
  const double prefill_rate = options.prompt / prefill_s, decode_rate = 1.0 / decode_s;
  std::printf(
      "%-24s load %4.1f s | prefill %6.1f tok/s = %4.1f%% of f32 peak | decode %5.2f tok/s = "
      "%4.1f%% of read bandwidth at %.0f MB each\n",
      info.quantization.c_str(), load_s, prefill_rate,
      100.0 * 2.0 * layer_weights * prefill_rate / bounds.f32_flop_per_s, decode_rate,
      100.0 * static_cast<double>(info.token_bytes) * decode_rate / bounds.read_bytes_per_s,
      static_cast<double>(info.token_bytes) * 1e-6);
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  const MachineBounds bounds = MeasureBounds(options.threads, options.isa);
  std::printf("%d threads, %s: reads %.1f GB/s, f32 multiply-adds %.0f GFLOP/s\n", options.threads,
              std::string(engine::IsaName(options.isa)).c_str(), bounds.read_bytes_per_s * 1e-9,
              bounds.f32_flop_per_s * 1e-9);
  std::printf("prompt %d, decode %d tokens after it\n", options.prompt, options.decode);
  if (!options.model.empty()) {
    Measure(options.model, options, bounds);
    return 0;
  }
  for (const std::string& bits : options.bits) {
    engine::TempDir dir;
    engine::WriteSynthModel(Shape(options, bits), dir.path());
    Measure(dir.path(), options, bounds);
  }
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
