#include "engine/model_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Tensors without bytes: a header and a hole of the right size, so that a model may be of any size.
class SparseCheckpoint {
 public:
  void Add(const std::string& name, const std::string& dtype, std::vector<int64_t> shape) {
    const uint64_t element = dtype == "U8" ? 1 : dtype == "U32" || dtype == "F32" ? 4 : 2;
    uint64_t bytes = element;
    std::string sizes;
    for (const int64_t size : shape) {
      bytes *= static_cast<uint64_t>(size);
      sizes += (sizes.empty() ? "" : ",") + std::to_string(size);
    }
    header_ += (header_.empty() ? "\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype +
               "\",\"shape\":[" + sizes + "],\"data_offsets\":[" + std::to_string(data_bytes_) +
               "," + std::to_string(data_bytes_ + bytes) + "]}";
    data_bytes_ += bytes;
  }
  // A matrix as MLX quantizes it.
  void AddQuantized(const std::string& module, int64_t outputs, int64_t inputs, int bits, int group,
                    std::vector<int64_t> parts = {}) {
    const auto shape = [&](int64_t columns) {
      std::vector<int64_t> all = parts;
      all.insert(all.end(), {outputs, columns});
      return all;
    };
    Add(module + ".weight", "U32", shape(inputs * bits / 32));
    Add(module + ".scales", "BF16", shape(inputs / group));
    Add(module + ".biases", "BF16", shape(inputs / group));
  }
  void Write(const fs::path& path) const {
    const std::string json = "{" + header_ + "}";
    const uint64_t length = json.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), sizeof length);
    file << json;
    file.close();
    fs::resize_file(path, sizeof length + length + data_bytes_);
  }
  uint64_t data_bytes() const { return data_bytes_; }

 private:
  std::string header_;
  uint64_t data_bytes_ = 0;
};

constexpr char kQwen3Moe[] = R"({"model_type": "qwen3_moe", "hidden_size": 2048,
  "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
  "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
  "num_experts_per_tok": 8, "norm_topk_prob": true, "vocab_size": 151936,
  "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "tie_word_embeddings": false)";

const WeightFormat* FormatNamed(const WeightsSummary& weights, const std::string& name) {
  const auto it = std::find_if(weights.formats.begin(), weights.formats.end(),
                               [&](const WeightFormat& f) { return f.name == name; });
  return it == weights.formats.end() ? nullptr : &*it;
}

// The engine's own figures, after it has read every weight.
void ExpectAsLoaded(const fs::path& folder) {
  const ModelSummary summary = SummarizeModel(folder);
  EXPECT_THAT(summary.problems, IsEmpty());
  ASSERT_TRUE(summary.config && summary.weights);
  const auto engine = Engine::Load(folder, EngineOptions());
  ASSERT_TRUE(engine) << engine.error().message;
  const ModelInfo& info = (*engine)->info();
  EXPECT_EQ(summary.model_type, info.architecture);
  EXPECT_EQ(summary.weights->parameters, info.parameters);
  EXPECT_EQ(summary.weights->memory_bytes, info.weight_bytes);
  EXPECT_EQ(KvShapeOf(*summary.config).PageBytes(), info.kv.PageBytes());
  EXPECT_EQ(CacheTypes(info.kv).front().bytes_per_token, info.kv.PageBytes() / kPageTokens);
}

class ModelSummaryTest : public testing::Test {
 protected:
  void Expect(const SynthSpec& spec) {
    TempDir dir;
    WriteSynthModel(spec, dir.path());
    ExpectAsLoaded(dir.path());
  }
  TempDir dir_;
};

TEST_F(ModelSummaryTest, AgreesWithTheLoadedModel) {
  ExpectAsLoaded(fs::path(PERDURE_SOURCE_DIR) / "models/nano");
  Expect({.model_type = "qwen3", .dtype = "bf16"});
  Expect({.model_type = "qwen2", .dtype = "f16", .hidden = 40, .feed_forward = 72, .tied = false});
  Expect({.model_type = "qwen2", .dtype = "f32", .vocab = 250});
  Expect({.model_type = "qwen3", .dtype = "bf16", .feed_forward = 128, .bits = 3});
  Expect({.model_type = "qwen3",
          .dtype = "f32",
          .feed_forward = 128,
          .tied = false,
          .bits = 4,
          .group = 32,
          .overrides = {{"lm_head", 8}, {"model.layers.0.mlp.down_proj", 0}},
          .shards = 3});
}

