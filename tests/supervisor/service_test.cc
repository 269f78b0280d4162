// The supervisor with real (tiny) processes: death, restart, drain, reload.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/limits.h"
#include "service_fixture.h"

namespace perdure::supervisor {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

bool Exists(int pid) { return kill(pid, 0) == 0; }

class ServiceTest : public testing::Test {
 protected:
  int WorkerPid(const std::string& name) {
    const Json model = service_.Model(name);
    return model.contains("pid") && model["pid"].is_number() ? model["pid"].get<int>() : 0;
  }
  int FrontendPid() {
    const Json ps = service_.Ps();
    return ps.contains("frontend") && ps["frontend"]["pid"].is_number()
               ? ps["frontend"]["pid"].get<int>()
               : 0;
  }
  std::string FrontendState() {
    const Json ps = service_.Ps();
    return ps.contains("frontend") ? ps["frontend"]["state"].get<std::string>() : "";
  }
  [[nodiscard]] bool Ready(const std::string& name) {
    return Eventually([&] { return service_.ModelIs(name, "ready"); });
  }
  // Dead and started anew.
  [[nodiscard]] bool ReadyAgain(const std::string& name, int old_pid) {
    return Eventually([&] {
      const Json model = service_.Model(name);
      return model.value("state", "") == "ready" && model["pid"].is_number() &&
             model["pid"] != old_pid;
    });
  }
  [[nodiscard]] bool FrontendLogHas(const std::string& part, int times = 1) {
    return Eventually([&] { return Count(service_.FrontendLog(), part) >= times; });
  }

  TestService service_;
};

TEST_F(ServiceTest, StartsServesAndStops) {
  service_.SetModel("a", "ready");
  service_.SetModel("b", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Ready("b"));
  ASSERT_TRUE(FrontendLogHas("roster a=ready,b=ready draining=0"));
  EXPECT_TRUE(FrontendLogHas("hello a 1"));
  EXPECT_TRUE(FrontendLogHas("hello b 1"));

  const Json ps = service_.Ps();
  EXPECT_EQ(ps["supervisor"]["pid"], service_.pid());
  EXPECT_THAT(ps["frontend"]["url"].get<std::string>(), MatchesRegex("http://127.0.0.1:[0-9]+"));
  const Json& a = ps["models"][0];
  EXPECT_EQ(a["name"], "a");
  EXPECT_EQ(a["deaths"], 0);
  EXPECT_EQ(a["default"], true);
  EXPECT_EQ(a["epoch"], 1);
  EXPECT_EQ(a["reason"], "");
  EXPECT_TRUE(a["last_death"].is_null());
  EXPECT_EQ(a["architecture"], "fake");
  EXPECT_EQ(a["max_context"], 2048);
  EXPECT_EQ(a["arena"]["pages"], 10);
  EXPECT_EQ(a["arena"]["used"], 2);
  EXPECT_GT(a["memory"]["rss_bytes"], 0);

  const int worker = WorkerPid("a");
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.WaitForExit(), 0);
  EXPECT_FALSE(Exists(worker));
  EXPECT_THAT(service_.FrontendLog(), HasSubstr("drain 30"));
  EXPECT_THAT(service_.Log(), HasSubstr("ready: http://127.0.0.1:"));
  EXPECT_THAT(service_.Log(), HasSubstr(", models: a, b"));
  // The frontend goes first, so that running answers have their workers: it sees none of them end.
  EXPECT_THAT(service_.FrontendLog(), Not(HasSubstr("gone")));
}

TEST_F(ServiceTest, AKilledWorkerIsReplacedAndDoesNotCountAgainstTheModel) {
  service_.SetModel("a", "ready");
  service_.Start();
  // More often than a model may crash.
  int last = 0;
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(ReadyAgain("a", last)) << i;
    last = WorkerPid("a");
    ASSERT_GT(last, 0);
    kill(last, SIGKILL);
  }
  ASSERT_TRUE(ReadyAgain("a", last));
  const Json a = service_.Model("a");
  EXPECT_EQ(a["deaths"], 7);
  EXPECT_EQ(a["epoch"], 8);
  EXPECT_EQ(a["last_death"]["class"], "external");
  EXPECT_TRUE(FrontendLogHas("gone a 1"));
  EXPECT_TRUE(FrontendLogHas("hello a 8"));
}

