// Quantized matrices: what MLX writes is read as MLX reads it, in every kind; and what does not fit
// together is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/float16.h"
#include "engine/weights/weight_reader.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

QuantConfig Affine(int bits, int group) {
  return {.mode = QuantMode::kAffine, .bits = bits, .group = group};
}
const QuantConfig kMxfp4{.mode = QuantMode::kMxfp4, .bits = 4, .group = 32};

// Reads one matrix of a checkpoint of these tensors.
class Reading {
 public:
  explicit Reading(const std::vector<SynthTensor>& tensors) {
    WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
    Open();
  }
  explicit Reading(const std::filesystem::path& file) {
    std::filesystem::copy_file(file, dir_.path() / "model.safetensors");
    Open();
  }

  // `quant` is what config.json says of the module by name; `all`, of those without a name.
  Result<PackedMatrix> Matrix(const std::string& module, int outputs, int inputs,
                              std::optional<std::optional<QuantConfig>> quant,
                              QuantConfig all = {}) {
    ModelConfig config;
    config.quantization = QuantizationConfig{.all = all, .overrides = {}};
    if (quant) config.quantization->overrides[module] = *quant;
    ThreadPool pool(2);
    WeightReader reader(*checkpoint_, config, pool, [](uint64_t) {});
    return reader.Matrix(module, outputs, inputs);
  }
  const TensorInfo& Tensor(const std::string& name) const { return *checkpoint_->Find(name); }

 private:
  void Open() {
    auto checkpoint = Checkpoint::Open(dir_.path());
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    checkpoint_ = std::move(*checkpoint);
  }
  TempDir dir_;
  std::optional<Checkpoint> checkpoint_;
};

// All rows, as the embedding reads them; checks that the product's kernels see the same.
std::vector<float> AllRows(const PackedMatrix& matrix) {
  const auto k = static_cast<size_t>(matrix.layout.k);
  std::vector<float> rows(static_cast<size_t>(matrix.outputs) * k), panel(k * kPanelWidth);
  for (int row = 0; row < matrix.outputs; ++row) {
    float* to = &rows[static_cast<size_t>(row) * k];
    ReadRow(matrix, row, to);
    for (int k0 = 0; k0 < matrix.layout.k; k0 += kChunkRows)
      KernelsFor(Isa::kScalar)
          .unpack(matrix.layout, matrix.Panel(row / kPanelWidth), k0,
                  std::min(matrix.layout.k, k0 + kChunkRows),
                  &panel[static_cast<size_t>(k0) * kPanelWidth]);
    for (size_t i = 0; i < k; ++i)
      EXPECT_EQ(std::bit_cast<uint32_t>(to[i]),
                std::bit_cast<uint32_t>(panel[i * kPanelWidth + size_t(row % kPanelWidth)]));
  }
  return rows;
}

// --- What MLX writes -----------------------------------------------------------------------------

class MlxTest : public testing::Test {
 protected:
  static constexpr int kInputs = 256;
  std::vector<float> Values(const std::string& module, int outputs) {
    const TensorInfo& tensor = reading_.Tensor(module + ".values");
    std::vector<float> values(tensor.data.size() / sizeof(float));
    EXPECT_EQ(values.size(), static_cast<size_t>(outputs * kInputs));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  Reading reading_{std::filesystem::path(PERDURE_SOURCE_DIR) /
                   "tests/engine/goldens/quantized.safetensors"};
};

TEST_F(MlxTest, AffineInEveryWidthAndGroup) {
  constexpr int kRows = 5;
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128}) {
      const std::string module = "affine_" + std::to_string(bits) + "_" + std::to_string(group);
      SCOPED_TRACE(module);
      const auto matrix = reading_.Matrix(module, kRows, kInputs, Affine(bits, group));
      ASSERT_TRUE(matrix.has_value()) << matrix.error().message;
      const std::vector<float> rows = AllRows(*matrix), expected = Values(module, kRows);
      // MLX rounds scale · q and the sum, here the sum alone is rounded.
      for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(rows[i], expected[i], 4e-6f) << i;
      // Unnamed in config.json, its shapes say the same.
      const auto by_shapes = reading_.Matrix(module, kRows, kInputs, std::nullopt, Affine(7, 1));
      ASSERT_TRUE(by_shapes.has_value()) << by_shapes.error().message;
      EXPECT_EQ(AllRows(*by_shapes), rows);
    }
}

