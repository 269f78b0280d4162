// Prepared weights under a real service: made once, mapped from then on, made again when damaged.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "client.h"
#include "service.h"
#include "tests/engine/synth_model.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;

class PreparedTest : public testing::Test {
 protected:
  void SetUp() override {
    // As large as a model must be for its weights to be prepared, with the built-in tokenizer.
    engine::WriteSynthModel({.hidden = 256, .layers = 1, .feed_forward = 48 << 10, .vocab = 2048},
                            model_.path());
    for (const char* file : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(BuiltinModel() / file, model_.path() / file);
    service_.WriteConfig("[models.m]\nsource = \"" + model_.path().string() + "\"\n");
    service_.StartReady();
  }

  fs::path File() const {
    fs::path found;
    for (const auto& entry : fs::recursive_directory_iterator(service_.folder()))
      if (entry.path().extension() == ".weights") found = entry.path();
    return found;
  }

  // In the middle of the file, where there are only weights.
  static void Damage(const fs::path& file) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(fs::file_size(file) / 2);
    char byte = 0;
    stream.seekg(middle).get(byte);
    stream.seekp(middle).put(static_cast<char>(byte ^ 0x55));
  }

  std::string Ask() { return Chat(service_.url(), body_).content(); }

  void StartAgain() {
    service_.Signal(SIGTERM);
    ASSERT_EQ(service_.AwaitExit(), 0);
    service_.StartReady();
  }

  const Json body_ = LongChatBody(20, {{"model", "m"}});
  engine::TempDir model_;
  Service service_;
};

TEST_F(PreparedTest, TheNextStartMapsTheSameFile) {
  const std::string expected = Ask();
  ASSERT_FALSE(File().empty()) << service_.Log();
  const auto made = fs::last_write_time(File());
  const auto bytes = fs::file_size(File());
  StartAgain();
  EXPECT_EQ(Ask(), expected);
  EXPECT_EQ(fs::file_size(File()), bytes);
  EXPECT_GE(fs::last_write_time(File()), made);  // its use is noted
}

TEST_F(PreparedTest, DamageIsNoDeathOfTheModelsAndHealsItself) {
  const std::string expected = Ask();
  service_.Signal(SIGTERM);
  ASSERT_EQ(service_.AwaitExit(), 0);
  Damage(File());
  service_.StartReady();
  const pid_t before = service_.ModelPid("m");
  Ask();  // the first step starts the check
  ASSERT_TRUE(Eventually([&] {
    const pid_t now = service_.ModelPid("m");
    return now > 0 && now != before;
  })) << service_.Log();
  ASSERT_TRUE(service_.AwaitModel("m", "ready"));
  EXPECT_EQ(Ask(), expected);
  const Json model = service_.Model("m");
  EXPECT_EQ(model["last_death"]["class"], "damaged") << model;
  EXPECT_NE(service_.Log().find("is damaged"), std::string::npos);
  EXPECT_EQ(service_.Log().find("check failed"), std::string::npos);
}

}  // namespace
}  // namespace perdure::process_tests