TEST_F(ServiceTest, AWorkerThatTheFrontendCannotReadIsReplaced) {
  service_.SetModel("a", "ready");
  service_.SetFrontendBehaviour("reject a 1");
  service_.Start();
  EXPECT_TRUE(FrontendLogHas("hello a 2"));
  ASSERT_TRUE(Ready("a"));
  const Json a = service_.Model("a");
  EXPECT_EQ(a["deaths"], 1);
  EXPECT_NE(a["last_death"].dump().find("the frontend could not read it: nonsense"),
            std::string::npos)
      << a;
}

TEST_F(ServiceTest, APanicIsInTheObituary) {
  service_.SetModel("a", "once panic");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  const Json a = service_.Model("a");
  EXPECT_EQ(a["deaths"], 1);
  const Json death = a["last_death"];
  EXPECT_EQ(death["class"], "crash");
  EXPECT_EQ(death["status"], "killed by SIGABRT");
  EXPECT_EQ(death["step"], 7);
  EXPECT_EQ(death["requests"], Json({"0000000000000001", "0000000000000002"}));
  EXPECT_THAT(death["panic"].get<std::string>(), HasSubstr("as the test told it to"));
  EXPECT_THAT(death["log"].back().get<std::string>(), HasSubstr("as the test told it to"));
  EXPECT_THAT(death["summary"].get<std::string>(), HasSubstr("in step 7 with 2 sequences"));
  EXPECT_THAT(service_.Log(), HasSubstr("requests in the step: 0000000000000001"));
}

TEST_F(ServiceTest, AModelThatOnlyCrashesFailsAndIsTriedAgainAfterTheCooldown) {
  service_.SetModel("a", "panic");
  service_.SetModel("b", "ready");
  service_.Start([](Timings& t) {
    t.restart.first_delay_ms = 1;
    t.restart.cooldown_ms = 200;
  });
  // Five deaths, then one for each cool-down.
  EXPECT_TRUE(Eventually([&] { return service_.Model("a").value("deaths", 0) >= 7; }));
  EXPECT_TRUE(Eventually([&] { return service_.ModelIs("a", "failed"); }));
  EXPECT_TRUE(service_.ModelIs("b", "ready"));
  EXPECT_EQ(service_.Model("b")["deaths"], 0);
  EXPECT_THAT(service_.Log(), HasSubstr("; not a: worker a (process"));
  EXPECT_TRUE(FrontendLogHas("roster a=failed,b=ready"));
}

TEST_F(ServiceTest, AModelThatGetsSomethingDoneBetweenItsDeathsDoesNotFail) {
  service_.SetModel("a", "step, then panic");
  service_.Start([](Timings& t) { t.restart.first_delay_ms = 1; });
  EXPECT_TRUE(Eventually([&] { return service_.Model("a").value("deaths", 0) >= 12; }));
  EXPECT_THAT(service_.FrontendLog(), Not(HasSubstr("a=failed")));
}

TEST_F(ServiceTest, ABadModelIsNotRetriedUntilAReload) {
  service_.SetModel("a", "bad model");
  service_.Start();
  ASSERT_TRUE(Eventually([&] { return service_.ModelIs("a", "failed"); }));
  const Json a = service_.Model("a");
  EXPECT_EQ(a["deaths"], 1);
  EXPECT_EQ(a["last_death"]["class"], "bad_model");
  EXPECT_THAT(a["reason"].get<std::string>(), HasSubstr("config.json asks for 1e9 layers"));
  service_.SetModel("a", "ready");
  EXPECT_EQ(service_.Ask("reload")["ok"], true);
  EXPECT_TRUE(Ready("a"));
}

