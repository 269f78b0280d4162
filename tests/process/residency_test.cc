// Models that come and go, with real processes: idle ones are unloaded, others loaded when they are
// asked for, within a budget of memory; their conversations stay.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "client.h"
#include "kernel_memory.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;

class ResidencyTest : public testing::Test {
 protected:
  // Models of the same weights; each takes about 50 MiB, of which 4 are for KV to begin with, and
  // supervisor and frontend 16.
  static std::string Models(const std::vector<std::string>& names, const std::string& more = "") {
    std::string toml;
    for (const std::string& name : names)
      toml += "[models." + name + "]\nsource = \"nano\"\nkv_bytes_max = \"8MiB\"\n" + more;
    return toml;
  }
  Answer Say(const std::string& model, const Json& messages, const Json& more = Json::object()) {
    Json body = {{"model", model},
                 {"messages", messages},
                 {"temperature", 0},
                 {"ignore_eos", true},
                 {"max_tokens", 12}};
    body.update(more);
    const Answer answer = Chat(service_.url(), body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer;
  }
  static Json Message(const std::string& role, const std::string& content) {
    return {{"role", role}, {"content", content}};
  }
  static Json Asks(const std::string& question) { return Json::array({Message("user", question)}); }
  // What its prompt's KV came from.
  static int From(const Answer& answer, const char* where) {
    return answer.body["timings"]["cache"].value(where, -1);
  }

  Service service_;
};

TEST_F(ResidencyTest, AnIdleModelIsUnloadedAndItsConversationGoesOnFromMemory) {
  service_.WriteConfig("[lifecycle]\nidle_timeout_s = 1\n" + Models({"nano"}));
  service_.StartReady();
  Json messages = Asks("My name is Anna. Remember it, please, and tell me a story.");
  const Answer first = Say("nano", messages);
  const pid_t pid = service_.ModelPid("nano");
  ASSERT_TRUE(service_.AwaitModel("nano", "stopped"));
  EXPECT_TRUE(Eventually([&] { return !Alive(pid); }));
  EXPECT_EQ(Get(service_.url() + "/ready").status, 200) << "it comes when it is asked for";
  const Json unloaded = service_.Model("nano")["memory"];
  EXPECT_EQ(unloaded["process_bytes"], 0);
  EXPECT_EQ(unloaded["held_bytes"], unloaded["kernel_bytes"]) << "the arena is what is left";

  messages.push_back(Message("assistant", first.content()));
  messages.push_back(Message("user", "What is my name?"));
  const Answer second = Say("nano", messages);
  EXPECT_NE(service_.ModelPid("nano"), pid);
  EXPECT_GT(From(second, "arena"), 0) << second.body;
  EXPECT_LE(From(second, "computed"), 32 + 12) << second.body;
  EXPECT_EQ(service_.Model("nano")["deaths"], 0);
}

TEST_F(ResidencyTest, TheVariableOfMlxServerNanoAloneUnloadsAnIdleModel) {
  service_.SetEnvironment("MLX_MODEL_IDLE_TIMEOUT", "1");
  service_.StartReady();
  ASSERT_TRUE(service_.AwaitModel("nano", "stopped"));
  EXPECT_EQ(Say("nano", Asks("Hello")).status, 200);
  EXPECT_THAT(service_.Log(), testing::Not(HasSubstr("no effect")));
}

TEST_F(ResidencyTest, KeepAliveSaysHowLongAModelStays) {
  service_.WriteConfig(Models({"nano"}));
  service_.StartReady();
  Say("nano", Asks("Hello"), {{"keep_alive", 0}});
  ASSERT_TRUE(service_.AwaitModel("nano", "stopped"));
  Say("nano", Asks("Hello"), {{"keep_alive", "1s"}});
  ASSERT_TRUE(service_.AwaitModel("nano", "stopped"));
  EXPECT_EQ(Chat(service_.url(), ChatBody("Hello", {{"keep_alive", "soon"}})).status, 400);
}

TEST_F(ResidencyTest, ModelsThatDoNotFitTogetherTakeTurns) {
  service_.WriteConfig("[lifecycle]\nmemory_max = \"90MiB\"\nresidency_least_s = 0\n" +
                       Models({"a", "b"}));
  service_.StartReady();
  ASSERT_TRUE(service_.AwaitModel("a", "ready"));
  EXPECT_EQ(service_.Model("b")["state"], "stopped");
  const Answer alone = Say("a", Asks("What is 2+2?"));
  for (int turn = 0; turn < 3; ++turn)
    for (const char* model : {"b", "a"})
      EXPECT_EQ(Say(model, Asks("What is 2+2?")).content(), alone.content());
  // Both at once, from four clients each.
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client)
    clients.emplace_back([&, client] {
      for (int i = 0; i < 4; ++i)
        EXPECT_EQ(Say(client % 2 == 0 ? "a" : "b", Asks("What is 2+2?")).content(),
                  alone.content());
    });
  for (std::thread& client : clients) client.join();
  const Json memory = service_.Ps()["memory"];
  EXPECT_LE(memory["held_bytes"], memory["budget_bytes"]) << memory;
  EXPECT_LE(memory["kernel_bytes"], memory["budget_bytes"]) << memory;
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
  EXPECT_EQ(service_.Model("b")["deaths"], 0);
}

