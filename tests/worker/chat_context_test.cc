#include "worker/chat_context.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace perdure::worker {
namespace {

using EmptyContent = text::ToolCallForm::EmptyContent;

text::ModelTemplate Template(const std::string& source = "x", const text::ToolCallForm& form = {}) {
  text::ModelTemplate chat;
  chat.special_tokens = {{"bos_token", "<bos>"}, {"eos_token", "<eos>"}, {"pad_token", "<pad>"}};
  for (const char* name : {"default", "rag"}) {
    text::NamedTemplate entry;
    entry.name = name;
    entry.chat = std::move(*text::ChatTemplate::Parse(source, name));
    entry.tool_calls = form;
    chat.templates.push_back(std::move(entry));
  }
  return chat;
}

Json Variables(const std::string& chat_json, const text::ToolCallForm& form = {}) {
  const text::ModelTemplate chat = Template("x", form);
  auto context = MakeChatContext(chat_json, chat);
  EXPECT_TRUE(context) << context.error().message;
  return context ? context->variables : Json();
}

TEST(ChatContextTest, HasWhatTransformersPasses) {
  const Json context = Variables(R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(context["messages"], Json::parse(R"([{"role":"user","content":"hi"}])"));
  EXPECT_TRUE(context["tools"].is_null());
  EXPECT_TRUE(context["documents"].is_null());
  EXPECT_EQ(context["add_generation_prompt"], true);
  EXPECT_EQ(context["bos_token"], "<bos>");
  EXPECT_EQ(context["eos_token"], "<eos>");
  EXPECT_EQ(context["pad_token"], "<pad>");
  EXPECT_FALSE(context.contains("unk_token"));
}

TEST(ChatContextTest, KeepsToolsInOrderAndDropsAnEmptyList) {
  const Json context =
      Variables(R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"z":1,"a":2}]})");
  EXPECT_EQ(context["tools"].dump(), R"([{"z":1,"a":2}])");
  for (const char* none : {"[]", "null"}) {
    EXPECT_TRUE(Variables(R"({"messages":[{"role":"user","content":"hi"}],"tools":)" +
                          std::string(none) + "}")["tools"]
                    .is_null());
  }
}

TEST(ChatContextTest, MakesContentAString) {
  const Json context = Variables(R"({"messages":[
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","content":null,"tool_calls":[]},
      {"role":"assistant"}]})");
  EXPECT_EQ(context["messages"][0]["content"], "ab");
  EXPECT_EQ(context["messages"][1]["content"], "");
  EXPECT_EQ(context["messages"][2]["content"], "");
}

TEST(ChatContextTest, EmptyContentBesideToolCallsTakesTheTemplatesForm) {
  const std::string call = R"("tool_calls":[{"function":{"name":"f","arguments":"{}"}}]})";
  const std::string request = R"({"messages":[{"role":"assistant",)" + call +
                              R"(,{"role":"assistant","content":null,)" + call +
                              R"(,{"role":"assistant","content":"",)" + call +
                              R"(,{"role":"assistant","content":"x",)" + call + "]}";
  text::ToolCallForm form;
  for (const bool takes_empty_text : {true, false}) {
    form.takes_empty_text = takes_empty_text;
    form.empty_content = EmptyContent::kAbsent;
    Json messages = Variables(request, form)["messages"];
    EXPECT_FALSE(messages[0].contains("content"));
    EXPECT_FALSE(messages[1].contains("content"));
    EXPECT_EQ(messages[2].contains("content"), takes_empty_text);
    EXPECT_EQ(messages[3]["content"], "x");
    form.empty_content = EmptyContent::kNull;
    messages = Variables(request, form)["messages"];
    EXPECT_TRUE(messages[0]["content"].is_null());
    EXPECT_TRUE(messages[1]["content"].is_null());
    EXPECT_EQ(messages[2]["content"].is_null(), !takes_empty_text);
    form.empty_content = EmptyContent::kText;
    messages = Variables(request, form)["messages"];
    for (int i = 0; i < 3; ++i) EXPECT_EQ(messages[i]["content"], "");
  }
}

TEST(ChatContextTest, OpensArgumentsOfToolCalls) {
  const std::string request = R"({"messages":[{"role":"assistant","tool_calls":[
      {"function":{"name":"f","arguments":"{\"b\": 1, \"a\": [2]}"}},
      {"function":{"name":"f","arguments":"not json"}},
      {"function":{"name":"f","arguments":"[1]"}},
      {"function":{"name":"f","arguments":{"x":1}}},
      {"function":{"name":"f","arguments":""}},
      {"function":null}, 7]}]})";
  Json calls = Variables(request)["messages"][0]["tool_calls"];
  EXPECT_EQ(calls[0]["function"]["arguments"].dump(), R"({"b":1,"a":[2]})");
  EXPECT_EQ(calls[1]["function"]["arguments"], "not json");
  EXPECT_EQ(calls[2]["function"]["arguments"], "[1]");
  EXPECT_EQ(calls[3]["function"]["arguments"]["x"], 1);
  EXPECT_EQ(calls[4]["function"]["arguments"], Json::object());
  text::ToolCallForm as_text;
  as_text.arguments_as_text = true;
  calls = Variables(request, as_text)["messages"][0]["tool_calls"];
  // To the letter as the model wrote it.
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"b": 1, "a": [2]})");
  EXPECT_EQ(calls[1]["function"]["arguments"], "not json");
  EXPECT_EQ(calls[3]["function"]["arguments"], R"({"x":1})");
  EXPECT_EQ(calls[4]["function"]["arguments"], "{}");
}

