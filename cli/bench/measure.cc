#include "cli/bench/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/limits.h"
#include "engine/aligned_buffer.h"
#include "engine/config.h"
#include "engine/sampler.h"

namespace perdure::cli {
namespace {

using engine::Engine;
using engine::KvShape;

constexpr int kRepetitionsMin = 3;
constexpr int kRepetitionsMax = 200;

double SecondsSince(int64_t begin_us) {
  return static_cast<double>(MonotonicUs() - begin_us) * 1e-6;
}

// The value behind `key` in /proc/self/status, which counts in KiB.
uint64_t StatusBytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  return 0;
}

// Arbitrary tokens of the vocabulary, always the same.
std::vector<TokenId> Tokens(int count, int vocab) {
  std::vector<TokenId> tokens;
  uint64_t state = 1;
  for (int i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    tokens.push_back(static_cast<TokenId>((state >> 33) % static_cast<uint64_t>(vocab)));
  }
  return tokens;
}

// The keys and values of some sequences.
class KvMemory {
 public:
  static Result<KvMemory> Make(const KvShape& shape, int streams, int positions, int longest) {
    KvMemory kv;
    kv.page_bytes_ = shape.PageBytes();
    const int pages = KvShape::PagesFor(positions), first = KvShape::PagesFor(longest);
    const auto all = static_cast<size_t>(first + (streams - 1) * pages);
    ASSIGN_OR_RETURN(kv.memory_, engine::AlignedBuffer::Allocate(all * kv.page_bytes_, "KV"));
    std::byte* at = kv.memory_.data();
    for (int stream = 0; stream < streams; ++stream) {
      auto& views = kv.pages_.emplace_back();
      for (int i = 0; i < (stream == 0 ? first : pages); ++i, at += kv.page_bytes_)
        views.push_back(at);
    }
    kv.bytes_ = all * kv.page_bytes_;
    return kv;
  }
  engine::KvView View(int stream) const { return {pages_[static_cast<size_t>(stream)]}; }
  // What the first stream has computed of these positions, for all others.
  void CopyToAll(int positions) {
    for (size_t stream = 1; stream < pages_.size(); ++stream)
      for (int i = 0; i < KvShape::PagesFor(positions); ++i)
        std::copy_n(pages_[0][static_cast<size_t>(i)], page_bytes_,
                    pages_[stream][static_cast<size_t>(i)]);
  }
  uint64_t bytes() const { return bytes_; }

 private:
  engine::AlignedBuffer memory_;
  std::vector<std::vector<std::byte*>> pages_;
  size_t page_bytes_ = 0;
  uint64_t bytes_ = 0;
};

class Runner {
 public:
  Runner(const MeasurePlan& plan, const std::function<void(const std::string&)>& on_step)
      : plan_(plan), on_step_(on_step) {}

  Result<Measurement> Run(const std::filesystem::path& dir, engine::EngineOptions options);

 private:
  Status AllocateKv();
  void MeasureAll();
  bool Fits(const std::string& name, int positions);
  // Computes the positions of the first stream that are still missing before `end`.
  void FillTo(int end);
  void Step(const StepShape& shape);
  void Add(const char* key, std::string name, const StepShape& shape);
  int Longest() const;