TEST_F(ModelSummaryTest, FormatsTellWhatIsQuantizedHow) {
  SynthSpec spec{.feed_forward = 128, .tied = false, .bits = 4};
  spec.overrides = {{"lm_head", 8}, {"model.layers.0.mlp.down_proj", 0}};
  WriteSynthModel(spec, dir_.path());
  const auto summary = SummarizeModel(dir_.path());
  ASSERT_TRUE(summary.weights);
  const WeightFormat* four = FormatNamed(*summary.weights, "affine 4-bit, group 64");
  const WeightFormat* eight = FormatNamed(*summary.weights, "affine 8-bit, group 64");
  const WeightFormat* plain = FormatNamed(*summary.weights, "bf16");
  ASSERT_TRUE(four && eight && plain);
  EXPECT_EQ(summary.weights->formats.front().name, four->name);
  EXPECT_EQ(four->bits, 4);
  EXPECT_EQ(four->group, 64);
  EXPECT_EQ(eight->tensors, 1);
  EXPECT_EQ(eight->parameters, 256 * 64);
  EXPECT_EQ(eight->disk_bytes, 256u * (64 + 4));  // a scale and a bias, of two bytes each
  EXPECT_EQ(four->parameters + eight->parameters + plain->parameters, summary.weights->parameters);
  EXPECT_EQ(four->disk_bytes + eight->disk_bytes + plain->disk_bytes, summary.weights->disk_bytes);
}

TEST_F(ModelSummaryTest, ATiedHeadsCopyIsNoParameter) {
  SynthSpec spec;
  WriteSynthModel(spec, dir_.path());
  const auto tied = SummarizeModel(dir_.path());
  std::vector<SynthTensor> tensors = SynthTensors(spec);
  tensors.push_back(tensors.front());
  tensors.back().name = "lm_head.weight";
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", "BF16", {4}, "12345678"});
  WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
  const auto copied = SummarizeModel(dir_.path());
  EXPECT_EQ(copied.weights->parameters, tied.weights->parameters);
  EXPECT_EQ(copied.weights->memory_bytes, tied.weights->memory_bytes);
  EXPECT_GT(copied.weights->disk_bytes, tied.weights->disk_bytes);
}