TEST_F(MlxTest, Mxfp4IsExact) {
  for (const auto& [module, outputs] : {std::pair("mxfp4", 5), std::pair("mxfp4_scales", 32)}) {
    SCOPED_TRACE(module);
    const auto matrix = reading_.Matrix(module, outputs, kInputs, kMxfp4);
    ASSERT_TRUE(matrix.has_value()) << matrix.error().message;
    EXPECT_EQ(matrix->layout.format, PanelFormat::kMxfp4);
    const std::vector<float> rows = AllRows(*matrix), expected = Values(module, outputs);
    ASSERT_EQ(rows.size(), expected.size());
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_EQ(std::bit_cast<uint32_t>(rows[i]), std::bit_cast<uint32_t>(expected[i])) << i;
    EXPECT_TRUE(reading_.Matrix(module, outputs, kInputs, std::nullopt, Affine(4, 64)).has_value());
  }
}

// --- Every affine kind ---------------------------------------------------------------------------

struct Quantized {
  std::vector<SynthTensor> tensors;
  std::vector<float> values;
};

// Random numbers and scales, a third of which are negative, and what they stand for, bit by bit.
Quantized RandomAffine(int bits, int group, const std::string& dtype, int outputs, int inputs) {
  std::mt19937_64 random(static_cast<uint64_t>(bits * 1000 + group));
  std::normal_distribution<float> normal(0.0f, 1.0f);
  const int64_t words = int64_t{inputs} * bits / 32, groups = inputs / group;
  SynthTensor weight{"m.weight", "U32", {outputs, words}, {}};
  SynthTensor scales{"m.scales", dtype, {outputs, groups}, {}};
  SynthTensor biases{"m.biases", dtype, {outputs, groups}, {}};
  for (int64_t i = 0; i < outputs * words * 4; ++i)
    weight.data.push_back(static_cast<char>(random()));
  // The value that a scale has after rounding to its type.
  const auto append = [&](SynthTensor& tensor, float value) {
    if (dtype == "F32") {
      tensor.data.append(reinterpret_cast<const char*>(&value), 4);
      return value;
    }
    const uint16_t half = dtype == "F16" ? F32ToF16(value) : F32ToBf16(value);
    tensor.data.append(reinterpret_cast<const char*>(&half), 2);
    return dtype == "F16" ? F16ToF32(half) : Bf16ToF32(half);
  };
  std::vector<float> values;
  for (int row = 0; row < outputs; ++row)
    for (int g = 0; g < groups; ++g) {
      const float scale =
          append(scales, (g % 3 == 2 ? -1.0f : 1.0f) * (std::fabs(normal(random)) + 0.01f));
      const float bias = append(biases, normal(random));
      for (int i = g * group; i < (g + 1) * group; ++i) {
        uint32_t q = 0;
        for (int bit = 0; bit < bits; ++bit) {
          const int64_t at = (int64_t{row} * words * 32) + int64_t{i} * bits + bit;
          q |= uint32_t((static_cast<unsigned char>(weight.data[size_t(at / 8)]) >> (at % 8)) & 1)
               << bit;
        }
        values.push_back(std::fma(scale, static_cast<float>(q), bias));
      }
    }
  return {{weight, scales, biases}, values};
}

TEST(QuantizationTest, EveryAffineWidthGroupAndScaleType) {
  constexpr int kOutputs = 37, kInputs = 384;  // a panel and a part of one
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128})
      for (const char* dtype : {"F32", "F16", "BF16"}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, group " << group << ", " << dtype);
        const Quantized q = RandomAffine(bits, group, dtype, kOutputs, kInputs);
        const auto matrix = Reading(q.tensors).Matrix("m", kOutputs, kInputs, Affine(bits, group));
        ASSERT_TRUE(matrix.has_value()) << matrix.error().message;
        EXPECT_EQ(AllRows(*matrix), q.values);
        EXPECT_EQ(matrix->layout.format, bits <= 4 ? PanelFormat::kQ4 : PanelFormat::kQ8);
      }
}

// --- What does not fit ---------------------------------------------------------------------------