// KV grows with what is asked for, and is given back, stored, when another model needs the memory.
TEST_F(ResidencyTest, KvGrowsAndIsTakenBackForAnotherModel) {
  service_.WriteConfig(
      "[lifecycle]\nmemory_max = \"125MiB\"\n[models.a]\nsource = \"nano\"\npinned = true\n"
      "[models.b]\nsource = \"nano\"\npreload = false\n");
  service_.StartReady();
  const auto granted = [&] {
    const Json a = Get(service_.url() + "/admin/memory").body["processes"][2];
    return a["kv"]["granted_bytes"].get<uint64_t>();
  };
  const uint64_t before = granted();
  const pid_t pid = service_.ModelPid("a");
  std::vector<Json> talks(8);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < talks.size(); ++i)
    clients.emplace_back([&, i] {
      talks[i] = Asks("My name is Anna, and my number is " + std::to_string(i));
      const Answer answer = Say("a", talks[i], {{"max_tokens", 1500}});
      talks[i].push_back(Message("assistant", answer.content()));
    });
  for (std::thread& client : clients) client.join();
  const uint64_t grown = granted();
  EXPECT_GT(grown, before + (16 << 20)) << before;

  Say("b", Asks("Hello"));
  EXPECT_LT(granted(), grown);
  EXPECT_GE(granted(), before);
  EXPECT_EQ(service_.ModelPid("a"), pid) << "it stayed";
  const Json memory = service_.Ps()["memory"];
  EXPECT_LE(memory["held_bytes"], memory["budget_bytes"]) << memory;

  // What was given back comes from the disk.
  int snapshot = 0;
  for (Json& talk : talks) {
    talk.push_back(Message("user", "What is my name?"));
    const Answer answer = Say("a", talk);
    snapshot += From(answer, "snapshot");
    EXPECT_LE(From(answer, "computed"), 32 + 12) << answer.body["timings"];
  }
  EXPECT_GT(snapshot, 0);
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
}

TEST_F(ResidencyTest, AnAnswerIsFinishedBeforeItsModelGoes) {
  service_.WriteConfig("[lifecycle]\nmemory_max = \"90MiB\"\nresidency_least_s = 0\n" +
                       Models({"a", "b"}));
  service_.StartReady();
  ASSERT_TRUE(service_.AwaitModel("a", "ready"));
  Stream stream(service_.url(), LongChatBody(300, {{"model", "a"}}));
  ASSERT_TRUE(stream.AwaitChunks(3));
  const Answer other = Say("b", Asks("Hello"));
  EXPECT_TRUE(Eventually([&] { return stream.ended(); }, 5))
      << "b came before a's answer had ended";
  stream.Join();
  EXPECT_EQ(stream.finish_reason(), "length");
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
}

