#include "hub/model_size.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/limits.h"
#include "tests/base/temp_folder.h"

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

class ModelSizeTest : public testing::Test {
 protected:
  ModelSize SizeWith(const std::string& config_json, int max_context = 0) {
    std::ofstream(folder_.path() / "config.json") << config_json;
    ModelConfig model;
    model.source = folder_.path();
    model.max_context = max_context;
    return SizeOf(model, {}, 8);
  }
  TempFolder folder_;
};

TEST_F(ModelSizeTest, ReadsTheShapes) {
  ModelConfig model;
  model.source = fs::path(PERDURE_SOURCE_DIR) / "models" / "nano";
  const ModelSize size = SizeOf(model, {}, 8);
  EXPECT_GT(size.weight_bytes, 7'000'000u);
  EXPECT_EQ(size.kv_page_bytes, 2u * 4 * 2 * 64 * 2 * 32);
  EXPECT_EQ(size.context, 2048);
  // Some rows of some vectors: megabytes.
  EXPECT_GT(size.work_bytes, 4u << 20);
  EXPECT_LT(size.work_bytes, 24u << 20);
  model.max_context = 512;
  EXPECT_EQ(SizeOf(model, {}, 8).context, 512);
  EXPECT_LT(SizeOf(model, {}, 1).work_bytes, SizeOf(model, {}, 256).work_bytes);
}

TEST_F(ModelSizeTest, ReadsTheTextModelOfOneThatSees) {
  const std::string text =
      R"({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
          "max_position_embeddings": 128})";
  const ModelSize plain = SizeWith(text);
  EXPECT_EQ(plain.kv_page_bytes, 2u * 2 * 4 * 16 * 2 * 32);
  EXPECT_EQ(SizeWith(R"({"text_config": )" + text + "}"), plain);
}

TEST_F(ModelSizeTest, ExpertsTakeMore) {
  const std::string begin =
      R"({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4)";
  EXPECT_GT(
      SizeWith(begin + R"(, "num_experts_per_tok": 8, "moe_intermediate_size": 96})").work_bytes,
      SizeWith(begin + "}").work_bytes);
}

TEST_F(ModelSizeTest, WhatCannotBeReadIsReckonedWithCare) {
  for (const char* text : {"", "[]", "{", R"({"hidden_size": "64"})", R"({"hidden_size": -1})",
                           R"({"hidden_size": 1e99, "num_hidden_layers": 2})",
                           R"({"hidden_size": 64, "num_hidden_layers": 9999999999})"}) {
    const ModelSize size = SizeWith(text, 100);
    EXPECT_EQ(size.work_bytes, limits::kWorkBytesUnknown) << text;
    EXPECT_EQ(size.kv_page_bytes, 0u) << text;
    EXPECT_EQ(size.context, 100) << text;
  }
  ModelConfig nowhere;
  nowhere.source = "org/elsewhere";
  EXPECT_EQ(SizeOf(nowhere, {}, 8), ModelSize{});
}

}  // namespace
}  // namespace perdure::hub
