// In which form a template is handed tool calls.
#include "text/template/tool_call_form.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/file.h"

namespace perdure::text {
namespace {

using EmptyContent = ToolCallForm::EmptyContent;

ToolCallForm FormOf(const std::string& source) {
  const auto chat = ChatTemplate::Parse(source, "t");
  EXPECT_TRUE(chat) << chat.error().message;
  return FindToolCallForm(**chat, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
}

std::string Calls(const std::string& arguments) {
  return "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ " + arguments +
         " }}{% endfor %}";
}

const std::string kLoop = "{% for m in messages %}{{ m.role }}";
const std::string kEnd = "{% endfor %}";

TEST(ToolCallForm, TakesWhatTransformersPassesWhereItCan) {
  const ToolCallForm form =
      FormOf(kLoop + "{{ m.content }}" + Calls("c.function.arguments|tojson") + kEnd);
  EXPECT_EQ(form.empty_content, EmptyContent::kAbsent);
  EXPECT_TRUE(form.takes_empty_text);
  EXPECT_FALSE(form.arguments_as_text);
}

TEST(ToolCallForm, ContentThatMustBeText) {
  const ToolCallForm form =
      FormOf(kLoop + "{{ ': ' + m.content }}" + Calls("c.function.arguments|tojson") + kEnd);
  EXPECT_EQ(form.empty_content, EmptyContent::kText);
  EXPECT_FALSE(form.arguments_as_text);
}

TEST(ToolCallForm, ContentThatMustBeNone) {
  const ToolCallForm form =
      FormOf(kLoop + "{% if m.content is none %}" + Calls("c.function.arguments|tojson") +
             "{% else %}{{ ': ' + m.content }}{% endif %}" + kEnd);
  EXPECT_EQ(form.empty_content, EmptyContent::kNull);
  EXPECT_FALSE(form.takes_empty_text);
}

TEST(ToolCallForm, ContentThatIsPrintedAsNone) {
  // An absent key would be an error here.
  const ToolCallForm form =
      FormOf(kLoop + "{% if m.content is defined %}{{ m.content }}{% else %}{{ m.content.x }}" +
             "{% endif %}" + Calls("c.function.arguments|tojson") + kEnd);
  EXPECT_EQ(form.empty_content, EmptyContent::kText);
}

TEST(ToolCallForm, ArgumentsAsText) {
  EXPECT_TRUE(
      FormOf(kLoop + Calls("'```' + c.function.arguments + '```'") + kEnd).arguments_as_text);
  // Pasted, an object would be printed as Python prints it.
  EXPECT_TRUE(FormOf(kLoop + Calls("c.function.arguments") + kEnd).arguments_as_text);
  EXPECT_FALSE(FormOf(kLoop +
                      Calls("c.function.arguments if c.function.arguments is string else "
                            "c.function.arguments|tojson") +
                      kEnd)
                   .arguments_as_text);
  EXPECT_FALSE(FormOf(kLoop + Calls("c.function.arguments.query") + kEnd).arguments_as_text);
}

TEST(ToolCallForm, TemplatesWithoutToolsGetTheDefaults) {
  for (const std::string& source : {kLoop + "{{ m.content + '' }}" + kEnd,
                                    std::string("{{ raise_exception('no') }}"), std::string()}) {
    const ToolCallForm form = FormOf(source);
    EXPECT_EQ(form.empty_content, EmptyContent::kText);
    EXPECT_TRUE(form.takes_empty_text);
    EXPECT_FALSE(form.arguments_as_text);
  }
}

TEST(ToolCallForm, IdsOfNineCharacters) {
  const std::string calls = Calls("c.function.arguments|tojson");
  EXPECT_FALSE(FormOf(kLoop + calls + kEnd).short_ids);
  EXPECT_TRUE(FormOf(kLoop +
                     "{% for c in m.tool_calls or [] if c.id|length != 9 %}"
                     "{{ raise_exception('9!') }}{% endfor %}" +
                     calls + kEnd)
                  .short_ids);
}

TEST(ToolCallForm, OneCallAMessage) {
  const std::string first =
      "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments|tojson }}{% endif %}";
  EXPECT_TRUE(FormOf(kLoop + first + kEnd).one_call_a_message);
  EXPECT_TRUE(FormOf(kLoop +
                     "{% if m.tool_calls and m.tool_calls|length > 1 %}"
                     "{{ raise_exception('1!') }}{% endif %}" +
                     first + kEnd)
                  .one_call_a_message);
  EXPECT_FALSE(FormOf(kLoop + Calls("c.function.arguments|tojson") + kEnd).one_call_a_message);
}

TEST(ToolCallForm, OfFamilies) {
  struct Row {
    const char* family;
    EmptyContent content;
    bool as_text;
    bool short_ids = false;
    bool one_call = false;
  };
  const Row rows[] = {
      {"qwen3_thinking", EmptyContent::kAbsent, false},
      {"qwen25_tools", EmptyContent::kAbsent, false},
      {"llama31_tools", EmptyContent::kAbsent, false, false, true},
      {"mistral_nemo", EmptyContent::kAbsent, false, true},
      {"deepseek_r1", EmptyContent::kNull, false},
      {"deepseek_v3_tools", EmptyContent::kNull, false},
      {"chatml", EmptyContent::kText, false},
  };
  for (const Row& row : rows) {
    const auto source =
        ReadFile(std::filesystem::path(PERDURE_SOURCE_DIR) /
                     "tests/text/goldens/template/families" / (std::string(row.family) + ".jinja"),
                 size_t{1} << 20);
    ASSERT_TRUE(source) << row.family;
    const ToolCallForm form = FormOf(*source);
    EXPECT_EQ(form.empty_content, row.content) << row.family;
    EXPECT_EQ(form.arguments_as_text, row.as_text) << row.family;
    EXPECT_EQ(form.short_ids, row.short_ids) << row.family;
    EXPECT_EQ(form.one_call_a_message, row.one_call) << row.family;
  }
}

}  // namespace
}  // namespace perdure::text
