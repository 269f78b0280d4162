#include "cli/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "run_perdure.h"

namespace perdure::cli {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

PlanModel Model(const char* name, uint64_t process_mib, int context = 8192) {
  return {name, process_mib * kMiB, 1024, 64 * kMiB, context, ""};
}

TEST(Plan, TellsWhatFitsAloneAndTogether) {
  const Json plan = Plan({Model("a", 600), Model("b", 200, 2048)}, 1000 * kMiB, 4096);
  EXPECT_EQ(plan["models"][0]["conversation_bytes"], 4 * kMiB);
  EXPECT_EQ(plan["models"][0]["conversations"], 100);
  EXPECT_EQ(plan["models"][0]["missing_bytes"], 0);
  EXPECT_EQ(plan["models"][1]["conversation_bytes"], 2 * kMiB) << "it serves no longer ones";
  EXPECT_EQ(plan["together"]["bytes"], 928 * kMiB);
  EXPECT_EQ(plan["together"]["fits"], true);
  EXPECT_EQ(plan["together"]["left_bytes"], 200 * kMiB);
  EXPECT_EQ(plan["together"]["conversations"], 33);
  EXPECT_THAT(FormatPlan(plan), HasSubstr("All fit together, with 200.0 MiB for KV: 33"));
}

TEST(Plan, TellsWhatIsMissing) {
  Json plan = Plan({Model("a", 600), Model("b", 500)}, 1000 * kMiB, 4096);
  EXPECT_EQ(plan["together"]["fits"], false);
  EXPECT_EQ(plan["together"]["missing_bytes"], 228 * kMiB);
  EXPECT_THAT(FormatPlan(plan), HasSubstr("228.0 MiB are missing"));
  plan = Plan({Model("a", 1000)}, 1000 * kMiB, 4096);
  EXPECT_EQ(plan["models"][0]["missing_bytes"], 64 * kMiB);
  EXPECT_THAT(FormatPlan(plan), HasSubstr("no: 64.0 MiB are missing"));
  EXPECT_THAT(FormatPlan(plan), Not(HasSubstr("together")));
}

TEST(Plan, TheBuiltInModelFits) {
  const std::filesystem::path home =
      std::filesystem::temp_directory_path() / ("perdure-plan-" + std::to_string(getpid()));
  std::filesystem::create_directories(home);
  const Output output = RunPerdure(home, "plan nano --context 512 --json");
  EXPECT_EQ(output.code, 0) << output.text;
  const Json plan = Json::parse(output.text, nullptr, false);
  ASSERT_TRUE(plan.is_object()) << output.text;
  EXPECT_EQ(plan["models"][0]["name"], "nano");
  EXPECT_GT(plan["models"][0]["conversations"], 0) << plan;
  const Output missing = RunPerdure(home, "plan org/nothing");
  EXPECT_NE(missing.code, 0);
  const Output small = RunPerdure(home, "plan nano", "PERDURE_MEMORY_MAX=1MiB");
  EXPECT_EQ(small.code, 112) << small.text;
  EXPECT_THAT(small.text, HasSubstr("are missing"));
  std::filesystem::remove_all(home);
}

}  // namespace
}  // namespace perdure::cli
