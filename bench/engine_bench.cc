// Models with the shapes of known ones and random weights, measured as `perdure bench` does, or
// written to a folder for bench/peers.
//
//   engine_bench [--shape NAME] [--bits 16,8,4,mxfp4] [--layers N] [--threads N] [--isa NAME]
//                [--prompt N] [--cached N] [--long N] [--quick] [--profile] [--json] [--model DIR]
//   engine_bench --write DIR [--shape NAME] [--bits N] [--layers N]
//
// qwen3-30b-a3b has 2 of its 48 layers unless --layers says otherwise: 128 experts each.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/processors.h"
#include "cli/bench/measure.h"
#include "cli/bench/report.h"
#include "engine/engine.h"
#include "tests/engine/synth_model.h"

namespace perdure::bench {
namespace {

struct Options {
  std::vector<std::string> bits = {"16", "8", "4"};
  std::string model, write;
  std::string shape = "qwen3-0.6b";
  int layers = 0;  // 0: the shape's
  bool json = false;
  engine::EngineOptions engine;
  cli::MeasurePlan plan;
};

[[noreturn]] void Usage(const std::string& what) {
  std::fprintf(
      stderr,
      "engine_bench: %s\n"
      "Usage: engine_bench [--shape qwen3-0.6b|qwen2.5-1.5b|qwen3-30b-a3b] "
      "[--bits 16,8,4,mxfp4]\n"
      "                    [--layers N] [--threads N] [--isa NAME]\n"
      "                    [--prompt N] [--cached N] [--long N] [--quick] [--profile] [--json]\n"
      "                    [--model FOLDER] [--write FOLDER]\n",
      what.c_str());
  std::exit(2);
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    parts.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return parts;
}

int Number(const std::string& flag, const std::string& value) {
  const int number = std::atoi(value.c_str());
  if (number < 1) Usage(flag + " takes a number from 1 on, not '" + value + "'");
  return number;
}

// True if the flag takes a value and is known.
bool TakeValue(const std::string& flag, const std::string& value, Options* options) {
  if (flag == "--threads") {
    options->engine.threads = Number(flag, value);
  } else if (flag == "--isa") {
    const auto isa = engine::ParseIsa(value);
    if (!isa || !engine::CpuHas(*isa)) Usage("this CPU has no instruction set '" + value + "'");
    options->engine.isa = *isa;
  } else if (flag == "--bits") {
    options->bits = SplitAtCommas(value);
  } else if (flag == "--model") {
    options->model = value;
  } else if (flag == "--write") {
    options->write = value;
  } else if (flag == "--shape") {
    options->shape = value;
  } else if (flag == "--prompt") {
    options->plan.prompt = Number(flag, value);
  } else if (flag == "--cached") {  // before the continuation
    options->plan.continuation_cached = Number(flag, value);
  } else if (flag == "--long") {
    options->plan.long_prompt = Number(flag, value);
  } else if (flag == "--layers") {
    options->layers = Number(flag, value);
  } else {
    return false;
  }
  return true;
}

Options Parse(int argc, char** argv) {
  Options options;
  options.engine.threads = UsableProcessors();
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--help") Usage("the engine's speed beside the machine's bounds");
    if (flag == "--json") {
      options.json = true;
    } else if (flag == "--profile") {
      options.plan.profile = true;
    } else if (flag == "--quick") {  // a prompt and single tokens after it
      options.plan.streams = {1};
      options.plan.continuation_tokens = 0;
    } else if (i + 1 == argc || !TakeValue(flag, argv[i + 1], &options)) {
      Usage("unknown flag " + flag + ", or its value is missing");
    } else {
      ++i;
    }
  }
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
  if (options.shape == "qwen2.5-1.5b") {
    spec.model_type = "qwen2";
    spec.hidden = 1536;
    spec.heads = 12;
    spec.kv_heads = 2;
    spec.feed_forward = 8960;
  } else if (options.shape == "qwen3-30b-a3b") {
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
    Usage("unknown shape " + options.shape);
  }
  if (options.layers > 0) spec.layers = options.layers;
  if (bits != "mxfp4" && bits != "16" && (std::atoi(bits.c_str()) < 2)) Usage("bits: " + bits);
  spec.bits = bits == "16" ? 0 : bits == "mxfp4" ? 4 : std::atoi(bits.c_str());
  if (bits == "mxfp4") spec.mode = bits;
  spec.config = R"({"max_position_embeddings": 40960})";
  return spec;
}

void Measure(const std::string& name, const std::filesystem::path& dir, const Options& options) {
  const auto measured = cli::Measure(dir, options.engine, options.plan, [](const std::string&) {});
  if (!measured) {
    std::fprintf(stderr, "engine_bench: %s\n", measured.error().message.c_str());
    std::exit(1);
  }
  const Json report = cli::BenchJson(name, *measured);
  std::printf("%s\n", options.json ? DumpJson(report).c_str() : cli::FormatBench(report).c_str());
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  if (!options.model.empty()) {
    Measure(options.model, options.model, options);
    return 0;
  }
  if (!options.write.empty()) {
    if (options.bits.size() != 1) Usage("--write takes one of --bits");
    std::filesystem::create_directories(options.write);
    engine::WriteSynthModel(Shape(options, options.bits[0]), options.write);
    return 0;
  }
  for (const std::string& bits : options.bits) {
    const engine::TempDir dir;
    engine::WriteSynthModel(Shape(options, bits), dir.path());
    Measure(options.shape, dir.path(), options);
  }
  return 0;
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) { return perdure::bench::Main(argc, argv); }
