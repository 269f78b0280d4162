// Loops of tool calls in the form of OpenAI's API, rendered by the families' templates: what the
// model must see of them is there.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "worker/chat_context.h"

namespace perdure::worker {
namespace {

text::ModelTemplate Family(const std::string& name) {
  const auto source = ReadFile(std::filesystem::path(PERDURE_SOURCE_DIR) /
                                   "tests/text/goldens/template/families" / (name + ".jinja"),
                               size_t{1} << 20);
  EXPECT_TRUE(source) << name;
  text::ModelTemplate model;
  model.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  text::NamedTemplate entry;
  entry.name = "default";
  entry.chat = std::move(*text::ChatTemplate::Parse(*source, name));
  entry.tool_calls = text::FindToolCallForm(*entry.chat, model.special_tokens);
  model.templates.push_back(std::move(entry));
  return model;
}

const std::string kTools = R"("tools": [
  {"type": "function", "function": {"name": "get_weather", "description": "The weather.",
    "parameters": {"type": "object", "properties": {
      "place": {"type": "string", "description": "A town"}}, "required": ["place"]}}},
  {"type": "function", "function": {"name": "get_time", "description": "The time.",
    "parameters": {"type": "object", "properties": {
      "zone": {"type": "string", "description": "A zone"}}, "required": ["zone"]}}}])";

std::string Call(const std::string& id, const std::string& name, const std::string& arguments) {
  return R"({"id": ")" + id + R"(", "type": "function", "function": {"name": ")" + name +
         R"(", "arguments": ")" + arguments + R"("}})";
}

std::string Result(const std::string& id, const std::string& content) {
  return R"({"role": "tool", "tool_call_id": ")" + id + R"(", "content": ")" + content + R"("})";
}

std::string Calling(const std::string& calls) {
  return R"({"role": "assistant", "content": null, "tool_calls": [)" + calls + "]}";
}

const std::string kFirst = "call_Zb3kQ9xLw2mN8pRt5vYc7hJd";
const std::string kSecond = "call_Kd7sWq1xVn4mB6tRz8yLc2pG";
const std::string kAsked = R"({"role": "user", "content": "Is it warm?"})";

// Calls one after the other, as agents make them, up to where the model goes on.
std::string OneByOne() {
  return "{\"messages\": [" + kAsked + "," +
         Calling(Call(kFirst, "get_weather", R"({\"place\": \"Bern\"})")) + "," +
         Result(kFirst, "31 degrees") + "," +
         Calling(Call(kSecond, "get_time", R"({\"zone\": \"Mars\"})")) + "," +
         Result(kSecond, "half past nine") + "], " + kTools + "}";
}

// Two calls in a message, the results in another order, an answer and a new question.
std::string Parallel() {
  return "{\"messages\": [" + kAsked + "," +
         Calling(Call(kFirst, "get_weather", R"({\"place\": \"Bern\"})") + "," +
                 Call(kSecond, "get_time", R"({\"zone\": \"Mars\"})")) +
         "," + Result(kSecond, "half past nine") + "," + Result(kFirst, "31 degrees") + "," +
         R"({"role": "assistant", "content": "It is."}, {"role": "user", "content": "Sure?"})" +
         "], " + kTools + "}";
}

class ToolLoop : public testing::TestWithParam<const char*> {};

