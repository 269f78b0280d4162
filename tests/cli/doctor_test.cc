#include "cli/doctor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/unique_fd.h"
#include "engine/isa.h"
#include "protocol/heritage.h"
#include "shm/arena_segment.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"
#include "tests/shm/scratch_arena.h"

namespace perdure::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

class DoctorTest : public testing::Test {
 protected:
  Output Run(const std::string& arguments, const std::string& environment = "") {
    return RunPerdure(home_.path(), "doctor " + arguments, environment);
  }
  // The only check of that name, or null.
  static Json CheckOf(const Json& report, const std::string& name) {
    for (const Json& check : report["checks"])
      if (check["name"] == name) return check;
    return nullptr;
  }
  engine::TempDir home_;
};

TEST_F(DoctorTest, AHealthyMachineHasNothingToSay) {
  const Output output = Run("--json --port 0");
  ASSERT_EQ(output.code, protocol::kExitOk) << output.text;
  const Json report = Json::parse(output.text);
  for (const Json& check : report["checks"]) EXPECT_NE(check["state"], "problem") << check.dump();
  EXPECT_EQ(report["cpu"]["chosen"], engine::IsaName(engine::BestIsa()));
  EXPECT_EQ(report["cpu"]["instruction_sets"].back(), engine::IsaName(engine::BestIsa()));
  EXPECT_EQ(report["cpu"]["instruction_sets"].front(), "scalar");
  EXPECT_GE(report["cpu"]["threads"], 1);
  EXPECT_THAT(CheckOf(report, "model")["found"].get<std::string>(), HasSubstr("nano: qwen3"));
  EXPECT_TRUE(std::filesystem::is_empty(home_.path())) << "it only looks";
  for (const char* folder : {"state folder", "runtime folder"})
    EXPECT_THAT(CheckOf(report, folder)["found"].get<std::string>(),
                HasSubstr(home_.path().string()))
        << "not that of a service that this machine has";
}

TEST_F(DoctorTest, ArenasOfKilledServices) {
  const shm::ScratchArena scratch;
  auto segment = shm::ArenaSegment::Open(scratch.instance(), "m", 3 << 20);
  ASSERT_TRUE(segment.has_value());
  const std::string name = segment->name();
  if (name.empty()) GTEST_SKIP() << segment->unnamed_reason();
  ASSERT_EQ(fallocate(segment->fd(), 0, 0, 3 << 20), 0);
  EXPECT_THAT(Run("--port 0").text, Not(HasSubstr(name))) << "a service has it";
  segment = Err(ErrorCode::io_error, "killed");
  const Output output = Run("--port 0");
  EXPECT_EQ(output.code, protocol::kExitOk) << output.text;
  EXPECT_THAT(output.text, HasSubstr("/dev/shm/" + name + " holds 3.0 MiB of a service"));
  EXPECT_THAT(output.text, HasSubstr("rm '/dev/shm/" + name + "'"));
}

TEST_F(DoctorTest, InstructionSets) {
  Output output = Run("--json --port 0", "PERDURE_ISA=scalar");
  Json report = Json::parse(output.text);
  EXPECT_EQ(report["cpu"]["chosen"], "scalar");
  if (engine::BestIsa() != engine::Isa::kScalar) {
    EXPECT_EQ(CheckOf(report, "instruction set")["state"], "warning");
  }
  output = Run("--json --port 0", "PERDURE_ISA=abacus");
  EXPECT_EQ(output.code, protocol::kExitSystem);
  report = Json::parse(output.text);
  EXPECT_EQ(CheckOf(report, "instruction set")["state"], "problem");
  EXPECT_THAT(CheckOf(report, "instruction set")["found"].get<std::string>(), HasSubstr("abacus"));
}

TEST_F(DoctorTest, ModelsAreComparedWithTheMemoryForThem) {
  const auto with = [&](const std::string& memory_max, const std::string& more = "") {
    std::ofstream(home_.path() / "perdure.toml")
        << "[lifecycle]\nmemory_max = \"" << memory_max << "\"\n[models.a]\nsource = \"nano\"\n"
        << more << "[models.b]\nsource = \"nano\"\n"
        << more;
    const Output output =
        Run("--json --port 0 --config '" + (home_.path() / "perdure.toml").string() + "'");
    const Json report = Json::parse(output.text);
    EXPECT_EQ(output.code != 0, CheckOf(report, "memory for models")["state"] == "problem");
    return report;
  };
  const auto state = [](const Json& report) {
    return CheckOf(report, "memory for models")["state"];
  };
  EXPECT_EQ(state(with("200MiB")), "ok");
  EXPECT_EQ(state(with("90MiB")), "warning") << "they take turns";
  EXPECT_EQ(state(with("90MiB", "pinned = true\n")), "problem");
  const Json small = with("40MiB");
  EXPECT_EQ(state(small), "problem");
  EXPECT_THAT(CheckOf(small, "memory for models")["found"].get<std::string>(),
              HasSubstr("a takes "));
  EXPECT_TRUE(CheckOf(small, "memory_max").is_null());
  EXPECT_EQ(CheckOf(with("900TiB"), "memory_max")["state"], "warning");
  EXPECT_FALSE(CheckOf(small, "/dev/shm").is_null());
}

TEST_F(DoctorTest, APortThatIsTaken) {
  const UniqueFd taken(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(taken.get(), any, size), 0);
  ASSERT_EQ(listen(taken.get(), 1), 0);
  ASSERT_EQ(getsockname(taken.get(), any, &size), 0);
  const Output output = Run("--port " + std::to_string(ntohs(address.sin_port)));
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("PROBLEM  port"));
  EXPECT_THAT(output.text, HasSubstr("--port"));
}

TEST_F(DoctorTest, FoldersAndModelsAndConfiguration) {
  engine::WriteText(home_.path() / "file", "no folder");
  Output output = Run("--port 0 --state-dir '" + (home_.path() / "file/state").string() + "'");
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("file is no folder"));
  std::filesystem::create_directory(home_.path() / "open");
  std::filesystem::permissions(home_.path() / "open", std::filesystem::perms::all);
  output = Run("--port 0 --state-dir '" + (home_.path() / "open").string() + "'");
  EXPECT_EQ(output.code, protocol::kExitSystem) << "serve would refuse it";
  EXPECT_THAT(output.text, HasSubstr("chmod 700"));
  output = Run("--port 0 --host 'no such host' --insecure");
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("no such host"));
  output = Run("--port 0 --model no/such");
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("no/such"));
  engine::WriteText(home_.path() / "perdure.toml", "[server]\nprot = 1\n");
  output = Run("--config '" + (home_.path() / "perdure.toml").string() + "'");
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("prot"));
  EXPECT_THAT(output.text, HasSubstr("instruction set")) << "the rest is still told";
}

}  // namespace
}  // namespace perdure::cli
