// Floats that are quantized while they are packed: as mx.quantize does it, bit by bit.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/engine.h"
#include "engine/model_summary.h"
#include "engine/weights/weight_reader.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int kRows = 33, kInputs = 256;

Result<PackedMatrix> ReadMatrix(const Checkpoint& checkpoint, const ModelConfig& config,
                                const std::string& module, int rows = kRows, int inputs = kInputs) {
  ThreadPool pool(2);
  WeightReader reader(checkpoint, config, pool, [](uint64_t) {});
  return reader.Matrix(module, rows, inputs);
}

ModelConfig QuantizingTo(int bits) {
  ModelConfig config;
  config.quantize = QuantConfig{.mode = QuantMode::kAffine, .bits = bits, .group = 64};
  return config;
}

TEST(QuantizeOnLoadTest, EqualsMlx) {
  TempDir dir;
  std::filesystem::copy_file(std::filesystem::path(PERDURE_SOURCE_DIR) /
                                 "tests/engine/goldens/quantize_on_load.safetensors",
                             dir.path() / "model.safetensors");
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  for (const std::string type : {"f32", "bf16", "f16"}) {
    for (const int bits : {4, 8}) {
      SCOPED_TRACE(type + " to " + std::to_string(bits) + " bits");
      ModelConfig read;
      read.quantization = QuantizationConfig{.all = {.bits = bits, .group = 64}, .overrides = {}};
      const auto mlx = ReadMatrix(*checkpoint, read, type + "_" + std::to_string(bits));
      ASSERT_TRUE(mlx) << mlx.error().message;
      const auto own = ReadMatrix(*checkpoint, QuantizingTo(bits), type);
      ASSERT_TRUE(own) << own.error().message;
      EXPECT_EQ(own->layout.format, mlx->layout.format);
      EXPECT_EQ(own->layout.scale_type, mlx->layout.scale_type);
      EXPECT_TRUE(
          std::equal(own->data.begin(), own->data.end(), mlx->data.begin(), mlx->data.end()));
    }
  }
}

TEST(QuantizeOnLoadTest, KeepsWhatNoGroupDividesAndRoutersAtEightBits) {
  TempDir dir;
  const std::string ones(4 * 64 * 4, '\1');
  WriteText(dir.path() / "model.safetensors",
            SafetensorsBytes({{"odd.weight", "F32", {4, 96}, std::string(4 * 96 * 4, '\0')},
                              {"layer.mlp.gate.weight", "F32", {4, 64}, ones},
                              {"layer.mlp.gate_proj.weight", "F32", {4, 64}, ones}}));
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const ModelConfig config = QuantizingTo(4);
  EXPECT_EQ(ReadMatrix(*checkpoint, config, "odd", 4, 96)->layout.format, PanelFormat::kF32);
  EXPECT_EQ(ReadMatrix(*checkpoint, config, "layer.mlp.gate", 4, 64)->layout.format,
            PanelFormat::kQ8);
  EXPECT_EQ(ReadMatrix(*checkpoint, config, "layer.mlp.gate_proj", 4, 64)->layout.format,
            PanelFormat::kQ4);
}

TEST(QuantizeOnLoadTest, RefusesWhatIsNotFinite) {
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    TempDir dir;
    std::string data(size_t{4} * 64 * sizeof(float), '\0');
    std::memcpy(&data[100 * sizeof(float)], &bad, sizeof bad);
    WriteText(dir.path() / "model.safetensors",
              SafetensorsBytes({{"m.weight", "F32", {4, 64}, data}}));
    const auto checkpoint = Checkpoint::Open(dir.path());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    const auto matrix = ReadMatrix(*checkpoint, QuantizingTo(8), "m", 4, 64);
    ASSERT_FALSE(matrix);
    EXPECT_EQ(matrix.error().code, ErrorCode::bad_model);
    EXPECT_THAT(matrix.error().message, AllOf(HasSubstr("m.weight"), HasSubstr("NaN")));
  }
}

TEST(QuantizeOnLoadTest, ModelSaysSo) {
  TempDir dir;
  WriteSynthModel({.dtype = "bf16", .hidden = 64, .feed_forward = 128}, dir.path());
  const auto floats = Engine::Load(dir.path(), {.threads = 2});
  ASSERT_TRUE(floats) << floats.error().message;
  for (const int bits : {8, 4}) {
    const auto engine = Engine::Load(dir.path(), {.threads = 2, .quantize_bits = bits});
    ASSERT_TRUE(engine) << engine.error().message;
    const ModelInfo& info = (*engine)->info();
    EXPECT_EQ(info.quantization,
              "affine " + std::to_string(bits) + "-bit, group 64, quantized on load");
    EXPECT_EQ(info.parameters, (*floats)->info().parameters);
    EXPECT_LT(info.weight_bytes,
              (*floats)->info().weight_bytes * static_cast<size_t>(bits + 2) / 16);
    const ModelSummary summary = SummarizeModel(dir.path(), bits);
    ASSERT_TRUE(summary.weights);
    EXPECT_EQ(summary.weights->memory_bytes, info.weight_bytes);
  }
}

TEST(QuantizeOnLoadTest, RefusesModelsThatAreQuantized) {
  TempDir dir;
  WriteSynthModel({.hidden = 64, .feed_forward = 128, .bits = 4}, dir.path());
  const auto engine = Engine::Load(dir.path(), {.threads = 1, .quantize_bits = 8});
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::bad_config);
  EXPECT_THAT(engine.error().message,
              AllOf(HasSubstr(dir.path().string()), HasSubstr("affine 4-bit, group 64"),
                    HasSubstr("quantize = \"q8\"")));
  const ModelSummary summary = SummarizeModel(dir.path(), 8);
  EXPECT_THAT(summary.problems, testing::ElementsAre(engine.error().message));
}

}  // namespace
}  // namespace perdure::engine
