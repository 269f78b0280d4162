#include "hub/memory_claims.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

class MemoryClaimsTest : public testing::Test {
 protected:
  MemoryClaimsTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-hub-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~MemoryClaimsTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  // Sparse: sizes are all that counts.
  void AddFile(const fs::path& path, uint64_t bytes) {
    fs::create_directories(path.parent_path());
    std::ofstream{path};
    fs::resize_file(path, bytes);
  }
  ModelConfig Model(const std::string& name, uint64_t bytes, uint64_t kv_bytes_max = 0) {
    AddFile(folder_ / name / "config.json", 2);
    AddFile(folder_ / name / "model.safetensors", bytes);
    ModelConfig model;
    model.name = name;
    model.source = folder_ / name;
    model.kv_bytes_max = kv_bytes_max;
    return model;
  }

  fs::path folder_;
};

TEST_F(MemoryClaimsTest, WeightsAreTheModelsShards) {
  const uint64_t giant = uint64_t{60} << 30;
  AddFile(folder_ / "blobs/abc", giant);
  AddFile(folder_ / "m/model-00002-of-00002.safetensors", 1000);
  fs::create_symlink("../blobs/abc", folder_ / "m/model-00001-of-00002.safetensors");
  fs::create_symlink("../blobs/gone", folder_ / "m/model-lost.safetensors");
  AddFile(folder_ / "m/consolidated.safetensors", 7);  // the same weights in another layout
  AddFile(folder_ / "m/tokenizer.json", 7);
  EXPECT_EQ(WeightBytes(folder_ / "m"), giant + 1000);
  EXPECT_EQ(WeightBytes(folder_ / "none"), 0u);
}

TEST_F(MemoryClaimsTest, AModelThatIsQuantizedOnLoadTakesLess) {
  std::vector<ModelConfig> models{Model("a", 3200), Model("b", 3200)};
  models[0].quantize_bits = 8;
  models[1].quantize_bits = 4;
  EXPECT_EQ(ClaimsBeside(models[0], models, {}).bytes, 1700u + 900u);
}

TEST_F(MemoryClaimsTest, EveryModelSeesTheOthers) {
  const std::vector<ModelConfig> models{Model("a", 1000), Model("b", 200, 50), Model("c", 30)};
  const ModelPlaces places;
  EXPECT_EQ(ClaimsBeside(models[0], models, places).bytes, 1280u);
  EXPECT_EQ(ClaimsBeside(models[0], models, places).sharers, 2);
  EXPECT_EQ(ClaimsBeside(models[1], models, places).bytes, 1230u);
  EXPECT_EQ(ClaimsBeside(models[1], models, places).sharers, 3);
}

TEST_F(MemoryClaimsTest, AModelThatIsNotThereClaimsNothing) {
  std::vector<ModelConfig> models{Model("a", 1000), Model("b", 200)};
  models[1].source = "org/elsewhere";
  EXPECT_EQ(ClaimsBeside(models[0], models, {}).bytes, 1000u);
  EXPECT_EQ(ClaimsBeside(models[0], models, {}).sharers, 2);
}

}  // namespace
}  // namespace perdure::hub
