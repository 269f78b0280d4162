#include "worker/chat_context.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace perdure::worker {
namespace {

text::ModelTemplate Template() {
  text::ModelTemplate chat;
  chat.bos_token = "<bos>";
  chat.eos_token = "<eos>";
  return chat;
}

Json Context(const std::string& chat_json) {
  auto context = ChatContext(chat_json, Template());
  EXPECT_TRUE(context) << context.error().message;
  return context ? *context : Json();
}

TEST(ChatContextTest, HasWhatTransformersPasses) {
  const Json context = Context(R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(context["messages"], Json::parse(R"([{"role":"user","content":"hi"}])"));
  EXPECT_TRUE(context["tools"].is_null());
  EXPECT_TRUE(context["documents"].is_null());
  EXPECT_EQ(context["add_generation_prompt"], true);
  EXPECT_EQ(context["bos_token"], "<bos>");
  EXPECT_EQ(context["eos_token"], "<eos>");
}

TEST(ChatContextTest, KeepsToolsInOrderAndDropsAnEmptyList) {
  const Json context =
      Context(R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"z":1,"a":2}]})");
  EXPECT_EQ(context["tools"].dump(), R"([{"z":1,"a":2}])");
  for (const char* none : {"[]", "null"}) {
    EXPECT_TRUE(Context(R"({"messages":[{"role":"user","content":"hi"}],"tools":)" +
                        std::string(none) + "}")["tools"]
                    .is_null());
  }
}

TEST(ChatContextTest, MakesContentAString) {
  const Json context = Context(R"({"messages":[
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[]},
      {"role":"assistant"}]})");
  EXPECT_EQ(context["messages"][0]["content"], "ab");
  EXPECT_EQ(context["messages"][1]["content"], "");
  EXPECT_EQ(context["messages"][2]["content"], "");
}

TEST(ChatContextTest, OpensArgumentsOfToolCalls) {
  const Json context = Context(R"({"messages":[{"role":"assistant","tool_calls":[
      {"function":{"name":"f","arguments":"{\"b\":1,\"a\":[2]}"}},
      {"function":{"name":"f","arguments":"not json"}},
      {"function":{"name":"f","arguments":"[1]"}},
      {"function":{"name":"f","arguments":{"x":1}}},
      {"function":null}, 7]}]})");
  const Json& calls = context["messages"][0]["tool_calls"];
  EXPECT_EQ(calls[0]["function"]["arguments"].dump(), R"({"b":1,"a":[2]})");
  EXPECT_EQ(calls[1]["function"]["arguments"], "not json");
  EXPECT_EQ(calls[2]["function"]["arguments"], "[1]");
  EXPECT_EQ(calls[3]["function"]["arguments"]["x"], 1);
}

TEST(ChatContextTest, KeywordArgumentsAddAndNeverReplace) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}],)";
  const Json context = Context(messages + R"("chat_template_kwargs":{"enable_thinking":false,
      "add_generation_prompt":false}})");
  EXPECT_EQ(context["enable_thinking"], false);
  EXPECT_EQ(context["add_generation_prompt"], false);
  EXPECT_FALSE(Context(messages + R"("chat_template_kwargs":null})").is_null());
  for (const char* kwargs :
       {R"({"messages":[]})", R"({"tools":[]})", R"({"documents":[]})", R"({"bos_token":"x"})",
        R"({"eos_token":null})", R"({"add_generation_prompt":"<s>"})", "[]", "\"x\""}) {
    const auto refused =
        ChatContext(messages + R"("chat_template_kwargs":)" + kwargs + "}", Template());
    ASSERT_FALSE(refused) << kwargs;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_request);
    EXPECT_EQ(refused.error().param, "chat_template_kwargs");
  }
}

TEST(ChatContextTest, NamesWhatIsWrong) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"([])", "messages"},
      {R"("x")", "messages"},
      {R"({})", "messages"},
      {R"({"messages":{}})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":["x"]})", "messages"},
      {R"({"messages":[{"content":7}]})", "messages"},
      {R"({"messages":[{"content":[{"type":"image_url","image_url":{}}]}]})", "messages"},
      {R"({"messages":[{"content":[7]}]})", "messages"},
      {R"({"messages":[{"content":"x"}],"tools":"x"})", "tools"},
      {R"({"messages":[{"content":"x"}])", ""},
  };
  for (const auto& [text, param] : kCases) {
    const auto refused = ChatContext(text, Template());
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_request) << text;
    EXPECT_EQ(refused.error().param, param) << text;
  }
}

}  // namespace
}  // namespace perdure::worker
