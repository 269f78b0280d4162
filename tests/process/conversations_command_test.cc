// `perdure conversations …` and /admin/conversations of a real service.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/http_client.h"
#include "client.h"
#include "conversation_files.h"
#include "protocol/heritage.h"
#include "service.h"
#include "tests/base/temp_folder.h"
#include "tests/cli/run_perdure.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

class ConversationsCommandTest : public testing::Test {
 protected:
  cli::Output Run(const std::string& arguments) const {
    return cli::RunPerdure(folder_.path(),
                           fmt::format("conversations {} --runtime-dir '{}'", arguments,
                                       (service_.folder() / "run").string()));
  }
  std::string Done(const std::string& arguments) const {
    const cli::Output output = Run(arguments);
    EXPECT_EQ(output.code, 0) << arguments << "\n" << output.text;
    return output.text;
  }
  std::string Failed(const std::string& arguments, int code = protocol::kExitSystem) const {
    const cli::Output output = Run(arguments);
    EXPECT_EQ(output.code, code) << arguments << "\n" << output.text;
    return output.text;
  }
  Json Told(const std::string& arguments) const {
    const std::string text = Done(arguments + " --json");
    const auto json = ParseJson(text, "the output", ErrorCode::protocol_error);
    EXPECT_TRUE(json) << text;
    return json ? *json : Json::object();
  }
  std::vector<std::string> Ids(const std::string& arguments = "") const {
    std::vector<std::string> ids;
    const Json list = Told("list " + arguments);
    for (const Json& each : list["data"]) ids.push_back(each["id"]);
    return ids;
  }
  // A question in a conversation; the answer.
  std::string Say(const std::string& id, const std::vector<std::string>& told,
                  const std::string& key = "", const std::string& user = "",
                  const std::string& model = "") const {
    Json messages = Json::array();
    for (size_t i = 0; i < told.size(); ++i)
      messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", told[i]}});
    Json body = {{"messages", messages}, {"conversation_id", id}, {"temperature", 0},
                 {"max_tokens", 12},     {"ignore_eos", true},    {"user", user}};
    if (!model.empty()) body["model"] = model;
    const auto response = cli::Perform({.url = service_.url() + "/v1/chat/completions",
                                        .body = DumpJson(body),
                                        .api_key = key,
                                        .timeout_s = 60,
                                        .on_data = nullptr});
    EXPECT_TRUE(response && response->status == 200);
    if (!response || response->status != 200) return "";
    const Json answer = Json::parse(response->body);
    EXPECT_EQ(answer.value("/timings/cache/stored"_json_pointer, false), true) << answer;
    return answer["choices"][0]["message"]["content"];
  }
  bool StandsInFiles(const std::string& text) const {
    return BytesOf(TurnsFile(service_)).find(text) != std::string::npos ||
           BytesOf(KvFile(service_)).find(text) != std::string::npos;
  }
  fs::path File(const std::string& name) const { return folder_.path() / name; }

  TempFolder folder_;
  Service service_;
};

TEST_F(ConversationsCommandTest, ListsShowsForksAndRewinds) {
  service_.StartReady();
  EXPECT_EQ(Done("list"), "no conversations\n");
  EXPECT_EQ(Done("tenants"), "no conversations\n");
  const std::string first = Say("a", {"My name is Anna."});
  Say("a", {"My name is Anna.", first, "What is 2+2?"});
  Say("b", {"Hello"}, "", "bert");
  EXPECT_THAT(Ids(), UnorderedElementsAre("a", "b"));
  EXPECT_THAT(Ids("--user bert --model nano"), ElementsAre("b"));
  EXPECT_THAT(Done("list"), AllOf(HasSubstr("ID"), HasSubstr("TENANT"), HasSubstr("bert")));
  const Json one = Told("list --limit 1");
  EXPECT_EQ(one["data"].size(), 1u);
  EXPECT_EQ(one["has_more"], true);
  EXPECT_THAT(Failed("list --model nope"), HasSubstr("There is no model \"nope\""));

  EXPECT_THAT(Done("show a"), AllOf(HasSubstr("turns      2\n"), HasSubstr("\nuser:\nWhat is 2+2?"),
                                    HasSubstr("\nassistant:\n")));
  EXPECT_THAT(Done("show a --turn 1"), Not(HasSubstr("What is 2+2?")));
  EXPECT_EQ(Told("show a")["messages"].size(), 4u);
  EXPECT_THAT(Failed("show c"), AllOf(HasSubstr("There is no conversation c."),
                                      HasSubstr("`perdure conversations list`")));
  Failed("show a --turn 3");

  EXPECT_THAT(Done("fork a --turn 1 --id c"), HasSubstr("c of tenant "));
  EXPECT_EQ(Told("show c")["turns"], 1);
  EXPECT_THAT(Failed("fork a --id c"), HasSubstr("--id"));
  EXPECT_THAT(Told("fork a")["id"].get<std::string>(), testing::StartsWith("conv_"));
  EXPECT_THAT(Done("rewind a --turn 1"), HasSubstr(": 1 turn, "));
  EXPECT_EQ(Told("show a")["messages"].size(), 2u);
}