TEST(QuantizationTest, WhatDoesNotFitIsRefused) {
  constexpr int kOutputs = 6, kInputs = 128;
  using Override = std::optional<std::optional<QuantConfig>>;
  const Override not_quantized = std::optional<QuantConfig>(), silent = std::nullopt;
  const Override affine = std::optional(Affine(4, 64)), mxfp4 = std::optional(kMxfp4);
  const std::vector<SynthTensor> good = RandomAffine(4, 64, "BF16", kOutputs, kInputs).tensors;
  const std::vector<SynthTensor> good_mxfp4 = {
      {"m.weight", "U32", {kOutputs, kInputs / 8}, std::string(kOutputs * kInputs / 2, 'w')},
      {"m.scales", "U8", {kOutputs, kInputs / 32}, std::string(kOutputs * kInputs / 32, 'x')}};
  ASSERT_TRUE(Reading(good).Matrix("m", kOutputs, kInputs, affine).has_value());
  ASSERT_TRUE(Reading(good_mxfp4).Matrix("m", kOutputs, kInputs, mxfp4).has_value());

  using Tensors = std::vector<SynthTensor>;
  struct Row {
    const char* what;
    Tensors tensors;
    Override quant;
    std::function<void(Tensors&)> damage;
    std::vector<const char*> reasons;
  };
  const Row rows[] = {
      {"scales of another group",
       good,
       affine,
       [](Tensors& t) {
         t[1] = {"m.scales", "BF16", {kOutputs, 4}, std::string(48, '\0')};
       },
       {"m.scales has the shape [6, 4]", "[6, 2]"}},
      {"biases of another group",
       good,
       affine,
       [](Tensors& t) {
         t[2] = {"m.biases", "BF16", {kOutputs, 1}, std::string(12, '\0')};
       },
       {"m.biases has the shape [6, 1]", "[6, 2]"}},
      {"weights of another width",
       good,
       std::optional(Affine(8, 64)),
       [](Tensors&) {},
       {"m.weight has the shape [6, 16]", "[6, 32]"}},
      {"scales missing, named",
       good,
       affine,
       [](Tensors& t) { t.erase(t.begin() + 1); },
       {"tensor m.scales is missing"}},
      {"scales missing, not named",
       good,
       silent,
       [](Tensors& t) { t.erase(t.begin() + 1); },
       {"m.weight is of dtype U32", "m.scales is missing"}},
      {"said not to be quantized",
       good,
       not_quantized,
       [](Tensors&) {},
       {"m.weight is of dtype U32", "config.json says that it is not quantized"}},
      {"biases missing",
       good,
       affine,
       [](Tensors& t) { t.pop_back(); },
       {"tensor m.biases is missing"}},
      {"affine called mxfp4",
       good,
       mxfp4,
       [](Tensors&) {},
       {"m.scales has the shape [6, 2]", "[6, 4]"}},
      {"mxfp4 called affine",
       good_mxfp4,
       std::optional(Affine(4, 32)),
       [](Tensors&) {},
       {"tensor m.biases is missing"}},
      {"mxfp4 with scales of BF16",
       good_mxfp4,
       mxfp4,
       [](Tensors& t) {
         t[1] = {"m.scales", "BF16", {kOutputs, 4}, std::string(48, '\0')};
       },
       {"m.scales is of dtype BF16", "U8 (mxfp4)"}},
      {"mxfp4 with biases",
       good_mxfp4,
       mxfp4,
       [](Tensors& t) {
         t.push_back({"m.biases", "U8", {kOutputs, 4}, std::string(24, '\0')});
       },
       {"m.biases is there", "mxfp4, which has none"}},
      {"mxfp4 with a scale that is NaN",
       good_mxfp4,
       mxfp4,
       [](Tensors& t) { t[1].data[13] = '\xff'; },
       {"m.scales has a scale of 255", "NaN", "damaged"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    Tensors tensors = row.tensors;
    row.damage(tensors);
    const auto matrix = Reading(tensors).Matrix("m", kOutputs, kInputs, row.quant);
    ASSERT_FALSE(matrix.has_value());
    EXPECT_EQ(matrix.error().code, ErrorCode::bad_model);
    for (const char* reason : row.reasons) EXPECT_THAT(matrix.error().message, HasSubstr(reason));
  }

  const SynthTensor odd{"m.weight", "BF16", {kOutputs, 96}, std::string(kOutputs * 192, '\0')};
  EXPECT_THAT(Reading({odd}).Matrix("m", kOutputs, 96, affine).error().message,
              HasSubstr("m is quantized in groups of 64, but has 96 inputs"));
  // Without a word of it, nor scales, it is what it looks like: rows that no group divides.
  EXPECT_TRUE(Reading({odd}).Matrix("m", kOutputs, 96, silent).has_value());
}

// Matrices that no group divides stay as they were; the rest of the model is quantized.
TEST(QuantizationTest, ModelsMayBeQuantizedInPart) {
  const SynthSpec spec{.hidden = 128, .feed_forward = 96, .bits = 4};
  TempDir dir;
  WriteSynthModel(spec, dir.path());
  const std::vector<SynthTensor> tensors = SynthTensors(spec);
  const auto dtype_of = [&](const std::string& name) {
    const auto it = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const SynthTensor& tensor) { return tensor.name == name; });
    return it == tensors.end() ? "none" : it->dtype;
  };
  ASSERT_EQ(dtype_of("model.layers.0.mlp.up_proj.weight"), "U32");
  ASSERT_EQ(dtype_of("model.layers.0.mlp.down_proj.weight"), "BF16");
  ASSERT_EQ(dtype_of("model.layers.0.mlp.down_proj.scales"), "none");
  const auto engine = Engine::Load(dir.path(), {.threads = 1});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  EXPECT_EQ((*engine)->info().quantization, "affine 4-bit, group 64");
}