TEST_F(ResidencyTest, WhatDoesNotFitIsToldHowMuchIsMissing) {
  service_.WriteConfig("[lifecycle]\nmemory_max = \"90MiB\"\n" + Models({"a"}, "pinned = true\n") +
                       Models({"b"}));
  service_.StartReady();
  const Answer refused = Chat(service_.url(), ChatBody("Hello", {{"model", "b"}}));
  EXPECT_EQ(refused.status, 507) << refused.body;
  EXPECT_EQ(refused.error_code(), "out_of_memory");
  EXPECT_THAT(refused.error_message(), HasSubstr("MiB are missing"));
  EXPECT_EQ(Chat(service_.url(), ChatBody("Hello", {{"model", "a"}})).status, 200);
}

TEST_F(ResidencyTest, AModelIsUnloadedOnDemand) {
  service_.WriteConfig(Models({"nano"}));
  service_.StartReady();
  const std::string run = (service_.folder() / "run").string();
  const std::string command =
      std::string(PERDURE_BIN_DIR) + "/perdure stop nano --runtime-dir " + run + " > /dev/null";
  ASSERT_EQ(system(command.c_str()), 0);
  ASSERT_TRUE(service_.AwaitModel("nano", "stopped"));
  Say("nano", Asks("Hello"));
  EXPECT_EQ(service_.Model("nano")["state"], "ready");
}

TEST_F(ResidencyTest, AReloadWithAliasesAndModelsLeavesStreamsAlone) {
  const std::string before = Models({"a", "b"});
  service_.WriteConfig(before);
  service_.StartReady(2);
  const pid_t pid = service_.ModelPid("a");
  Stream stream(service_.url(), LongChatBody(1500, {{"model", "a"}}));
  ASSERT_TRUE(stream.AwaitChunks(3));
  // One is added, one changed, an alias and a key come.
  service_.WriteConfig("[aliases.counter]\nmodel = \"a\"\nmax_tokens = 3\n" + Models({"a"}) +
                       Models({"b"}, "max_context = 512\n") + Models({"c"}));
  service_.Signal(SIGHUP);
  const auto named = [&](const char* model) {
    return Chat(service_.url(), ChatBody("Hello", {{"model", model}, {"ignore_eos", true}}));
  };
  ASSERT_TRUE(Eventually([&] { return named("counter").status == 200; }));
  const Answer answer = named("counter");
  EXPECT_EQ(answer.body["usage"]["completion_tokens"], 3);
  EXPECT_EQ(answer.body["model"], "counter");
  EXPECT_EQ(Chat(service_.url(), ChatBody("Hello", {{"model", "c"}, {"max_tokens", 3}})).status,
            200);
  ASSERT_TRUE(Eventually([&] { return service_.Model("b")["max_context"] == 512; }));
  // One that is broken is refused whole.
  service_.WriteConfig(Models({"a"}) + "[models.b]\ncolour = \"red\"\n");
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Eventually(
      [&] { return service_.Log().find("the config was not read again") != std::string::npos; }));
  EXPECT_THAT(service_.Log(), HasSubstr("unknown key \"colour\""));
  EXPECT_EQ(named("counter").status, 200);
  // And one is gone.
  service_.WriteConfig(Models({"a", "b"}));
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Eventually([&] { return service_.Model("c").is_null(); }));
  EXPECT_EQ(named("counter").status, 404);
  stream.Join();
  EXPECT_EQ(stream.finish_reason(), "length");
  EXPECT_EQ(service_.ModelPid("a"), pid) << "nobody has touched it";
  EXPECT_EQ(service_.Model("a")["deaths"], 0);
}

TEST_F(ResidencyTest, AWorkerThatIsKilledWhileItLeavesLosesNoRequest) {
  service_.WriteConfig("[lifecycle]\nmemory_max = \"90MiB\"\nresidency_least_s = 0\n" +
                       Models({"a", "b"}));
  service_.StartReady();
  const Answer alone = Say("a", Asks("What is 2+2?"));
  std::vector<std::thread> clients;
  std::atomic<int> left{4};
  for (int client = 0; client < 4; ++client)
    clients.emplace_back([&, client] {
      for (int i = 0; i < 6; ++i)
        EXPECT_EQ(Say((client + i) % 2 == 0 ? "a" : "b", Asks("What is 2+2?")).content(),
                  alone.content());
      --left;
    });
  for (int kill = 0; left > 0; ++kill) {
    std::this_thread::sleep_for(std::chrono::milliseconds(150 + kill * 37 % 200));
    service_.SignalModel(kill % 2 == 0 ? "a" : "b", SIGKILL);
  }
  for (std::thread& client : clients) client.join();
}

