// Calls as the families' templates write them into a conversation, read again: models write what
// their templates show them.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "chat_checks.h"

namespace perdure::text {
namespace {

struct Row {
  const char* family;
  const char* before;  // what stands before an answer, the last time
  const char* after;   // and behind it
  int calls = 2;
};

constexpr Row kRows[] = {
    {"qwen25_tools", "<|im_start|>assistant", "<|im_end|>"},
    {"hermes_tool_use", "<|im_start|>assistant", "<|im_end|>"},
    {"qwen3_thinking", "<|im_start|>assistant", "<|im_end|>"},
    {"qwen3_coder_xml", "<|im_start|>assistant", "<|im_end|>"},
    {"qwen3_next_vl", "<|im_start|>assistant", "<|im_end|>"},
    {"mistral_nemo", "[/INST]", "</s>"},
    {"mistral_v3_tools", "[/INST]", "</s>"},
    {"devstral", "[/INST]", "</s>"},
    {"ministral_reasoning", "[/INST]", "</s>"},
    {"llama31_tools", "<|end_header_id|>\n\n", "<|eot_id|>", 1},
    {"llama32", "<|end_header_id|>\n\n", "<|eot_id|>", 1},
    // <|python_end|> is a special token, which gives no text.
    {"llama4", "<|header_end|>\n\n", "<|python_end|>"},
};

Json Call(const char* id, const char* name, Json arguments) {
  Json call = {{"id", id}, {"type", "function"}};
  call["function"] = {{"name", name}};
  call["function"]["arguments"] = std::move(arguments);
  return call;
}

TEST(ChatTemplates, WriteCallsThatAreReadAgain) {
  const Json arguments[] = {
      {{"place", "Zürich \"ZH\"\n</tool_response> \\ 😀"}, {"days", 3}, {"where", {{"x", {1, 2}}}}},
      {{"path", "a/b"}, {"text", "line 1\n\tline 2\n"}}};
  for (const Row& row : kRows) {
    SCOPED_TRACE(row.family);
    const auto source =
        ReadFile(std::filesystem::path(PERDURE_SOURCE_DIR) /
                     "tests/text/goldens/template/families" / (std::string(row.family) + ".jinja"),
                 size_t{1} << 20);
    ASSERT_TRUE(source);
    const auto chat = ChatTemplate::Parse(*source, row.family);
    ASSERT_TRUE(chat) << chat.error().message;
    Json calls = Json::array({Call("abcdefghi", "get_weather", arguments[0])});
    if (row.calls == 2) calls.push_back(Call("bcdefghij", "write-file_2", arguments[1]));
    Json context = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    context["messages"] = Json::array(
        {{{"role", "user"}, {"content", "Go."}}, {{"role", "assistant"}, {"tool_calls", calls}}});
    context["tools"] = nullptr;
    context["documents"] = nullptr;
    context["add_generation_prompt"] = false;
    const auto prompt = (*chat)->Render(context, {"bos_token", "eos_token"}, TemplateTime(0));
    ASSERT_TRUE(prompt) << prompt.error().message;
    std::string answer = prompt->text;
    const size_t begin = answer.rfind(row.before);
    ASSERT_NE(begin, std::string::npos) << answer;
    answer.erase(0, begin + std::string(row.before).size());
    const size_t end = answer.find(row.after);
    ASSERT_NE(end, std::string::npos) << answer;
    answer.resize(end);

    const ChatForm form = FindChatForm(*source, "", nullptr);
    const ReadAnswer read = ReadEveryWay(Settings(form.tools, form.reasoning), answer);
    EXPECT_EQ(read.content, "") << answer;
    ASSERT_EQ(read.calls.size(), static_cast<size_t>(row.calls)) << answer;
    for (size_t i = 0; i < read.calls.size(); ++i) {
      EXPECT_EQ(read.calls[i].name, i == 0 ? "get_weather" : "write-file_2");
      EXPECT_TRUE(read.calls[i].complete);
      const auto json = ParseJson(read.calls[i].arguments, "arguments", ErrorCode::internal);
      ASSERT_TRUE(json) << read.calls[i].arguments;
      EXPECT_EQ(*json, arguments[i]) << answer;
    }
  }
}

}  // namespace
}  // namespace perdure::text
