// Starting, stopping, reloading, and starts that must fail with a sentence.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "client.h"
#include "protocol/heritage.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;

TEST(Lifecycle, SigtermDrains) {
  Service service;
  service.WriteConfig("[supervisor]\nisa = \"scalar\"\n");  // slow enough to look meanwhile
  service.StartReady();
  Stream stream(service.url(), LongChatBody(200, Json::object()));
  ASSERT_TRUE(stream.AwaitChunks(3));
  service.Signal(SIGTERM);
  EXPECT_TRUE(Eventually([&] { return Get(service.url() + "/ready").status == 503; }));
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", Json::object())).status, 503);
  EXPECT_FALSE(stream.ended());
  stream.Join();
  EXPECT_TRUE(stream.done()) << stream.error_code();
  EXPECT_EQ(stream.finish_reason(), "length");
  EXPECT_EQ(service.AwaitExit(), 0);
}

TEST(Lifecycle, DrainingEndsAtItsLimit) {
  Service service;
  service.WriteConfig(
      "[supervisor]\nisa = \"scalar\"\n[server]\ndrain_timeout_s = 1\n[models.slow]\nsource = "
      "\"nano\"\n");
  service.StartReady();
  Stream stream(service.url(), LongChatBody(1900, Json::object()));
  ASSERT_TRUE(stream.AwaitChunks(1));
  ASSERT_GT(service.SignalModel("slow", SIGSTOP), 0);
  service.Signal(SIGTERM);
  EXPECT_EQ(service.AwaitExit(), 0);
  stream.Join();
  EXPECT_FALSE(stream.done());
}

TEST(Lifecycle, ATakenPortIsNamed) {
  Service first;
  first.StartReady();
  const std::string port = first.url().substr(first.url().rfind(':') + 1);
  Service second;
  second.Start({"--port", port});
  EXPECT_EQ(second.AwaitExit(), protocol::kExitSystem);
  EXPECT_NE(second.Log().find(port), std::string::npos) << second.Log();
  EXPECT_EQ(Get(first.url() + "/health").status, 200);
}

TEST(Lifecycle, ASecondServiceInTheSameFolderIsRefused) {
  Service service;
  service.StartReady();
  Service second;
  second.Start({"--runtime-dir", (service.folder() / "run").string()});
  EXPECT_NE(second.AwaitExit().value_or(0), 0);
  EXPECT_NE(second.Log().find(std::to_string(service.pid())), std::string::npos) << second.Log();
  EXPECT_EQ(Get(service.url() + "/ready").status, 200);
}

// Their arenas would have the same names.
TEST(Lifecycle, ASecondServiceWithTheSameStateIsRefused) {
  Service service;
  service.StartReady();
  Service second;
  fs::create_directory_symlink(service.folder() / "state", second.folder() / "alias");
  for (const fs::path& state : {service.folder() / "state", second.folder() / "alias"}) {
    second.Start({"--state-dir", state.string()});
    EXPECT_EQ(second.AwaitExit(), protocol::kExitSystem);
  }
  EXPECT_NE(second.Log().find(std::to_string(service.pid())), std::string::npos) << second.Log();
  EXPECT_NE(second.Log().find("a --state-dir of its own"), std::string::npos) << second.Log();
  EXPECT_EQ(Get(service.url() + "/ready").status, 200);
}

TEST(Lifecycle, OneFolderMayBeBothOfAService) {
  Service service;
  service.StartReady(1, {"--state-dir", (service.folder() / "run").string()});
  EXPECT_EQ(Get(service.url() + "/ready").status, 200);
}

TEST(Lifecycle, ABrokenConfigIsRefusedWithItsLine) {
  Service service;
  service.WriteConfig("[server]\nprot = 8000\n");
  service.Start();
  EXPECT_EQ(service.AwaitExit(), protocol::kExitUsage);
  EXPECT_NE(service.Log().find("prot"), std::string::npos) << service.Log();
}

TEST(Lifecycle, AnOpenAddressNeedsAKey) {
  Service service;
  service.Start({"--host", "0.0.0.0"});
  EXPECT_EQ(service.AwaitExit(), protocol::kExitUsage);
  EXPECT_NE(service.Log().find("--insecure"), std::string::npos) << service.Log();
}