// The process itself, as shells and package managers know it; what is in it is another program.
TEST_F(ResidencyTest, TheSupervisorIsSmall) {
  service_.StartReady();
#ifndef __SANITIZE_ADDRESS__
#ifndef __SANITIZE_THREAD__
  EXPECT_LT(service_.Ps()["supervisor"]["memory"]["rss_bytes"], 10 << 20);
#endif
#endif
}

// What the ledger says is in use is what the kernel says, and what is granted is no less.
TEST_F(ResidencyTest, TheLedgerIsTheKernelsWithinTenPercent) {
  service_.WriteConfig("[lifecycle]\nmemory_max = \"400MiB\"\n[models.a]\nsource = \"nano\"\n" +
                       std::string("[models.b]\nsource = \"nano\"\n"));
  service_.StartReady(2);
  Say("a", Asks("What is 2+2?"));
  Say("b", Asks("Hello"), {{"max_tokens", 1500}});
  Json memory;
  double kernel = 0;
  // The ledger looks once a second.
  EXPECT_TRUE(Eventually(
      [&] {
        memory = Get(service_.url() + "/admin/memory").body;
        kernel = static_cast<double>(ReadKernelMemory(service_.pid()).bytes());
        const double used = memory["used_bytes"];
        return used > kernel * 0.9 && used < kernel * 1.1;
      },
      10))
      << memory << " and by the kernel " << kernel;
  EXPECT_EQ(memory["budget_bytes"], 400 << 20);
  EXPECT_EQ(memory["budget_from"], "config");
  EXPECT_LE(memory["used_bytes"], memory["held_bytes"]);
  EXPECT_EQ(memory["held_bytes"].get<uint64_t>() + memory["free_bytes"].get<uint64_t>(),
            memory["budget_bytes"]);
  ASSERT_EQ(memory["processes"].size(), 4u) << memory;
  for (size_t i : {2, 3}) {
    const Json& worker = memory["processes"][i];
    EXPECT_GE(worker["work"]["granted_bytes"], worker["work"]["used_bytes"]) << worker;
    EXPECT_GE(worker["kv"]["granted_bytes"], worker["kv"]["used_bytes"]) << worker;
    EXPECT_GT(worker["kv"]["used_bytes"], 0) << worker;
    // A promise of the size of the model, not of a fixed one.
    EXPECT_LT(worker["held_bytes"], 80 << 20) << worker;
  }
  const Json ps = service_.Ps()["memory"];
  EXPECT_EQ(ps["budget_bytes"], memory["budget_bytes"]);
  EXPECT_EQ(ps["processes"].size(), memory["processes"].size());

  // An unloaded model's arena has no process; it is counted all the same.
  Say("a", Asks("Hello"), {{"keep_alive", 0}});
  ASSERT_TRUE(service_.AwaitModel("a", "stopped"));
  memory = Get(service_.url() + "/admin/memory").body;
  const Json& unloaded = memory["processes"][2];
  EXPECT_TRUE(unloaded["pid"].is_null()) << unloaded;
  EXPECT_EQ(unloaded["weights_bytes"], 0);
  EXPECT_EQ(unloaded["work"]["granted_bytes"], 0);
  EXPECT_GT(unloaded["kv"]["used_bytes"], 0);
  EXPECT_EQ(unloaded["kv"]["used_bytes"], unloaded["kernel"]["arena_bytes"]);
}

TEST_F(ResidencyTest, WhoHasTheMemoryIsForAdminsAlone) {
  service_.WriteConfig("[server]\nadmin_keys = [\"an-admin-key-of-ours\"]\n" + Models({"nano"}));
  service_.StartReady();
  EXPECT_EQ(Get(service_.url() + "/admin/memory").status, 401);
  EXPECT_EQ(Get(service_.url() + "/admin/memory?x=1").status, 401);
}

}  // namespace
}  // namespace perdure::process_tests