TEST(QuantizationTest, Mxfp4IsNamed) {
  TempDir dir;
  for (const bool mixed : {false, true}) {
    SynthSpec spec{.bits = 4, .mode = "mxfp4"};
    if (mixed) spec.overrides = {{"model.layers.0.mlp.up_proj", 8}};
    WriteSynthModel(spec, dir.path());
    const auto engine = Engine::Load(dir.path(), {.threads = 1});
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    EXPECT_EQ((*engine)->info().quantization, mixed ? "mxfp4, group 32, mixed" : "mxfp4, group 32");
  }
}

// --- config.json ---------------------------------------------------------------------------------

class QuantConfigTest : public testing::Test {
 protected:
  Result<QuantizationConfig> Read(const std::string& quantization) {
    std::string json = SynthConfigJson({});
    json.insert(1, "\"quantization\": " + quantization + ",");
    WriteText(dir_.path() / "config.json", json);
    ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir_.path()));
    return config.quantization.value_or(QuantizationConfig{});
  }
  TempDir dir_;
};

TEST_F(QuantConfigTest, OverridesDoNotInheritTheMode) {
  const auto config = Read(R"({"mode": "mxfp4", "group_size": 32, "bits": 4,
      "model.layers.0.mlp.gate": {"group_size": 64, "bits": 8}, "plain": {},
      "same": true, "none": false, "other": {"mode": "mxfp4"},
      "said": {"mode": "affine", "bits": 3, "group_size": 128}})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->all, kMxfp4);
  EXPECT_EQ(config->overrides.at("model.layers.0.mlp.gate"), Affine(8, 64));
  EXPECT_EQ(config->overrides.at("plain"), Affine(4, 64));
  EXPECT_EQ(config->overrides.at("same"), kMxfp4);
  EXPECT_EQ(config->overrides.at("none"), std::nullopt);
  EXPECT_EQ(config->overrides.at("other"), kMxfp4);
  EXPECT_EQ(config->overrides.at("said"), Affine(3, 128));
  EXPECT_EQ(config->overrides.size(), 6u);
}

TEST_F(QuantConfigTest, OtherModesAreRefused) {
  for (const char* mode : {"mxfp8", "nvfp4", "int4", ""}) {
    const std::string quoted = "\"" + std::string(mode) + "\"";
    for (const std::string& text : {"{\"mode\": " + quoted + ", \"bits\": 4}",
                                    "{\"bits\": 4, \"x\": {\"mode\": " + quoted + "}}"}) {
      SCOPED_TRACE(text);
      const auto config = Read(text);
      ASSERT_FALSE(config.has_value());
      EXPECT_EQ(config.error().code, ErrorCode::unsupported);
      EXPECT_THAT(config.error().message, AllOf(HasSubstr("mode is " + quoted),
                                                HasSubstr("affine and mxfp4 are supported")));
    }
  }
  EXPECT_THAT(Read(R"({"mode": "mxfp4", "bits": 8})").error().message,
              AllOf(HasSubstr("quantization.bits is 8"), HasSubstr("4 bits in groups of 32")));
  EXPECT_THAT(Read(R"({"mode": "mxfp4", "group_size": 64})").error().message,
              AllOf(HasSubstr("group_size 64"), HasSubstr("4 bits in groups of 32")));
  EXPECT_THAT(Read(R"({"mode": 4})").error().message, HasSubstr("mode is 4, not a string"));
}

}  // namespace
}  // namespace perdure::engine
