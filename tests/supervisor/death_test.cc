#include "supervisor/death.h"

#include <gtest/gtest.h>

#include <csignal>

#include "supervisor/obituary.h"

namespace perdure::supervisor {
namespace {

struct Row {
  const char* name;
  DeathFacts facts;
  DeathClass expected;
};

class DeathTest : public testing::TestWithParam<Row> {};

TEST_P(DeathTest, IsClassed) { EXPECT_EQ(ClassifyDeath(GetParam().facts), GetParam().expected); }

DeathFacts Signal(int signal, KillReason ours = KillReason::kNone, bool oom = false,
                  bool asked = false) {
  return {true, signal, ours, asked, oom};
}
DeathFacts Code(int code, bool asked = false) {
  return {false, code, KillReason::kNone, asked, false};
}

INSTANTIATE_TEST_SUITE_P(
    Rows, DeathTest,
    testing::Values(
        Row{"KillFromOutside", Signal(SIGKILL), DeathClass::kExternal},
        Row{"KillFromOutsideWhileDraining", Signal(SIGKILL, KillReason::kNone, false, true),
            DeathClass::kExternal},
        Row{"OomKiller", Signal(SIGKILL, KillReason::kNone, true), DeathClass::kOom},
        Row{"OurKillOfAHang", Signal(SIGKILL, KillReason::kHang), DeathClass::kHang},
        Row{"OurKillWhileMemoryRunsOut", Signal(SIGKILL, KillReason::kHang, true),
            DeathClass::kHang},
        Row{"OurKillForMisuse", Signal(SIGKILL, KillReason::kProtocol), DeathClass::kCrash},
        Row{"OurKillAtTheEnd", Signal(SIGKILL, KillReason::kStop), DeathClass::kStopped},
        Row{"CrashedBeforeOurKill", Signal(SIGSEGV, KillReason::kHang), DeathClass::kCrash},
        Row{"Abort", Signal(SIGABRT), DeathClass::kCrash},
        Row{"Segfault", Signal(SIGSEGV), DeathClass::kCrash},
        Row{"Bus", Signal(SIGBUS), DeathClass::kCrash},
        Row{"IllegalInstruction", Signal(SIGILL), DeathClass::kCrash},
        Row{"CrashWhileOthersRanOutOfMemory", Signal(SIGSEGV, KillReason::kNone, true),
            DeathClass::kCrash},
        Row{"Term", Signal(SIGTERM), DeathClass::kExternal},
        Row{"Interrupt", Signal(SIGINT), DeathClass::kExternal},
        Row{"BadModel", Code(112), DeathClass::kBadModel},
        Row{"Damaged", Code(113), DeathClass::kDamaged},
        Row{"DamagedWhileDraining", Code(113, true), DeathClass::kDamaged},
        Row{"Bug", Code(101), DeathClass::kCrash}, Row{"System", Code(111), DeathClass::kCrash},
        Row{"Zero", Code(0), DeathClass::kExit},
        Row{"ZeroAsAsked", Code(0, true), DeathClass::kStopped},
        Row{"CrashWhileDraining", Code(1, true), DeathClass::kCrash}),
    [](const auto& info) { return info.param.name; });

TEST(Death, OnlyFourClassesCount) {
  EXPECT_TRUE(CountsAgainstModel(DeathClass::kOom));
  EXPECT_TRUE(CountsAgainstModel(DeathClass::kHang));
  EXPECT_TRUE(CountsAgainstModel(DeathClass::kCrash));
  EXPECT_TRUE(CountsAgainstModel(DeathClass::kExit));
  EXPECT_FALSE(CountsAgainstModel(DeathClass::kExternal));
  EXPECT_FALSE(CountsAgainstModel(DeathClass::kDamaged));
  EXPECT_FALSE(CountsAgainstModel(DeathClass::kStopped));
}

TEST(Death, IsDescribed) {
  EXPECT_EQ(DescribeExit(true, SIGSEGV), "killed by SIGSEGV");
  EXPECT_EQ(DescribeExit(true, 63), "killed by signal 63");
  EXPECT_EQ(DescribeExit(false, 3), "exit code 3");
}

Obituary Example() {
  Obituary o;
  o.who = "worker nano";
  o.pid = 12;
  o.death = DeathClass::kCrash;
  o.signaled = true;
  o.code = SIGABRT;
  o.last_words.phase = shm::Phase::kLoading;
  return o;
}

TEST(Summary, IsOneSentence) {
  Obituary o = Example();
  EXPECT_EQ(Summary(o), "worker nano (process 12) crashed (killed by SIGABRT) while loading");
  o.log_lines = {"first", "last"};
  EXPECT_EQ(Summary(o),
            "worker nano (process 12) crashed (killed by SIGABRT) while loading; its last line: "
            "last");
  o.last_words.step = 3;
  o.last_words.step_rids = {1};
  o.last_words.panic_text = "engine.cc:1: check failed\nmore";
  EXPECT_EQ(Summary(o),
            "worker nano (process 12) crashed (killed by SIGABRT) in step 3 with 1 sequence: "
            "engine.cc:1: check failed");
  o = Example();
  o.death = DeathClass::kExternal;
  o.code = SIGKILL;
  EXPECT_EQ(Summary(o),
            "worker nano (process 12) was killed by SIGKILL from outside while loading");
  o.death = DeathClass::kBadModel;
  o.misuse = "config.json: no such file";
  EXPECT_EQ(Summary(o),
            "worker nano (process 12) cannot serve its model: config.json: no such file");
}

TEST(Summary, IsBounded) {
  Obituary o = Example();
  o.misuse = std::string(100'000, 'x');
  EXPECT_LT(Summary(o).size(), 600u);
}

}  // namespace
}  // namespace perdure::supervisor
