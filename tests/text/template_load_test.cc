// Where a model's template and special tokens come from.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "text/template/chat_template.h"

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
  static std::string Rendered(const ModelTemplate& model) {
    return (*model.chat).Render(Json::object(), {}, 0)->text;
  }

  std::filesystem::path folder_;
};

TEST_F(ModelTemplateTest, NoTemplate) {
  const auto model = LoadModelTemplate(folder_);
  ASSERT_TRUE(model);
  EXPECT_EQ(model->chat, nullptr);
  EXPECT_EQ(model->bos_token, "");
  Write("tokenizer_config.json", R"({"chat_template": null, "bos_token": null})");
  EXPECT_EQ(LoadModelTemplate(folder_)->chat, nullptr);
}

TEST_F(ModelTemplateTest, Precedence) {
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(Rendered(*LoadModelTemplate(folder_)), "config");
  Write("chat_template.json", R"({"chat_template": "json"})");
  EXPECT_EQ(Rendered(*LoadModelTemplate(folder_)), "json");
  Write("chat_template.jinja", "jinja {{ 1 + 1 }}");
  EXPECT_EQ(Rendered(*LoadModelTemplate(folder_)), "jinja 2");
}

TEST_F(ModelTemplateTest, NamedTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(Rendered(*LoadModelTemplate(folder_)), "d");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}]})");
  const auto without = LoadModelTemplate(folder_);
  ASSERT_FALSE(without);
  EXPECT_EQ(without.error().code, ErrorCode::bad_model);
  EXPECT_NE(without.error().message.find("rag"), std::string::npos);
}

TEST_F(ModelTemplateTest, SpecialTokens) {
  Write("tokenizer_config.json", R"({"bos_token": {"content": "<s>", "lstrip": false}})");
  Write("special_tokens_map.json", R"({"bos_token": "<other>", "eos_token": "</s>"})");
  const auto model = LoadModelTemplate(folder_);
  ASSERT_TRUE(model);
  EXPECT_EQ(model->bos_token, "<s>");
  EXPECT_EQ(model->eos_token, "</s>");
}

TEST_F(ModelTemplateTest, BadFiles) {
  Write("tokenizer_config.json", R"({"chat_template": 5})");
  EXPECT_FALSE(LoadModelTemplate(folder_));
  Write("tokenizer_config.json", R"([)");
  EXPECT_FALSE(LoadModelTemplate(folder_));
  Write("tokenizer_config.json", R"([1])");
  EXPECT_FALSE(LoadModelTemplate(folder_));
  Write("tokenizer_config.json", R"({"chat_template": "{% if %}"})");
  const auto model = LoadModelTemplate(folder_);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, ErrorCode::bad_model);
  EXPECT_NE(model.error().message.find("tokenizer_config.json, line 1"), std::string::npos)
      << model.error().message;
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
