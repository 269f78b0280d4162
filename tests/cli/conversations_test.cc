#include "cli/conversations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/conversations_text.h"
#include "protocol/heritage.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"

namespace perdure::cli {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kTenant = "0123456789abcdef";

TEST(ConversationsFormat, AList) {
  const std::string text = FormatConversations(Json::parse(R"({"object":"list","has_more":true,
      "data":[{"id":"conv_1","model":"nano","tenant":"0123456789abcdef","turns":2,"tokens":12345,
               "last_used_at":1700000000,"user":"anna"},
              {"id":"a \u001bb","model":"other","tenant":"00000000000000ff","turns":1,"tokens":7}]})"));
  EXPECT_THAT(text, StartsWith("ID      MODEL  TENANT            TURNS  TOKENS  LAST USED"));
  EXPECT_THAT(text, HasSubstr("conv_1  nano   0123456789abcdef  2      12,345  2023-11-1"));
  EXPECT_THAT(text, HasSubstr("  anna\n"));
  EXPECT_THAT(text, HasSubstr("a \uFFFDb    other  00000000000000ff  1      7       never"));
  EXPECT_THAT(text, HasSubstr("--limit"));
}

TEST(ConversationsFormat, NoneAtAll) {
  for (const char* list : {"{}", R"({"data":[]})", R"({"data":{}})", "[]", "null"}) {
    EXPECT_EQ(FormatConversations(Json::parse(list)), "no conversations\n") << list;
    EXPECT_EQ(FormatTenants(Json::parse(list)), "no conversations\n") << list;
  }
}

TEST(ConversationsFormat, Tenants) {
  const std::string text = FormatTenants(Json::parse(R"({"data":[
      {"tenant":"0123456789abcdef","model":"nano","conversations":1200,"tokens":50000}]})"));
  EXPECT_EQ(text,
            "TENANT            MODEL  CONVERSATIONS  TOKENS  LAST USED\n"
            "0123456789abcdef  nano   1,200          50,000  never\n");
}

TEST(ConversationsFormat, OneWithItsMessages) {
  const std::string text = FormatConversation(Json::parse(R"({
      "id":"a","tenant":"0123456789abcdef","turns":2,"tokens":161,"cache":{"type":"kv"},
      "messages":[{"role":"system","content":"Be brief."},
                  {"role":"user","content":[{"type":"text","text":"Hello"},
                                            {"type":"text","text":"you"}]},
                  {"role":"assistant","content":null,"reasoning_content":"A tool!",
                   "tool_calls":[{"function":{"name":"look","arguments":"{\"at\":1}"}}]},
                  {"role":"tool","tool_call_id":"call_1","content":"line\nline\n"},
                  {"role":"assistant","content":"\u001b[31mred"}]})"));
  EXPECT_THAT(text, AllOf(HasSubstr("id         a\n"), HasSubstr("tenant     0123456789abcdef\n"),
                          HasSubstr("user       -\n"), HasSubstr("turns      2\n"),
                          HasSubstr("tokens     161\n"), HasSubstr("cache      kv\n")));
  EXPECT_THAT(text, testing::EndsWith("\nsystem:\nBe brief.\n"
                                      "\nuser:\nHello\nyou\n"
                                      "\nassistant:\n(thinks) A tool!\n(calls) look {\"at\":1}\n"
                                      "\ntool call_1:\nline\nline\n"
                                      "\nassistant:\n\uFFFD[31mred\n"));
}

TEST(ConversationsFormat, PlainCompletionsAndWhateverElse) {
  const std::string text = FormatConversation(Json::parse(R"({"messages":[
      {"prompt":"Once"},{"completion":" upon a time"},{"prompt":null},"no object",7,
      {"role":7,"content":{"x":1}},{"content":[7,{"type":"image"}],"tool_calls":[7,{}]}]})"));
  EXPECT_THAT(text, testing::EndsWith("\nprompt:\nOnce\n"
                                      "\ncompletion:\n upon a time\n"
                                      "\nprompt:\n(token ids)\n"
                                      "\nno object\n"
                                      "\n7\n"
                                      "\n7:\n{\"x\":1}\n"
                                      "\n-:\n7\n{\"type\":\"image\"}\n(calls) - -\n(calls) - -\n"));
  EXPECT_THAT(FormatConversation(Json::parse("[]")), HasSubstr("id         -\n"));
}

TEST(ConversationsFormat, ASummary) {
  EXPECT_EQ(Summary(Json{{"id", "a"}, {"tenant", kTenant}, {"turns", 1}, {"tokens", 1234}}),
            "a of tenant 0123456789abcdef: 1 turn, 1,234 tokens");
  EXPECT_THAT(Summary(Json{{"turns", 2}}), HasSubstr("2 turns"));
}

Result<CommandLine> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"perdure", "conversations"});
  const ParsedCommandLine parsed =
      ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
  if (parsed.command_line) return *parsed.command_line;
  return Err(ErrorCode::invalid_request, std::to_string(parsed.exit_code));
}