TEST_F(ServiceTest, AMissingModelHarmsNobodyElse) {
  service_.SetModel("a", "ready");
  service_.WriteConfig("[models.a]\npath = \"models/a\"\n[models.b]\nsource = \"some/model\"\n");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Eventually([&] { return service_.ModelIs("b", "failed"); }));
  EXPECT_THAT(service_.Model("b")["reason"].get<std::string>(),
              HasSubstr("some/model@main is not in the Hugging Face cache"));
}

TEST_F(ServiceTest, AStoppedProcessIsAHang) {
  service_.SetModel("a", "ready");
  service_.Start([](Timings& t) { t.health.idle_ms = 500; });
  ASSERT_TRUE(Ready("a"));
  const int pid = WorkerPid("a");
  kill(pid, SIGSTOP);
  ASSERT_TRUE(ReadyAgain("a", pid));
  const Json death = service_.Model("a")["last_death"];
  EXPECT_EQ(death["class"], "hang");
  EXPECT_THAT(death["summary"].get<std::string>(), HasSubstr("nothing happened for"));
}

TEST_F(ServiceTest, AWorkerThatStopsBeatingIsAHang) {
  service_.SetModel("a", "once hang");
  service_.Start([](Timings& t) { t.health.idle_ms = 500; });
  EXPECT_TRUE(Eventually(
      [&] { return service_.ModelIs("a", "ready") && service_.Model("a")["deaths"] == 1; }));
  EXPECT_EQ(service_.Model("a")["last_death"]["class"], "hang");
}

class MisuseTest : public ServiceTest, public testing::WithParamInterface<const char*> {};

TEST_P(MisuseTest, EndsTheChildNotTheSupervisor) {
  service_.SetModel("a", std::string("once ") + GetParam());
  service_.SetModel("b", "ready");
  service_.Start([](Timings& t) { t.channel_end_grace_ms = 100; });
  EXPECT_TRUE(Eventually(
      [&] { return service_.ModelIs("a", "ready") && service_.Model("a")["deaths"] == 1; }));
  EXPECT_EQ(service_.Model("a")["last_death"]["class"], "crash");
  EXPECT_EQ(service_.Model("b")["deaths"], 0);
}

INSTANTIATE_TEST_SUITE_P(Misuses, MisuseTest,
                         testing::Values("garbage", "wrong message", "hang up", "exit 3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, ' ');
                           return name;
                         });

TEST_F(ServiceTest, AFrontendThatDiesGetsChannelsToTheSameWorkers) {
  service_.SetModel("a", "ready");
  service_.SetModel("b", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Ready("b"));
  ASSERT_TRUE(Eventually([&] { return FrontendState() == "ready"; }));
  // Or it may die before it has read what is counted below.
  ASSERT_TRUE(FrontendLogHas("hello a 1"));
  ASSERT_TRUE(FrontendLogHas("hello b 1"));
  const std::string url = service_.Ps()["frontend"]["url"];
  const int worker = WorkerPid("a");
  const int frontend = FrontendPid();
  kill(frontend, SIGKILL);
  ASSERT_TRUE(Eventually([&] { return FrontendState() == "ready" && FrontendPid() != frontend; }));
  EXPECT_TRUE(FrontendLogHas("hello a 1", 2));
  EXPECT_TRUE(FrontendLogHas("hello b 1", 2));
  EXPECT_EQ(WorkerPid("a"), worker);
  EXPECT_EQ(service_.Ps()["frontend"]["url"], url);
  EXPECT_EQ(service_.Ps()["frontend"]["deaths"], 1);
}

#ifdef __SANITIZE_ADDRESS__
// Freed memory is kept in a quarantine of up to 256 MiB.
constexpr uint64_t kGrowthBytesMax = uint64_t{300} << 20;
#else
constexpr uint64_t kGrowthBytesMax = uint64_t{8} << 20;
#endif