TEST_P(ToolLoop, Renders) {
  const text::ModelTemplate model = Family(GetParam());
  for (const std::string& request : {OneByOne(), Parallel()}) {
    const auto prompt = RenderConversation(model, request, 1'700'000'000);
    ASSERT_TRUE(prompt) << prompt.error().message << "\n" << request;
    for (const char* part : {"Is it warm?", "get_weather", "Bern", "31 degrees", "get_time", "Mars",
                             "half past nine"}) {
      EXPECT_NE(prompt->prompt.text.find(part), std::string::npos) << part << " in\n"
                                                                   << prompt->prompt.text;
    }
    EXPECT_EQ(prompt->prompt.text.find("'place'"), std::string::npos) << prompt->prompt.text;
    EXPECT_EQ(prompt->prompt.text.find("None"), std::string::npos) << prompt->prompt.text;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ToolLoop,
                         testing::Values("apertus", "cohere2", "command_r_tool_use", "deepseek_r1",
                                         "deepseek_v31", "deepseek_v3_tools", "devstral",
                                         "functionary", "glm4", "glm45", "granite", "harmony",
                                         "hermes_tool_use", "jamba", "kimi", "llama31_tools",
                                         "llama32", "llama4", "minimax", "ministral_reasoning",
                                         "mistral_nemo", "mistral_v3_tools", "nemotron",
                                         "qwen25_tools", "qwen3_coder_xml", "qwen3_next_vl",
                                         "qwen3_thinking", "seed_oss"),
                         [](const auto& info) { return info.param; });

// The ids in a list of messages, of calls and of results.
std::vector<std::string> Ids(const Json& messages) {
  std::vector<std::string> ids;
  for (const Json& message : messages) {
    if (message.contains("tool_calls")) {
      for (const Json& call : message["tool_calls"]) ids.push_back(call["id"]);
    }
    if (message.contains("tool_call_id")) ids.push_back(message["tool_call_id"]);
  }
  return ids;
}

TEST(ToolLoopContext, IdsOfNineCharactersWhereTheTemplateAsksForThem) {
  const text::ModelTemplate model = Family("mistral_nemo");
  EXPECT_TRUE(model.templates[0].tool_calls.short_ids);
  const auto context = MakeChatContext(Parallel(), model);
  ASSERT_TRUE(context) << context.error().message;
  const std::vector<std::string> ids = Ids(context->variables["messages"]);
  ASSERT_EQ(ids.size(), 4u);
  EXPECT_EQ(ids[0].size(), 9u);
  EXPECT_NE(ids[0], ids[1]);
  EXPECT_EQ(ids[0], ids[3]);
  EXPECT_EQ(ids[1], ids[2]);
  // Those that are so already stay.
  std::string own = Parallel();
  for (size_t at; (at = own.find(kFirst)) != std::string::npos;)
    own.replace(at, kFirst.size(), "aB3456789");
  EXPECT_EQ(Ids(MakeChatContext(own, model)->variables["messages"])[0], "aB3456789");
  EXPECT_EQ(Ids(MakeChatContext(Parallel(), Family("qwen25_tools"))->variables["messages"])[0],
            kFirst);
}

TEST(ToolLoopContext, CallsApartWhereTheTemplateTakesOne) {
  const text::ModelTemplate model = Family("llama31_tools");
  EXPECT_TRUE(model.templates[0].tool_calls.one_call_a_message);
  const auto context = MakeChatContext(Parallel(), model);
  ASSERT_TRUE(context) << context.error().message;
  const Json& messages = context->variables["messages"];
  // Question, call, result, call, result, answer, question.
  ASSERT_EQ(messages.size(), 7u);
  EXPECT_EQ(Ids(messages), (std::vector<std::string>{kFirst, kFirst, kSecond, kSecond}));
  EXPECT_EQ(messages[2]["content"], "31 degrees");
  EXPECT_EQ(messages[4]["content"], "half past nine");
  EXPECT_EQ(MakeChatContext(Parallel(), Family("qwen25_tools"))->variables["messages"].size(), 6u);
}

TEST(ToolLoopContext, ResultsAreNamedAfterTheirCalls) {
  const auto context = MakeChatContext(Parallel(), Family("kimi"));
  ASSERT_TRUE(context) << context.error().message;
  const Json& messages = context->variables["messages"];
  EXPECT_EQ(messages[2]["name"], "get_time");
  EXPECT_EQ(messages[3]["name"], "get_weather");
}

}  // namespace
}  // namespace perdure::worker
