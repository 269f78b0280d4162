// Where a model's template and special tokens come from.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "text/template/model_template.h"

namespace perdure::text {
namespace {

class ModelTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              (std::string("perdure_template_") + info->name() + "_" +
               std::to_string(std::random_device{}()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  // What is chosen, rendered; or the error.
  std::string Rendered(std::string_view name = "", bool has_tools = false) {
    const auto model = LoadModelTemplate(folder_);
    if (!model) return "load: " + model.error().message;
    const auto chosen = model->Choose(name, has_tools);
    if (!chosen) return "choose: " + chosen.error().message;
    return (*chosen)->chat->Render(Json::object(), {}, 0)->text;
  }

  std::filesystem::path folder_;
};

TEST_F(ModelTemplateTest, NoTemplate) {
  const auto model = LoadModelTemplate(folder_);
  ASSERT_TRUE(model);
  EXPECT_TRUE(model->templates.empty());
  EXPECT_EQ(model->SpecialToken("bos_token"), "");
  EXPECT_EQ(model->Choose("", false).error().code, ErrorCode::unsupported);
  Write("tokenizer_config.json", R"({"chat_template": null, "bos_token": null})");
  EXPECT_TRUE(LoadModelTemplate(folder_)->templates.empty());
}

TEST_F(ModelTemplateTest, Precedence) {
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(Rendered(), "config");
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Rendered(), "json");
  Write("chat_template.jinja", "jinja {{ 1 + 1 }}");
  EXPECT_EQ(Rendered(), "jinja 2");
  EXPECT_EQ(Rendered("", true), "jinja 2");
}

TEST_F(ModelTemplateTest, NamedTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"},
            {"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(Rendered(), "d");
  EXPECT_EQ(Rendered("", true), "t");
  EXPECT_EQ(Rendered("rag"), "r");
  EXPECT_EQ(Rendered("rag", true), "r");
  EXPECT_EQ(Rendered("nope"),
            "choose: the model has no chat template named 'nope'; it has: rag, default, tool_use");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}]})");
  EXPECT_EQ(Rendered(), "choose: the model has no chat template named 'default'; it has: rag");
  EXPECT_EQ(Rendered("rag"), "r");
}

TEST_F(ModelTemplateTest, FolderOfTemplates) {
  std::filesystem::create_directories(folder_ / "additional_chat_templates");
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  Write("chat_template.jinja", "main");
  Write("additional_chat_templates/tool_use.jinja", "tools");
  Write("additional_chat_templates/a.b.jinja", "ab");
  Write("additional_chat_templates/readme.md", "{% if %}");
  EXPECT_EQ(Rendered(), "main");
  EXPECT_EQ(Rendered("", true), "tools");
  EXPECT_EQ(Rendered("a.b"), "ab");
  // Files win over the config, even where they have no default.
  std::filesystem::remove(folder_ / "chat_template.jinja");
  EXPECT_EQ(Rendered(),
            "choose: the model has no chat template named 'default'; it has: a.b, tool_use");
}

TEST_F(ModelTemplateTest, SpecialTokens) {
  Write(
      "tokenizer_config.json",
      R"({"bos_token": {"content": "<s>", "lstrip": false}, "pad_token": "<pad>", "unk_token": null})");
  Write(
      "special_tokens_map.json",
      R"({"bos_token": "<other>", "eos_token": {"content": "</s>"}, "additional_special_tokens": ["x"]})");
  const auto model = LoadModelTemplate(folder_);
  ASSERT_TRUE(model);
  const std::map<std::string, std::string> expected = {
      {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"pad_token", "<pad>"}};
  EXPECT_EQ(model->special_tokens, expected);
  EXPECT_EQ(model->SpecialToken("eos_token"), "</s>");
  EXPECT_EQ(model->SpecialToken("unk_token"), "");
}

TEST_F(ModelTemplateTest, BadFiles) {
  for (const char* config : {R"({"chat_template": 5})", "[", "[1]", R"({"chat_template": [5]})",
                             R"({"chat_template": [{"name": "x"}]})"}) {
    Write("tokenizer_config.json", config);
    const auto model = LoadModelTemplate(folder_);
    ASSERT_FALSE(model) << config;
    EXPECT_EQ(model.error().code, ErrorCode::bad_model);
  }
}

TEST_F(ModelTemplateTest, ATemplateThatDoesNotParseLeavesTheOthers) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "\n{% if %}"}, {"name": "rag", "template": "r"}]})");
  EXPECT_EQ(Rendered("rag"), "r");
  EXPECT_EQ(Rendered(),
            "choose: the model's chat template cannot be used: chat template "
            "(tokenizer_config.json, \"default\"), line 2: expected an expression, found '%}'; use "
            "/v1/completions with the whole prompt, or put a chat_template.jinja into the model's "
            "folder");
  const auto model = LoadModelTemplate(folder_);
  EXPECT_EQ(model->Choose("", false).error().code, ErrorCode::unsupported);
}

TEST(ChatTemplate, RendersFromSeveralThreads) {
  const auto chat = ChatTemplate::Parse(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}"
      "{{ m.content|upper }}{% endfor %}{{ ns.n }}{{ strftime_now('%Y') }}",
      "t");
  ASSERT_TRUE(chat);
  const Json context = {{"messages", {{{"content", "a"}}, {{"content", "b"}}}}};
  std::vector<std::thread> threads;
  std::vector<std::string> texts(4);
  for (std::string& text : texts) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) text = (*chat)->Render(context, {}, 0)->text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& text : texts) EXPECT_EQ(text, "AB31970");
}

}  // namespace
}  // namespace perdure::text