TEST_F(ServiceTest, AFrontendThatReadsNothingDoesNotGrowTheSupervisor) {
  service_.SetModel("a", "step, then panic");
  service_.SetFrontendBehaviour("deaf");
  service_.Start([](Timings& t) {
    t.restart.first_delay_ms = 1;
    t.health_sample_ms = 1;
    t.drain_ms = 100;
    t.drain_grace_ms = 100;
  });
  // Each death makes rosters and an offer that nobody takes.
  ASSERT_TRUE(Eventually([&] { return service_.Model("a").value("deaths", 0) >= 40; }));
  const uint64_t before = service_.Ps()["supervisor"]["memory"]["rss_bytes"];
  ASSERT_TRUE(Eventually([&] { return service_.Model("a").value("deaths", 0) >= 120; }));
  const uint64_t after = service_.Ps()["supervisor"]["memory"]["rss_bytes"];
  EXPECT_LT(after, before + kGrowthBytesMax);
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.WaitForExit(), 0);
}

TEST_F(ServiceTest, AFrontendThatAlwaysDiesIsTriedForEver) {
  service_.SetModel("a", "ready");
  service_.SetFrontendBehaviour("exit 3");
  service_.Start([](Timings& t) { t.frontend_restart.first_delay_ms = 1; });
  ASSERT_TRUE(Eventually([&] { return service_.Ps()["frontend"]["deaths"] >= 8; }));
  service_.SetFrontendBehaviour("ready");
  ASSERT_TRUE(Eventually([&] { return FrontendState() == "ready"; }));
  EXPECT_TRUE(FrontendLogHas("hello a 1"));
}

TEST_F(ServiceTest, ANoisyChildStopsNobody) {
  service_.SetModel("a", "noisy");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  const int pid = WorkerPid("a");
  for (int i = 0; i < 20; ++i) ASSERT_EQ(service_.Model("a")["state"], "ready");
  kill(pid, SIGKILL);
  ASSERT_TRUE(ReadyAgain("a", pid));
  const Json model = service_.Model("a");
  for (const Json& line : model["last_death"]["log"])
    EXPECT_LE(line.get<std::string>().size(), 400u);
}

// Nobody reads the service's standard error: lines are lost, and nothing else.
TEST_F(ServiceTest, AnUnreadLogStopsNobody) {
  service_.SetModel("a", "step, then panic");
  service_.SetModel("b", "ready");
  service_.CloseLog();
  service_.Start([](Timings& t) { t.restart.first_delay_ms = 1; });
  ASSERT_TRUE(Ready("b"));
  // Each death makes more than half a kibibyte of log; a pipe holds 64.
  EXPECT_TRUE(Eventually([&] { return service_.Model("a").value("deaths", 0) >= 200; }));
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.WaitForExit(), 0);
}

TEST_F(ServiceTest, ADeafOrStubbornWorkerIsKilledAtTheEnd) {
  service_.SetModel("a", "deaf");
  service_.SetModel("b", "stubborn");
  service_.Start([](Timings& t) { t.stop_grace_ms = 200; });
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Ready("b"));
  const int a = WorkerPid("a"), b = WorkerPid("b");
  EXPECT_EQ(service_.Ask("stop")["ok"], true);
  EXPECT_EQ(service_.WaitForExit(), 0);
  EXPECT_FALSE(Exists(a));
  EXPECT_FALSE(Exists(b));
}

TEST_F(ServiceTest, ASecondSignalEndsAtOnce) {
  service_.SetModel("a", "stubborn");
  service_.SetFrontendBehaviour("deaf");
  service_.Start([](Timings& t) { t.drain_ms = 3'600'000; });
  ASSERT_TRUE(Ready("a"));
  const int worker = WorkerPid("a");
  service_.Signal(SIGINT);
  ASSERT_TRUE(Eventually([&] { return service_.Ps()["supervisor"]["state"] == "stopping"; }));
  service_.Signal(SIGINT);
  EXPECT_EQ(service_.WaitForExit(), 0);
  EXPECT_FALSE(Exists(worker));
}