  const MeasurePlan& plan_;
  const std::function<void(const std::string&)>& on_step_;
  engine::PhaseProfile profile_;
  std::unique_ptr<Engine> engine_;
  engine::ModelConfig config_;
  bool int8_activations_ = true;
  std::optional<BoundsMeter> meter_;
  std::optional<KvMemory> kv_;
  std::vector<TokenId> tokens_;  // of the first stream; the others begin elsewhere in them
  int filled_ = 0;               // positions of the first stream that have been computed
  engine::Sampler sampler_;
  Measurement result_;
};

Result<Measurement> Runner::Run(const std::filesystem::path& dir, engine::EngineOptions options) {
  if (plan_.profile) options.profile = &profile_;
  on_step_("loading");
  const int64_t begin = MonotonicUs();
  ASSIGN_OR_RETURN(engine_, Engine::Load(dir, options));
  result_.load_s = SecondsSince(begin);
  ASSIGN_OR_RETURN(config_, engine::ReadModelConfig(dir));
  result_.info = engine_->info();
  result_.isa = options.isa;
  result_.threads = options.threads;
  int8_activations_ = options.activations == engine::Activations::kInt8;
  RETURN_IF_ERROR(AllocateKv());
  const int64_t first = MonotonicUs();
  Step({.streams = 1, .cached = 0, .fresh = 1});
  result_.load_first_token_s = result_.load_s + SecondsSince(first);

  on_step_("the machine's bounds");
  meter_.emplace(options.threads, options.isa, plan_.bound_bytes);
  result_.bounds.push_back(meter_->Measure(plan_.bound_rounds));
  MeasureAll();
  meter_.reset();
  result_.memory = {.resident_bytes = StatusBytes("VmRSS:"),
                    .anonymous_bytes = StatusBytes("RssAnon:"),
                    .weight_bytes = result_.info.weight_bytes,
                    .kv_bytes = kv_->bytes()};
  return std::move(result_);
}

int Runner::Longest() const {
  return std::max({plan_.prompt, plan_.decode_context + 1,
                   plan_.continuation_cached + plan_.continuation_tokens, plan_.long_prompt + 1});
}

Status Runner::AllocateKv() {
  const int streams =
      plan_.streams.empty() ? 1 : *std::max_element(plan_.streams.begin(), plan_.streams.end());
  const int longest = std::min(Longest(), engine_->info().max_context);
  ASSIGN_OR_RETURN(kv_,
                   KvMemory::Make(engine_->info().kv, streams, plan_.decode_context + 1, longest));
  tokens_ = Tokens(std::max(longest, streams), engine_->info().vocab_size);
  return {};
}

bool Runner::Fits(const std::string& name, int positions) {
  if (positions <= engine_->info().max_context) return true;
  result_.notes.push_back(fmt::format("{} is left out: it takes {} positions, the model has {}",
                                      name, positions, engine_->info().max_context));
  return false;
}

void Runner::Step(const StepShape& shape) {
  std::vector<engine::SequenceStep> steps;
  const engine::SamplingParams greedy{.temperature = 0.0f, .logit_bias = {}};
  // A long prompt goes in pieces, as in the service.
  for (int done = 0; done < shape.fresh;) {
    const int count = std::min(shape.fresh - done, limits::kEngineRowsMax);
    steps.clear();
    for (int stream = 0; stream < shape.streams; ++stream) {
      // Single tokens differ from stream to stream, so that experts do.
      const int from = shape.fresh == 1 ? stream : shape.cached + done;
      steps.push_back({.kv = kv_->View(stream),
                       .start = shape.cached + done,
                       .tokens = std::span(tokens_).subspan(static_cast<size_t>(from),
                                                            static_cast<size_t>(count)),
                       .logits_from = done + count == shape.fresh ? count - 1 : count});
    }
    const std::span<const float> logits = engine_->Step(steps);
    done += count;
    const auto vocab = static_cast<size_t>(engine_->info().vocab_size);
    for (size_t row = 0; row < logits.size() / vocab; ++row)
      sampler_.Sample(logits.subspan(row * vocab, vocab), greedy, {}, {});
  }
}

void Runner::FillTo(int end) {
  if (filled_ >= end) return;
  Step({.streams = 1, .cached = filled_, .fresh = end - filled_});
  filled_ = end;
}

void Runner::Add(const char* key, std::string name, const StepShape& shape) {
  on_step_(name);
  Figure figure{.key = key, .name = std::move(name), .shape = shape, .bound = {}, .phases = {}};
  const MachineBounds before = result_.bounds.back();
  // The first time, caches are cold and buffers grow.
  if (shape.Tokens() <= plan_.prompt) Step(shape);
  profile_.Clear();
  std::vector<double> seconds;
  double total = 0.0;
  const int least = shape.Tokens() <= plan_.prompt ? kRepetitionsMin : 1;
  while (std::ssize(seconds) < least ||
         (total < plan_.seconds_each && std::ssize(seconds) < kRepetitionsMax)) {
    const int64_t begin = MonotonicUs();
    Step(shape);
    seconds.push_back(SecondsSince(begin));
    total += seconds.back();
  }
  figure.phases = profile_.Phases();
  figure.profiled_s = total;
  result_.bounds.push_back(meter_->Measure(plan_.bound_rounds));
  std::sort(seconds.begin(), seconds.end());
  figure.repetitions = static_cast<int>(seconds.size());
  figure.median_s = seconds[seconds.size() / 2];
  figure.best_s = seconds.front();
  StepWork work = WorkOf(result_.info, config_, shape);
  work.int8 = work.int8 && int8_activations_;
  figure.bound = RooflineOf(work, Highest(before, result_.bounds.back()));
  result_.figures.push_back(std::move(figure));
}

void Runner::MeasureAll() {
  std::string name = fmt::format("prefill {}", plan_.prompt);
  if (plan_.prompt > 0 && Fits(name, plan_.prompt)) {
    Add("prefill", name, {.streams = 1, .cached = 0, .fresh = plan_.prompt});
    filled_ = plan_.prompt;
  }
  name = fmt::format("decode at {}", plan_.decode_context);
  if (!plan_.streams.empty() && Fits(name, plan_.decode_context + 1)) {
    FillTo(plan_.decode_context);
    kv_->CopyToAll(plan_.decode_context);
    for (int streams : plan_.streams)
      Add("decode", fmt::format("decode, {} {}", streams, streams == 1 ? "stream" : "streams"),
          {.streams = streams, .cached = plan_.decode_context, .fresh = 1});
    filled_ = std::min(filled_, plan_.decode_context);  // the token there was another one
  }
  const int cached = plan_.continuation_cached, fresh = plan_.continuation_tokens;
  name = fmt::format("{} new tokens on {}", fresh, cached);
  if (fresh > 0 && Fits(name, cached + fresh)) {
    FillTo(cached);
    Add("continuation", name, {.streams = 1, .cached = cached, .fresh = fresh});
  }
  if (plan_.long_prompt > 0 && Fits("the long prompt", plan_.long_prompt + 1)) {
    Add("long_prefill", fmt::format("prefill {}", plan_.long_prompt),
        {.streams = 1, .cached = 0, .fresh = plan_.long_prompt});
    Add("long_decode", fmt::format("decode at {}", plan_.long_prompt),
        {.streams = 1, .cached = plan_.long_prompt, .fresh = 1});
  }
}

}  // namespace

Result<Measurement> Measure(const std::filesystem::path& dir, const engine::EngineOptions& options,
                            const MeasurePlan& plan,
                            const std::function<void(const std::string&)>& on_step) {
  return Runner(plan, on_step).Run(dir, options);
}

}  // namespace perdure::cli