TEST(Lifecycle, SighupAddsAndRemovesModelsAndKeepsTheRest) {
  Service service;
  service.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.b]\nsource = \"nano\"\n");
  service.StartReady(2);
  const pid_t kept = service.ModelPid("a");
  service.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.c]\nsource = \"nano\"\n");
  service.Signal(SIGHUP);
  EXPECT_TRUE(service.AwaitModel("c", "ready"));
  EXPECT_TRUE(Eventually([&] { return service.Model("b").is_null(); }));
  EXPECT_EQ(service.ModelPid("a"), kept);
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", {{"model", "c"}})).status, 200);
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", {{"model", "b"}})).status, 404);

  service.WriteConfig("[models.a]\nsource = 3\n");
  service.Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] { return service.Log().find("source") != std::string::npos; }));
  EXPECT_EQ(service.ModelPid("a"), kept) << "a broken config changes nothing";
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", {{"model", "c"}})).status, 200);
}

// A copy of the built-in model with one file changed.
fs::path BrokenModel(const fs::path& folder, const std::string& file, const std::string& text) {
  const fs::path model = folder / "broken";
  fs::remove_all(model);
  fs::copy(BuiltinModel(), model);
  fs::permissions(model / file, fs::perms::owner_all);
  std::ofstream(model / file, std::ios::binary) << text;
  return model;
}

TEST(Lifecycle, ABadModelIsNamedAndTheOthersServe) {
  struct Case {
    const char* file;
    std::string text;
  };
  const std::vector<Case> cases = {
      {"model.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10)},
      {"model.safetensors", std::string(8, '\0')},
      {"tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": 3}}"},
      {"config.json", "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 1000000000}"},
      {"config.json", "not json"},
  };
  for (const Case& c : cases) {
    Service service;
    const fs::path model = BrokenModel(service.folder(), c.file, c.text);
    service.WriteConfig(
        "[models.good]\nsource = \"nano\"\ndefault = true\n[models.broken]\nsource = \"" +
        model.string() + "\"\n");
    service.StartReady(1);
    EXPECT_TRUE(service.AwaitModel("broken", "failed")) << c.file << service.Ps();
    const Answer answer = Chat(service.url(), ChatBody("hi", {{"model", "broken"}}));
    EXPECT_EQ(answer.status, 503) << answer.body;
    EXPECT_NE(answer.error_message().find(c.file), std::string::npos) << answer.body;
    EXPECT_EQ(Chat(service.url(), ChatBody("hi", Json::object())).status, 200);
  }
}

TEST(Lifecycle, AFileCutShortWhileServedHarmsItsWorkerAlone) {
  Service service;
  const fs::path model = service.folder() / "copy";
  fs::copy(BuiltinModel(), model);
  service.WriteConfig(
      "[models.good]\nsource = \"nano\"\ndefault = true\n[models.copy]\nsource = \"" +
      model.string() + "\"\n");
  service.StartReady(2);
  fs::permissions(model / "model.safetensors", fs::perms::owner_all);
  fs::resize_file(model / "model.safetensors", 1000);
  // It may go on from its packed copy, or fail; the service and the other model do not care.
  Chat(service.url(), ChatBody("hi", {{"model", "copy"}}));
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", Json::object())).status, 200);
  service.SignalModel("copy", SIGKILL);  // unless it is gone already
  EXPECT_TRUE(service.AwaitModel("copy", "failed"));
  EXPECT_EQ(Chat(service.url(), ChatBody("hi", Json::object())).status, 200);
}

TEST(Lifecycle, TwoServicesDoNotDisturbEachOther) {
  Service first, second;
  first.StartReady();
  second.StartReady();
  first.Signal(SIGKILL);
  ASSERT_TRUE(first.AwaitExit());
  EXPECT_EQ(Chat(second.url(), ChatBody("hi", Json::object())).status, 200);
  first.StartReady();
  EXPECT_EQ(Chat(first.url(), ChatBody("hi", Json::object())).status, 200);
}

}  // namespace
}  // namespace perdure::process_tests