TEST_F(ServiceTest, ChildrenDieWithTheSupervisor) {
  service_.SetModel("a", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Eventually([&] { return FrontendPid() > 0; }));
  const int worker = WorkerPid("a"), frontend = FrontendPid();
  service_.Signal(SIGKILL);
  EXPECT_EQ(service_.WaitForExit(), std::nullopt);
  EXPECT_TRUE(Eventually([&] { return !Exists(worker) && !Exists(frontend); }));
  // What it left behind does not hinder the next one.
  service_.Start();
  EXPECT_TRUE(Ready("a"));
}

TEST_F(ServiceTest, ChildrenIgnoreTheTerminalsSignals) {
  service_.SetModel("a", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  const int worker = WorkerPid("a");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) kill(worker, signal);
  // The supervisor answers after all of them were delivered.
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
  EXPECT_EQ(WorkerPid("a"), worker);
}

TEST_F(ServiceTest, KvBeginsWithAPartOfTheMemory) {
  service_.SetModel("a", "ready");
  service_.SetModel("b", "ready");
  service_.WriteConfig(
      "[models.a]\npath = \"models/a\"\n"
      "[models.b]\npath = \"models/b\"\nkv_bytes_max = \"1MiB\"\n");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Ready("b"));
  EXPECT_EQ(service_.Model("a")["parameters"], limits::kKvGrantBytes);
  EXPECT_EQ(service_.Model("b")["parameters"], 1 << 20);
}

TEST_F(ServiceTest, AReloadTouchesOnlyWhatChanged) {
  service_.SetModel("a", "ready");
  service_.SetModel("b", "ready");
  service_.SetModel("c", "ready");
  service_.WriteConfig("[models.a]\npath = \"models/a\"\n[models.b]\npath = \"models/b\"\n");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  ASSERT_TRUE(Ready("b"));
  const int a = WorkerPid("a"), b = WorkerPid("b");
  service_.WriteConfig(
      "[server]\napi_keys = [\"secret\"]\n[models.c]\npath = \"models/c\"\n"
      "[models.a]\npath = \"models/a\"\n");
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Ready("c"));
  ASSERT_TRUE(Eventually([&] { return service_.Model("b").empty(); }));
  EXPECT_FALSE(Exists(b));
  EXPECT_EQ(WorkerPid("a"), a);
  EXPECT_TRUE(FrontendLogHas("settings 1"));
  EXPECT_TRUE(FrontendLogHas("roster c=ready,a=ready draining=0"));

  // Other settings: a new process, and no death.
  service_.WriteConfig(
      "[models.a]\npath = \"models/a\"\nmax_context = 99\n[models.c]\npath = \"models/c\"\n");
  const int c = WorkerPid("c");
  EXPECT_EQ(service_.Ask("reload")["ok"], true);
  ASSERT_TRUE(ReadyAgain("a", a));
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
  EXPECT_EQ(service_.Model("a")["epoch"], 2);
  EXPECT_EQ(WorkerPid("c"), c);
}

