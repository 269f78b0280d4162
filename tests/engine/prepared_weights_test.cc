// Prepared weights: equal bits, written once, made again when anything is wrong with them.

#include "engine/weights/prepared_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <future>

#include "base/file.h"
#include "engine/engine.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kTokens = 40;

std::vector<float> Logits(Engine& engine) {
  const std::vector<TokenId> tokens = SynthTokens(7, kTokens, engine.info().vocab_size);
  const KvMemory kv(engine.info().kv, kTokens);
  const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
  const auto logits = engine.Step({&step, 1});
  return {logits.begin(), logits.end()};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

SynthSpec SmallSpec() { return {.dtype = "bf16", .hidden = 64, .feed_forward = 128, .bits = 4}; }

class PreparedWeightsTest : public testing::Test {
 protected:
  void Write(const SynthSpec& spec) { WriteSynthModel(spec, model_.path()); }

  EngineOptions Options() const {
    return {.threads = 2, .prepared = {.dir = state_.path() / "prepared", .weights_bytes_min = 0}};
  }
  std::unique_ptr<Engine> Load(const EngineOptions& options) const {
    auto engine = Engine::Load(model_.path(), options);
    EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
    return engine ? std::move(*engine) : nullptr;
  }
  // The bits of a model packed in memory.
  std::vector<float> Expected(int quantize_bits = 0) const {
    return Logits(*Load({.threads = 2, .quantize_bits = quantize_bits}));
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    std::error_code error;
    for (fs::directory_iterator it(Options().prepared.dir, error), end; !error && it != end; ++it)
      files.push_back(it->path());
    return files;
  }
  fs::path File() const {
    const auto files = Files();
    EXPECT_EQ(files.size(), 1u);
    return files.empty() ? fs::path() : files[0];
  }
  static ino_t InodeOf(const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(stat(path.c_str(), &st), 0) << path;
    return st.st_ino;
  }
  // Flips a bit of a section: each page begins with one's bytes.
  void DamageWeights() const {
    std::fstream file(File(), std::ios::in | std::ios::out | std::ios::binary);
    const auto at = static_cast<std::streamoff>(fs::file_size(File()) / 3 / 4096 * 4096);
    char byte = 0;
    file.seekg(at).get(byte);
    file.seekp(at).put(static_cast<char>(byte ^ 16));
  }

  TempDir model_, state_;
};

TEST_F(PreparedWeightsTest, EqualBitsForEveryKindOfModel) {
  const SynthSpec specs[] = {
      {.dtype = "bf16"},
      {.dtype = "f16", .tied = false, .attention_bias = true},
      {.dtype = "f32", .shards = 3},
      {.hidden = 64, .feed_forward = 128, .tied = false, .bits = 4},
      {.hidden = 128,
       .feed_forward = 128,
       .bits = 3,
       .overrides = {{"model.layers.0.mlp.down_proj", 8}}},
      {.hidden = 64, .feed_forward = 128, .bits = 4, .group = 32, .mode = "mxfp4"},
      {.model_type = "qwen3_moe", .bits = 4, .experts = 4},
      {.model_type = "qwen3_moe", .experts = 4, .dense_layers = {0}, .expert_layout = "fused"},
      {.model_type = "qwen3_moe", .experts = 4, .expert_layout = "apart"},
  };
  for (const SynthSpec& spec : specs) {
    SCOPED_TRACE(SynthConfigJson(spec));
    TempDir model;
    WriteSynthModel(spec, model.path());
    const auto memory = Engine::Load(model.path(), {.threads = 2});
    ASSERT_TRUE(memory) << memory.error().message;
    EXPECT_EQ((*memory)->info().mapped_bytes, 0u);
    const auto expected = Logits(**memory);
    for (const char* which : {"first", "second"}) {
      SCOPED_TRACE(which);
      const auto engine = Engine::Load(model.path(), Options());
      ASSERT_TRUE(engine) << engine.error().message;
      const ModelInfo &info = (*engine)->info(), &other = (*memory)->info();
      EXPECT_GE(info.mapped_bytes, info.weight_bytes);
      EXPECT_EQ(info.weight_bytes, other.weight_bytes);
      EXPECT_EQ(info.parameters, other.parameters);
      EXPECT_EQ(info.token_bytes, other.token_bytes);
      EXPECT_EQ(info.quantization, other.quantization);
      EXPECT_TRUE(SameBits(Logits(**engine), expected));
    }
  }
}

TEST_F(PreparedWeightsTest, IsWrittenOnceAndReportsProgress) {
  Write(SmallSpec());
  EngineOptions options = Options();
  LoadProgress last;
  options.on_progress = [&](const LoadProgress& progress) { last = progress; };
  Load(options);
  const ino_t inode = InodeOf(File());
  EXPECT_EQ(fs::status(File()).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_GT(last.bytes_total, 0u);
  EXPECT_EQ(last.bytes_done, last.bytes_total);
  const auto one = Load(options), two = Load(options);
  EXPECT_EQ(InodeOf(File()), inode);
  EXPECT_EQ(last.bytes_done, last.bytes_total);
}

TEST_F(PreparedWeightsTest, EachQuantizationHasItsFile) {
  Write({.dtype = "bf16", .hidden = 64, .feed_forward = 128});
  for (const int bits : {0, 8, 4}) {
    EngineOptions options = Options();
    options.quantize_bits = bits;
    for (int i = 0; i < 2; ++i)
      EXPECT_TRUE(SameBits(Logits(*Load(options)), Expected(bits))) << bits;
  }
  EXPECT_EQ(Files().size(), 3u);
}

TEST_F(PreparedWeightsTest, ChangedModelIsPreparedAgain) {
  SynthSpec spec = SmallSpec();
  for (const uint64_t seed : {1, 2}) {
    spec.seed = seed;
    Write(spec);
    EXPECT_TRUE(SameBits(Logits(*Load(Options())), Expected())) << seed;
  }
  spec.config = R"({"rope_theta": 5000.0})";
  Write(spec);
  EXPECT_TRUE(SameBits(Logits(*Load(Options())), Expected()));
  File();  // one, however often it changed
}

TEST_F(PreparedWeightsTest, SmallModelsArePackedInMemory) {
  Write(SmallSpec());
  EngineOptions options = Options();
  options.prepared.weights_bytes_min = uint64_t{1} << 30;
  EXPECT_EQ(Load(options)->info().mapped_bytes, 0u);
  EXPECT_TRUE(Files().empty());
}

TEST_F(PreparedWeightsTest, FolderThatCannotBeWrittenIsDoneWithout) {
  Write(SmallSpec());
  WriteText(state_.path() / "prepared", "a file");
  const auto engine = Load(Options());
  EXPECT_EQ(engine->info().mapped_bytes, 0u);
  EXPECT_TRUE(SameBits(Logits(*engine), Expected()));
}

TEST_F(PreparedWeightsTest, ModelsThatAreTooLargeAreDoneWithout) {
  Write(SmallSpec());
  EngineOptions options = Options();
  options.prepared.bytes_max = 50'000;
  EXPECT_EQ(Load(options)->info().mapped_bytes, 0u);
  EXPECT_TRUE(Files().empty());
}

// What a child process exits with; -signal where one ended it.
template <class Fn>
int InChild(Fn&& fn) {
  const pid_t pid = fork();
  if (pid == 0) _exit(fn());
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

TEST_F(PreparedWeightsTest, FullDiskIsDoneWithout) {
  Write(SmallSpec());
  const auto expected = Expected();
  for (const rlim_t limit : {4096, 20'000, 60'000}) {
    const int code = InChild([&] {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit most{limit, limit};
      if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 1;
      const auto engine = Engine::Load(model_.path(), Options());
      if (!engine || (*engine)->info().mapped_bytes != 0) return 2;
      return SameBits(Logits(**engine), expected) ? 0 : 3;
    });
    EXPECT_EQ(code, 0) << limit;
    EXPECT_TRUE(Files().empty()) << limit;
  }
}

TEST_F(PreparedWeightsTest, DamageIsNoticedAfterTheFirstStep) {
  Write(SmallSpec());
  Load(Options());
  DamageWeights();
  std::promise<std::string> told;
  EngineOptions options = Options();
  options.on_damage = [&](const std::string& text) { told.set_value(text); };
  {
    const auto engine = Load(options);
    EXPECT_GT(engine->info().mapped_bytes, 0u);
    Logits(*engine);
    Logits(*engine);
    EXPECT_THAT(told.get_future().get(), HasSubstr("is damaged"));
  }
  EXPECT_TRUE(Files().empty());
  EXPECT_TRUE(SameBits(Logits(*Load(Options())), Expected()));
}

TEST_F(PreparedWeightsTest, DamageEndsAProcessThatDoesNotCare) {
  Write(SmallSpec());
  Load(Options());
  DamageWeights();
  EXPECT_DEATH(
      {
        const auto engine = Load(Options());
        Logits(*engine);
        pause();  // the check is on a thread of its own
      },
      "is damaged");
}

TEST_F(PreparedWeightsTest, FileCutShortWhileMappedIsMadeAgain) {
  Write(SmallSpec());
  const auto expected = Expected();
  Load(Options());
  for (const uintmax_t size : {uintmax_t{0}, uintmax_t{100}, uintmax_t{8192}}) {
    const int code = InChild([&] {
      const auto engine = Engine::Load(model_.path(), Options());
      if (!engine) return 1;
      fs::resize_file(File(), size);
      Logits(**engine);
      return 0;
    });
    EXPECT_TRUE(code != 0 && code != 1) << code;  // SIGBUS, or what a sanitizer makes of it
    EXPECT_TRUE(SameBits(Logits(*Load(Options())), expected));
  }
}

TEST_F(PreparedWeightsTest, ProcessesThatLoadAtOnceShareOneFile) {
  Write(SmallSpec());
  const auto expected = Expected();
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t pid = fork();
    if (pid == 0) {
      const auto engine = Engine::Load(model_.path(), Options());
      if (!engine) _exit(1);
      if ((*engine)->info().mapped_bytes == 0) _exit(2);
      _exit(SameBits(Logits(**engine), expected) ? 0 : 3);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  File();
}

// A killed writer leaves a temporary file at most, which the next one takes over.
TEST_F(PreparedWeightsTest, KilledWritersLeaveNothingThatHarms) {
  Write(SmallSpec());
  const auto expected = Expected();
  int reports = 0;
  EngineOptions options = Options();
  options.on_progress = [&](const LoadProgress&) { ++reports; };
  Load(options);
  for (int at = 1; at <= reports; ++at) {
    fs::remove_all(options.prepared.dir);
    int seen = 0;
    options.on_progress = [&](const LoadProgress&) {
      if (++seen == at) raise(SIGKILL);
    };
    EXPECT_EQ(InChild([&] { return Engine::Load(model_.path(), options) ? 0 : 1; }), -SIGKILL);
    const auto engine = Load(Options());
    EXPECT_GT(engine->info().mapped_bytes, 0u);
    EXPECT_TRUE(SameBits(Logits(*engine), expected)) << at;
    EXPECT_EQ(File().extension(), ".weights");
  }
}

}  // namespace
}  // namespace perdure::engine