TEST_F(ConversationsCommandTest, AsksBeforeItDeletesSeveral) {
  service_.StartReady();
  for (const char* id : {"a", "b", "c", "d"}) Say(id, {"Hello"}, "", id[0] < 'c' ? "anna" : "");
  EXPECT_THAT(Failed("delete a b", protocol::kExitUsage),
              AllOf(HasSubstr("2 conversations"), HasSubstr("--yes")));
  EXPECT_THAT(Failed("delete --user anna", protocol::kExitUsage),
              AllOf(HasSubstr("2 conversations of user anna in nano"), HasSubstr("--yes")));
  EXPECT_THAT(Failed("delete --all", protocol::kExitUsage), HasSubstr("4 conversations"));
  EXPECT_EQ(Ids().size(), 4u);
  EXPECT_EQ(Done("delete a"), "1 conversation deleted\n");
  EXPECT_EQ(Told("delete --user anna")["ids"], Json::array({"b"})) << "it is but one";
  const cli::Output some = Run("delete c nothing --yes");
  EXPECT_EQ(some.code, protocol::kExitSystem);
  EXPECT_THAT(some.text, AllOf(HasSubstr("There is no conversation nothing."),
                               HasSubstr("1 conversation deleted")));
  EXPECT_THAT(Ids(), ElementsAre("d"));
  EXPECT_EQ(Done("delete --all --yes"), "1 conversation deleted\n");
  EXPECT_EQ(Done("delete --all"), "0 conversations deleted\n");
}