TEST_F(ServiceTest, ABrokenConfigLeavesAllAsItWas) {
  service_.SetModel("a", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  const int a = WorkerPid("a");
  service_.WriteConfig("[server]\nprot = 1\n");
  const Json answer = service_.Ask("reload");
  EXPECT_THAT(answer["error"].get<std::string>(), HasSubstr("did you mean \"port\"?"));
  EXPECT_EQ(WorkerPid("a"), a);
  EXPECT_THAT(service_.Log(), HasSubstr("perdure.toml:2: unknown key \"prot\""));
  service_.WriteConfig("[server]\nhost = \"127.0.0.2\"\n");
  EXPECT_THAT(service_.Ask("reload")["warnings"][0].get<std::string>(), HasSubstr("host and port"));
}

TEST_F(ServiceTest, ASecondServiceOnTheSameFolderIsRefused) {
  service_.SetModel("a", "ready");
  service_.Start();
  const auto [code, log] = service_.RunSecond([](Config&) {});
  EXPECT_EQ(code, 111);
  EXPECT_THAT(log, HasSubstr("(process " + std::to_string(service_.pid()) + ")"));
  EXPECT_TRUE(Ready("a"));
}

TEST_F(ServiceTest, ATakenPortIsSaidClearly) {
  service_.SetModel("a", "ready");
  service_.Start();
  const std::string url = service_.Ps()["frontend"]["url"];
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  const auto [code, log] = service_.RunSecond([&](Config& config) {
    config.port = port;
    config.runtime_dir = service_.folder() / "run2";
    config.state_dir = service_.folder() / "state2";
  });
  EXPECT_EQ(code, 111);
  EXPECT_THAT(log, HasSubstr("cannot listen on 127.0.0.1:" + std::to_string(port)));
  EXPECT_THAT(log, HasSubstr("--port"));
}

TEST_F(ServiceTest, AFolderThatOthersMayWriteIsRefused) {
  service_.SetModel("a", "ready");
  std::filesystem::create_directory(service_.runtime_dir());
  std::filesystem::permissions(service_.runtime_dir(), std::filesystem::perms::all);
  const auto [code, log] = service_.RunSecond([](Config&) {});
  EXPECT_EQ(code, 111);
  EXPECT_THAT(log, HasSubstr("others may write"));
}

TEST_F(ServiceTest, WhoeverHasTheControlSocketGetsTheAdminToken) {
  service_.SetModel("a", "ready");
  service_.Start();
  ASSERT_TRUE(Ready("a"));
  const Json admin = service_.Ask("admin");
  const std::string token = admin["admin_token"].get<std::string>();
  EXPECT_THAT(token, MatchesRegex("admin_[0-9a-z]+"));
  EXPECT_GE(token.size(), 20u);
  EXPECT_EQ(admin["url"], service_.Ps()["frontend"]["url"]);
  EXPECT_EQ(service_.Ask("admin"), admin);
  // It is told to nobody else.
  EXPECT_THAT(service_.Ps().dump(), Not(HasSubstr(token)));
  EXPECT_THAT(service_.Log(), Not(HasSubstr(token)));
  // Nor does it outlive the service.
  service_.Signal(SIGTERM);
  ASSERT_EQ(service_.WaitForExit(), 0);
  service_.Start();
  EXPECT_NE(service_.Ask("admin")["admin_token"], token);
}

TEST_F(ServiceTest, TheControlSocketTakesGarbage) {
  service_.SetModel("a", "ready");
  service_.Start();
  const char* lines[] = {"",       "{",       "null",          "[]",
                         "\"ps\"", "{\"op\"", "{\"op\":1}",    "{\"op\":\"format c:\"}",
                         "ps",     "\xff",    "{\"op\":null}", "{\"op\":\"ps\",\"op\":\"ps\"}"};
  for (const char* line : lines)
    EXPECT_THAT(service_.AskLine(line), HasSubstr("\"error\"")) << line;
  EXPECT_THAT(service_.AskLine(std::string(100'000, '[')), HasSubstr("\"error\""));
  EXPECT_THAT(service_.AskLine(std::string(5000, 'x')), HasSubstr("\"error\""));
  // Many that say nothing.
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 100; ++i) {
    if (auto fd = service_.Connect()) silent.push_back(std::move(*fd));
  }
  EXPECT_TRUE(Ready("a"));
  // One that asks for much and reads nothing.
  const auto greedy = service_.Connect();
  ASSERT_TRUE(greedy.has_value());
  std::string many;
  for (int i = 0; i < 10'000; ++i) many += "{\"op\":\"ps\"}\n";
  send(greedy->get(), many.data(), many.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  EXPECT_TRUE(Ready("a"));
  struct stat st {};
  ASSERT_EQ(stat((service_.runtime_dir() / "control.sock").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

}  // namespace
}  // namespace perdure::supervisor
