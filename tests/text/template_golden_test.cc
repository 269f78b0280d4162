// Byte equality with what transformers' chat-template environment rendered
// (goldens/template/make_goldens.py and fuzz.py).
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "text/template/chat_template.h"

namespace perdure::text {
namespace {

const std::filesystem::path kGoldens =
    std::filesystem::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/template";

Json ReadGolden(const char* name) {
  const auto text = ReadFile(kGoldens / name, size_t{16} << 20);
  EXPECT_TRUE(text) << text.error().message;
  auto json = ParseJson(*text, name, ErrorCode::internal);
  EXPECT_TRUE(json) << json.error().message;
  return std::move(*json);
}

Result<RenderedPrompt> RenderSource(const std::string& source, const Json& context,
                                    int64_t unix_time) {
  ASSIGN_OR_RETURN(const auto chat, ChatTemplate::Parse(source, "golden"));
  return chat->Render(context, {"bos_token", "eos_token"}, unix_time);
}

// A text, {"refused": what raise_exception said}, or null for any other error.
void ExpectSame(const Json& wanted, const Result<RenderedPrompt>& got) {
  if (wanted.is_string()) {
    ASSERT_TRUE(got) << got.error().message;
    EXPECT_EQ(wanted.get<std::string>(), got->text);
    return;
  }
  ASSERT_FALSE(got) << "an error was expected, rendered: " << got->text;
  const std::string refusal = "the model's chat template refuses this conversation: ";
  if (wanted.is_null())
    EXPECT_FALSE(got.error().message.starts_with(refusal)) << got.error().message;
  else
    EXPECT_EQ(refusal + wanted["refused"].get<std::string>(), got.error().message);
}

TEST(TemplateGolden, Families) {
  const Json golden = ReadGolden("families.json");
  size_t count = 0;
  for (const Json& one : golden["cases"]) {
    const std::string family = one[0];
    const std::string conversation = one[1];
    SCOPED_TRACE(family + " with " + conversation);
    const auto source = ReadFile(kGoldens / "families" / (family + ".jinja"), size_t{1} << 20);
    ASSERT_TRUE(source);
    // The context as make_goldens.py builds it.
    Json context = golden["tokens"];
    context.update(golden["conversations"][conversation]);
    if (!context.contains("add_generation_prompt")) context["add_generation_prompt"] = false;
    if (!context.contains("tools")) context["tools"] = nullptr;
    if (!context.contains("documents")) context["documents"] = nullptr;
    ExpectSame(golden["results"][one[2].get<size_t>()],
               RenderSource(*source, context, golden["unix_time"].get<int64_t>()));
    ++count;
  }
  EXPECT_GE(count, 1000u);
}

void ExpectSameCases(const char* name, size_t count_min) {
  const Json golden = ReadGolden(name);
  size_t count = 0;
  for (const Json& one : golden["cases"]) {
    const std::string source = one[0];
    SCOPED_TRACE(source);
    ExpectSame(one[1], RenderSource(source, golden["context"], golden["unix_time"].get<int64_t>()));
    ++count;
  }
  EXPECT_GE(count, count_min);
}

TEST(TemplateGolden, Expressions) { ExpectSameCases("expressions.json", 400); }
TEST(TemplateGolden, RandomTemplates) { ExpectSameCases("fuzz.json", 300); }

}  // namespace
}  // namespace perdure::text