TEST_F(ConversationsCommandTest, ExportsAndImports) {
  service_.StartReady();
  const std::string first = Say("a", {"My name is Anna."}, "", "anna");
  const std::string second = Say("a", {"My name is Anna.", first, "What is 2+2?"}, "", "anna");
  EXPECT_EQ(Done("export a -o " + File("a.json").string()), "");
  struct stat st {};
  ASSERT_EQ(stat(File("a.json").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  const std::string text = BytesOf(File("a.json"));
  EXPECT_EQ(Done("export a"), text) << "stdout";
  EXPECT_THAT(Failed("export a -o " + File("a.json").string()), HasSubstr("--force"));
  Done("export a --force -o " + File("a.json").string());
  EXPECT_THAT(Failed("export nothing -o " + File("b.json").string()), HasSubstr("nothing"));
  EXPECT_FALSE(fs::exists(File("b.json")));

  const std::string file = File("a.json").string();
  EXPECT_THAT(Failed("import " + file), AllOf(HasSubstr("already"), HasSubstr("--id")));
  EXPECT_THAT(Done("import " + file + " --id b"), HasSubstr("b of tenant "));
  Done("delete a");
  EXPECT_EQ(Told("import - <" + file)["id"], "a");
  EXPECT_THAT(Ids("--user anna"), UnorderedElementsAre("a", "b"));
  Json before = Json::parse(text), after = Told("show a");
  EXPECT_EQ(after["messages"], before["messages"]);
  // It goes on as if nothing had been.
  Done("rewind b --turn 1");
  EXPECT_EQ(Say("a", {"My name is Anna.", first, "What is 2+2?", second, "And 3+3?"}, "", "anna"),
            Say("b", {"My name is Anna.", first, "What is 2+2?", second, "And 3+3?"}, "", "anna"));
  WriteBytes(File("broken"), "{}");
  EXPECT_THAT(Failed("import " + File("broken").string()),
              HasSubstr("The document is no exported conversation"));
  EXPECT_THAT(Failed("import " + File("missing").string()), HasSubstr("missing"));
  EXPECT_THAT(Failed("import - </dev/null"), HasSubstr("is empty"));
}

TEST_F(ConversationsCommandTest, ExportsAndKeepsWhatWasComputed) {
  service_.StartReady();
  std::vector<std::string> told{
      "My name is Anna, and I like long walks along the river, in spring."};
  told.push_back(Say("a", told));
  told.push_back("What is my name?");
  const std::string file = File("a.perdure");
  Done("export a --kv -o '" + file + "'");
  EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  Done("save a kept --kv");
  EXPECT_THAT(Failed("save a kept"), HasSubstr("kept"));
  EXPECT_THAT(Done("saved"), HasSubstr("kept"));
  const std::string undisturbed = Say("a", told);
  Done("delete a");

  EXPECT_EQ(Told("import '" + file + "'")["kv"]["used"], true);
  EXPECT_EQ(Say("a", told), undisturbed);
  Done("load kept --id again");
  EXPECT_EQ(Say("again", told), undisturbed);
  Done("delete-saved kept");
  EXPECT_THAT(Done("saved"), HasSubstr("nothing is saved"));
  EXPECT_THAT(Failed("load kept"), HasSubstr("kept"));
  std::ofstream(file, std::ios::app) << "more";
  EXPECT_THAT(Failed("import '" + file + "' --id other"), Not(IsEmpty()));
}

TEST_F(ConversationsCommandTest, DeletesATenantAndNothingOfTheOther) {
  service_.WriteConfig("[server]\napi_keys = [\"one\", \"two\"]\nadmin_keys = [\"root\"]\n");
  service_.StartReady();
  Say("shared", {"Tell nobody of Quetzalcoatl."}, "one");
  Say("mine", {"Hello"}, "one");
  const std::string first = Say("shared", {"Tell nobody of Huitzilopochtli."}, "two");
  std::map<std::string, std::string> tenants;  // by the number of their conversations
  const Json told = Told("tenants");
  for (const Json& each : told["data"]) tenants[each["conversations"].dump()] = each["tenant"];
  ASSERT_EQ(tenants.size(), 2u);
  const std::string one = tenants["2"], two = tenants["1"];

  const std::string ambiguous = Failed("show shared");
  EXPECT_THAT(ambiguous, AllOf(HasSubstr(one), HasSubstr(two), HasSubstr("--tenant")));
  EXPECT_THAT(Done("show shared --tenant " + two), HasSubstr("Huitzilopochtli"));
  EXPECT_THAT(Done("show mine"), HasSubstr(one)) << "the only tenant that has it";
  EXPECT_THAT(Ids("--tenant " + one), UnorderedElementsAre("shared", "mine"));
  ASSERT_TRUE(StandsInFiles("Quetzalcoatl"));

  // Keys of applications are none for this.
  const auto status = [&](const std::string& key, const std::string& path,
                          const std::string& method = "GET") {
    return cli::Perform({.url = service_.url() + path,
                         .body = {},
                         .api_key = key,
                         .timeout_s = 20,
                         .on_data = nullptr,
                         .method = method})
        ->status;
  };
  EXPECT_EQ(status("", "/admin/conversations"), 401);
  EXPECT_EQ(status("one", "/admin/tenants"), 403);
  EXPECT_EQ(status("one", "/admin/conversations?all=true", "DELETE"), 403);
  EXPECT_EQ(status("root", "/admin/conversations"), 200);

  EXPECT_THAT(Failed("delete --tenant " + one, protocol::kExitUsage),
              HasSubstr("2 conversations of tenant " + one));
  Done("delete --yes --tenant " + one);
  EXPECT_EQ(status("one", "/v1/conversations/shared"), 404);
  EXPECT_EQ(status("two", "/v1/conversations/shared"), 200);
  EXPECT_THAT(Ids(), ElementsAre("shared"));
  EXPECT_TRUE(Eventually([&] { return !StandsInFiles("Quetzalcoatl"); }));
  EXPECT_TRUE(StandsInFiles("Huitzilopochtli"));
  // It is still so after a start that reads the files alone.
  service_.Signal(SIGTERM);
  ASSERT_TRUE(service_.AwaitExit());
  service_.RemoveSharedMemory();
  service_.StartReady();
  EXPECT_EQ(Told("tenants")["data"].size(), 1u);
  EXPECT_EQ(status("one", "/v1/conversations/shared"), 404);
  Say("shared", {"Tell nobody of Huitzilopochtli.", first, "Well?"}, "two");
  EXPECT_EQ(Told("show shared")["turns"], 2);
  // What is imported for a tenant is found by its key.
  Done("export shared -o " + File("f").string());
  Done("import --tenant " + one + " " + File("f").string());
  EXPECT_EQ(status("one", "/v1/conversations/shared"), 200);
}

TEST_F(ConversationsCommandTest, IsOfAllModelsWhereNoneIsNamed) {
  service_.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.\"b/c\"]\nsource = \"nano\"\n");
  service_.StartReady(2);
  Say("one", {"Hello"}, "", "anna", "a");
  Say("two", {"Hello"}, "", "anna", "b/c");
  EXPECT_THAT(Ids(), UnorderedElementsAre("one", "two"));
  EXPECT_THAT(Ids("--model b/c"), ElementsAre("two"));
  EXPECT_EQ(Told("list --limit 1")["has_more"], true);
  EXPECT_EQ(Told("tenants")["data"].size(), 2u) << "one, in two models";
  EXPECT_THAT(Failed("show two"), HasSubstr("--model"));
  EXPECT_THAT(Done("show two --model b/c"), HasSubstr("Hello"));
  EXPECT_THAT(Failed("delete --user anna", protocol::kExitUsage),
              HasSubstr("2 conversations of user anna in a, b/c"));
  Done("delete --user anna --yes");
  EXPECT_THAT(Ids(), IsEmpty());
}

}  // namespace
}  // namespace perdure::process_tests