// Qwen3-30B-A3B: 57 GiB of BF16 that nobody reads.
TEST_F(ModelSummaryTest, CountsTheExpertsThatATokenMeets) {
  WriteText(dir_.path() / "config.json", std::string(kQwen3Moe) + "}");
  std::string map;
  uint64_t bytes = 0;
  const auto write = [&](const SparseCheckpoint& shard, const std::vector<std::string>& names) {
    const std::string file = std::to_string(bytes) + ".safetensors";
    shard.Write(dir_.path() / file);
    bytes += shard.data_bytes();
    for (const std::string& name : names)
      map += (map.empty() ? "\"" : ",\"") + name + "\":\"" + file + "\"";
  };
  SparseCheckpoint ends;
  ends.Add("model.embed_tokens.weight", "BF16", {151936, 2048});
  ends.Add("model.norm.weight", "BF16", {2048});
  ends.Add("lm_head.weight", "BF16", {151936, 2048});
  write(ends, {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"});
  for (int i = 0; i < 48; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    SparseCheckpoint shard;
    std::vector<std::string> names;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
      names.push_back(layer + name + ".weight");
      shard.Add(names.back(), "BF16", std::move(shape));
    };
    add("input_layernorm", {2048});
    add("post_attention_layernorm", {2048});
    add("self_attn.q_proj", {4096, 2048});
    add("self_attn.k_proj", {512, 2048});
    add("self_attn.v_proj", {512, 2048});
    add("self_attn.o_proj", {2048, 4096});
    add("self_attn.q_norm", {128});
    add("self_attn.k_norm", {128});
    add("mlp.gate", {128, 2048});
    for (int e = 0; e < 128; ++e) {
      const std::string expert = "mlp.experts." + std::to_string(e) + ".";
      add(expert + "gate_proj", {768, 2048});
      add(expert + "up_proj", {768, 2048});
      add(expert + "down_proj", {2048, 768});
    }
    write(shard, names);
  }
  WriteText(dir_.path() / "model.safetensors.index.json", "{\"weight_map\":{" + map + "}}");
  const auto summary = SummarizeModel(dir_.path());
  ASSERT_TRUE(summary.weights) << testing::PrintToString(summary.problems);
  EXPECT_EQ(summary.weights->parameters, 30'532'122'624);  // as the model's page says
  EXPECT_EQ(summary.weights->active_parameters, 3'353'032'704);
  EXPECT_EQ(summary.weights->files, 49);
  EXPECT_EQ(summary.weights->disk_bytes, bytes);
  EXPECT_EQ(summary.weights->disk_bytes, 2 * static_cast<uint64_t>(30'532'122'624));
}

TEST_F(ModelSummaryTest, CountsStackedQuantizedExperts) {
  WriteText(dir_.path() / "config.json",
            std::string(kQwen3Moe) +
                ", \"quantization\": {\"group_size\": 64, \"bits\": 4, "
                "\"model.layers.0.mlp.gate\": {\"group_size\": 64, \"bits\": 8}}}");
  SparseCheckpoint tensors;
  tensors.Add("model.norm.weight", "BF16", {2048});
  tensors.AddQuantized("model.layers.0.mlp.gate", 128, 2048, 8, 64);
  tensors.AddQuantized("model.layers.0.mlp.switch_mlp.up_proj", 768, 2048, 4, 64, {128});
  tensors.Write(dir_.path() / "model.safetensors");
  const auto summary = SummarizeModel(dir_.path());
  ASSERT_TRUE(summary.weights);
  const int64_t experts = int64_t{128} * 768 * 2048;
  EXPECT_EQ(summary.weights->parameters, 2048 + 128 * 2048 + experts);
  EXPECT_EQ(summary.weights->active_parameters, 2048 + 128 * 2048 + experts / 16);
  // 4 bits and a 32nd of two 16-bit numbers each; the vector is kept in f32.
  EXPECT_EQ(summary.weights->memory_bytes,
            2048u * 4 + 128u * 2048 * 17 / 16 + static_cast<uint64_t>(experts) * 9 / 16);
}

TEST_F(ModelSummaryTest, WhatIsBrokenIsNamedAndTheRestIsTold) {
  EXPECT_THAT(SummarizeModel(dir_.path()).problems,
              ElementsAre(HasSubstr("config.json"), HasSubstr("neither model.safetensors")));

  SynthSpec spec{.shards = 3};
  WriteSynthModel(spec, dir_.path());
  fs::remove(dir_.path() / "model-00001-of-00003.safetensors");
  fs::remove(dir_.path() / "model-00003-of-00003.safetensors");
  auto summary = SummarizeModel(dir_.path());
  EXPECT_TRUE(summary.config);
  EXPECT_FALSE(summary.weights);
  EXPECT_THAT(summary.problems, ElementsAre(HasSubstr("model-00001-of-00003.safetensors, "
                                                      "model-00003-of-00003.safetensors")));

  spec.shards = 1;
  fs::remove(dir_.path() / "model.safetensors.index.json");
  WriteSynthModel(spec, dir_.path());
  fs::resize_file(dir_.path() / "model.safetensors", 5000);
  EXPECT_THAT(SummarizeModel(dir_.path()).problems, ElementsAre(HasSubstr("model.safetensors: ")));
  WriteText(dir_.path() / "config.json", "{\"model_type\": \"no_such_model\"}");
  summary = SummarizeModel(dir_.path());
  EXPECT_EQ(summary.model_type, "no_such_model");
  EXPECT_THAT(summary.problems, testing::Contains(HasSubstr("no_such_model")));
}

TEST(CacheTypes, BytesOfAToken) {
  // Qwen3-0.6B: 28 layers, 8 heads of 128.
  const auto types = CacheTypes({.layers = 28, .kv_heads = 8, .head_dim = 128});
  const auto bytes = [&](const std::string& name, int bits) {
    for (const CacheType& type : types)
      if (type.name == name && type.bits == bits) return type.bytes_per_token;
    return uint64_t{0};
  };
  EXPECT_EQ(bytes("kv", 16), 114'688u);
  EXPECT_EQ(bytes("quantized_kv", 8), 114'688u * 17 / 32);  // 47% less
  EXPECT_EQ(bytes("quantized_kv", 4), 114'688u * 9 / 32);   // 72% less
  for (const char* name : {"rotating_kv", "chunked_kv", "concatenate_kv"})
    EXPECT_EQ(bytes(name, 16), bytes("kv", 16)) << name;
  // Heads that are no multiple of a group end in a shorter one; values are padded to 32.
  EXPECT_EQ(CacheTypes({.layers = 1, .kv_heads = 1, .head_dim = 80})[1].bytes_per_token,
            80u + 96u + 2u * 2u * 4u);
}

}  // namespace
}  // namespace perdure::engine