TEST(ChatContextTest, ReasoningHasTheNamesThatTemplatesRead) {
  const Json messages = Variables(R"({"messages":[
      {"role":"assistant","content":"a","reasoning_content":"r"},
      {"role":"assistant","content":"a","reasoning":"r"},
      {"role":"assistant","content":"a","thinking":"t","reasoning":"r"},
      {"role":"assistant","content":"a","reasoning_content":null}]})")["messages"];
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(messages[i]["reasoning_content"], "r");
    EXPECT_EQ(messages[i]["thinking"], "r");
  }
  EXPECT_EQ(messages[2]["reasoning_content"], "t");
  EXPECT_EQ(messages[2]["thinking"], "t");
  EXPECT_EQ(messages[3].dump(), R"({"role":"assistant","content":"a"})");
}

TEST(ChatContextTest, KeywordArgumentsAddAndNeverReplace) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}],)";
  const Json context = Variables(messages + R"("chat_template_kwargs":{"enable_thinking":false,
      "add_generation_prompt":false,"documents":[{"title":"t"}],"unk_token":"<u>",
      "deep":{"list":[1,null]}}})");
  EXPECT_EQ(context["enable_thinking"], false);
  EXPECT_EQ(context["add_generation_prompt"], false);
  EXPECT_EQ(context["documents"][0]["title"], "t");
  EXPECT_EQ(context["deep"].dump(), R"({"list":[1,null]})");
  EXPECT_FALSE(Variables(messages + R"("chat_template_kwargs":null})").is_null());
  const text::ModelTemplate chat = Template();
  for (const char* kwargs :
       {R"({"messages":[]})", R"({"tools":[]})", R"({"documents":{}})", R"({"documents":["x"]})",
        R"({"bos_token":"x"})", R"({"eos_token":null})", R"({"pad_token":"x"})",
        R"({"add_generation_prompt":"<s>"})", R"({"chat_template":1})", R"({"chat_template":""})",
        "[]", "\"x\""}) {
    const auto refused =
        MakeChatContext(messages + R"("chat_template_kwargs":)" + kwargs + "}", chat);
    ASSERT_FALSE(refused) << kwargs;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_request);
    EXPECT_EQ(refused.error().param, "chat_template_kwargs");
  }
}

TEST(ChatContextTest, ATemplateIsChosenByName) {
  const text::ModelTemplate chat = Template();
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}])";
  EXPECT_EQ(MakeChatContext(messages + "}", chat)->chat->name, "default");
  const auto rag =
      MakeChatContext(messages + R"(,"chat_template_kwargs":{"chat_template":"rag"}})", chat);
  ASSERT_TRUE(rag);
  EXPECT_EQ(rag->chat->name, "rag");
  EXPECT_FALSE(rag->variables.contains("chat_template"));
  const auto none = MakeChatContext(
      messages + R"(,"chat_template_kwargs":{"chat_template":"{{ messages }}"}})", chat);
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::unsupported);
  EXPECT_NE(none.error().message.find("it has: default, rag"), std::string::npos);
}

TEST(ChatContextTest, SpecialTokensAreTheTemplatesOwnText) {
  const text::ModelTemplate chat =
      Template("{{ pad_token }}{{ unk_token }}{{ messages[0].content }}{{ eos_token }}");
  const auto prompt = RenderConversation(
      chat,
      R"({"messages":[{"role":"user","content":"<eos>"}],"chat_template_kwargs":{"unk_token":"<u>"}})",
      0);
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_EQ(prompt->prompt.text, "<pad><u><eos><eos>");
  ASSERT_EQ(prompt->prompt.input.size(), 1u);
  EXPECT_EQ(prompt->prompt.input[0].begin, 5u);
  EXPECT_EQ(prompt->prompt.input[0].end, 13u);
}

TEST(ChatContextTest, TheTimeIsTheOneOfTheRequest) {
  const text::ModelTemplate chat = Template("{{ strftime_now('%s') }}");
  const auto prompt =
      RenderConversation(chat, R"({"messages":[{"role":"user","content":"x"}]})", 1'753'900'000);
  ASSERT_TRUE(prompt);
  EXPECT_EQ(prompt->prompt.text, "1753900000");
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
  const text::ModelTemplate chat = Template();
  for (const auto& [text, param] : kCases) {
    const auto refused = MakeChatContext(text, chat);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_request) << text;
    EXPECT_EQ(refused.error().param, param) << text;
  }
}

}  // namespace
}  // namespace perdure::worker