TEST(ConversationsCommandLine, NamesAnOperation) {
  for (const std::vector<const char*>& arguments : {std::vector<const char*>{"list"},
                                                    {"show", "a"},
                                                    {"delete", "a"},
                                                    {"fork", "a"},
                                                    {"rewind", "a", "--turn", "1"},
                                                    {"export", "a"},
                                                    {"import", "-"},
                                                    {"tenants"}}) {
    const auto line = Parse(arguments);
    ASSERT_TRUE(line) << arguments[0];
    EXPECT_EQ(line->command, Command::kConversations);
    EXPECT_EQ(line->conversations.operation, arguments[0]);
    EXPECT_EQ(line->conversations.limit, 20);
    EXPECT_EQ(line->conversations.file, "-");
    EXPECT_EQ(line->model, "");
    EXPECT_FALSE(line->json || line->conversations.yes || line->conversations.force);
  }
}

TEST(ConversationsCommandLine, TakesOptions) {
  auto line = Parse({"list", "--model", "nano", "--user", "anna", "--tenant", kTenant, "--limit",
                     "500", "--json", "--runtime-dir", "/r"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->model, "nano");
  EXPECT_EQ(line->conversations.user, "anna");
  EXPECT_EQ(line->conversations.tenant, kTenant);
  EXPECT_EQ(line->conversations.limit, 500);
  EXPECT_TRUE(line->json);
  EXPECT_EQ(line->flags.runtime_dir, "/r");
  line = Parse({"delete", "a", "b", "--tenant", kTenant, "--yes"});
  ASSERT_TRUE(line);
  EXPECT_THAT(line->conversations.ids, ElementsAre("a", "b"));
  EXPECT_TRUE(line->conversations.yes);
  line = Parse({"fork", "a", "--turn", "3", "--id", "b"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->conversations.turn, 3u);
  EXPECT_EQ(line->conversations.new_id, "b");
  line = Parse({"export", "a", "-o", "/f", "--force"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->conversations.file, "/f");
  EXPECT_TRUE(line->conversations.force);
  line = Parse({"import", "/f", "--id", "b"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->conversations.file, "/f");
  line = Parse({"show", "--", "-a"});
  ASSERT_TRUE(line);
  EXPECT_THAT(line->conversations.ids, ElementsAre("-a"));
}

class ConversationsCommandTest : public testing::Test {
 protected:
  Output Run(const std::string& arguments) {
    return RunPerdure(home_.path(), "conversations " + arguments + " --runtime-dir '" +
                                        (home_.path() / "run").string() + "'");
  }
  engine::TempDir home_;
};

TEST_F(ConversationsCommandTest, MistakesAreNamed) {
  struct Row {
    const char* arguments;
    const char* named;
  };
  for (const Row& row : {
           Row{"erase", "subcommand is required"},
           Row{"list a", "a"},
           Row{"list --limit 0", "--limit"},
           Row{"list --tenant 123", "perdure conversations tenants"},
           Row{"list --tenant 0123456789abcdeg", "--tenant"},
           Row{"list --user ''", "--user"},
           Row{"show", "ID"},
           Row{"show ''", "ID"},
           Row{"show a b", "b"},
           Row{"show a --turn 0", "--turn"},
           Row{"show a --turn soon", "--turn"},
           Row{"show a --turn 4294967296", "--turn"},
           Row{"rewind a", "--turn"},
           Row{"fork a --id ''", "--id"},
           Row{"export", "ID"},
           Row{"export a --json", "--json"},
           Row{"import", "FILE"},
           Row{"delete", "needs an ID, --user, --tenant or --all"},
           Row{"delete --yes", "needs an ID"},
           Row{"delete a --user anna", "IDs, or"},
           Row{"delete a --all", "IDs, or"},
           Row{"delete --all --user anna", "leave out"},
           Row{"delete --all --tenant 0123456789abcdef", "leave out"},
           Row{"delete --user ''", "--user"},
           Row{"delete ''", "ID"},
           Row{"tenants a", "a"},
       }) {
    const Output output = Run(row.arguments);
    EXPECT_EQ(output.code, protocol::kExitUsage) << row.arguments << "\n" << output.text;
    EXPECT_THAT(output.text, HasSubstr(row.named)) << row.arguments;
  }
}

TEST_F(ConversationsCommandTest, WithoutAServiceItSaysHowToStartOne) {
  for (const char* arguments :
       {"list", "show a --json", "delete --all", "export a", "import - </dev/null", "tenants"}) {
    const Output output = Run(arguments);
    EXPECT_EQ(output.code, protocol::kExitSystem) << output.text;
    EXPECT_THAT(output.text,
                HasSubstr("no service is running at " + (home_.path() / "run").string()));
    EXPECT_THAT(output.text, HasSubstr("`perdure serve`"));
  }
}

TEST_F(ConversationsCommandTest, HelpTells) {
  Output output = RunPerdure(home_.path(), "--help");
  EXPECT_THAT(output.text, HasSubstr("conversations"));
  output = RunPerdure(home_.path(), "conversations --help");
  EXPECT_EQ(output.code, 0) << output.text;
  for (const char* operation :
       {"list", "show", "delete", "fork", "rewind", "export", "import", "tenants"})
    EXPECT_THAT(output.text, HasSubstr(std::string("\n  ") + operation)) << output.text;
  output = RunPerdure(home_.path(), "conversations delete --help");
  EXPECT_THAT(output.text, AllOf(HasSubstr("--yes"), HasSubstr("--all"), HasSubstr("--tenant")));
}

}  // namespace
}  // namespace perdure::cli
