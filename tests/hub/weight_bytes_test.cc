#include "hub/weight_bytes.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

class WeightBytesTest : public testing::Test {
 protected:
  WeightBytesTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-hub-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~WeightBytesTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  // Sparse: sizes are all that counts.
  void AddFile(const fs::path& path, uint64_t bytes) {
    fs::create_directories(path.parent_path());
    std::ofstream{path};
    fs::resize_file(path, bytes);
  }
  ModelConfig Model(const std::string& name, uint64_t bytes) {
    AddFile(folder_ / name / "config.json", 2);
    AddFile(folder_ / name / "model.safetensors", bytes);
    ModelConfig model;
    model.name = name;
    model.source = folder_ / name;
    return model;
  }

  fs::path folder_;
};

TEST_F(WeightBytesTest, WeightsAreTheModelsShards) {
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

TEST_F(WeightBytesTest, AModelThatIsQuantizedOnLoadTakesLess) {
  ModelConfig model = Model("a", 3200);
  EXPECT_EQ(LoadedBytes(model, {}), 3200u);
  model.quantize_bits = 8;
  EXPECT_EQ(LoadedBytes(model, {}), 1700u);
  model.quantize_bits = 4;
  EXPECT_EQ(LoadedBytes(model, {}), 900u);
}

TEST_F(WeightBytesTest, AModelThatIsNotThereTakesNothing) {
  ModelConfig model = Model("a", 1000);
  model.source = "org/elsewhere";
  EXPECT_EQ(LoadedBytes(model, {}), 0u);
}

}  // namespace
}  // namespace perdure::hub
