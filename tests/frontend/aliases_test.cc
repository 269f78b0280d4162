#include "frontend/aliases.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "frontend/model_table.h"
#include "frontend/request_parser.h"
#include "frontend/response_writer.h"

namespace perdure::frontend {
namespace {

ModelAlias Writer() {
  ModelAlias alias;
  alias.name = "writer";
  alias.model = "m";
  alias.temperature = 1.5f;
  alias.top_k = 40;
  alias.max_tokens = 77;
  alias.system_prompt = "You write.";
  alias.chat_template_kwargs = R"({"enable_thinking": false, "style": "plain"})";
  return alias;
}

ParsedRequest Parse(Json body) {
  static const std::vector<ModelAlias> aliases{Writer()};
  const auto parsed = ParseChatRequest(DumpJson(body), {.aliases = aliases});
  EXPECT_TRUE(parsed) << parsed.error().message;
  return parsed.value_or(ParsedRequest());
}
Json Chat(const Json& messages) { return {{"model", "writer"}, {"messages", messages}}; }
Json Hello() { return Json::array({{{"role", "user"}, {"content", "Hello"}}}); }

TEST(Aliases, SayWhatTheRequestDoesNot) {
  ParsedRequest parsed = Parse(Chat(Hello()));
  EXPECT_EQ(parsed.model, "m");
  EXPECT_EQ(parsed.alias, "writer");
  EXPECT_EQ(parsed.generation.sampling.temperature, 1.5f);
  EXPECT_EQ(parsed.generation.sampling.top_k, 40);
  EXPECT_EQ(parsed.generation.sampling.top_p, std::nullopt);
  EXPECT_EQ(parsed.generation.max_tokens, 77);
  Json body = Chat(Hello());
  body["temperature"] = 0;
  body["max_tokens"] = 5;
  parsed = Parse(body);
  EXPECT_EQ(parsed.generation.sampling.temperature, 0.0f);
  EXPECT_EQ(parsed.generation.max_tokens, 5);
  body["model"] = "other";
  parsed = Parse(body);
  EXPECT_EQ(parsed.model, "other");
  EXPECT_EQ(parsed.alias, "");
  EXPECT_EQ(parsed.generation.sampling.top_k, std::nullopt);
}

TEST(Aliases, GoBeforeChatsWithoutASystemMessage) {
  Json chat = Json::parse(Parse(Chat(Hello())).generation.chat_json);
  ASSERT_EQ(chat["messages"].size(), 2u);
  EXPECT_EQ(chat["messages"][0]["role"], "system");
  EXPECT_EQ(chat["messages"][0]["content"], "You write.");
  for (const char* role : {"system", "developer"}) {
    Json messages = Hello();
    messages.insert(messages.begin(), Json({{"role", role}, {"content", "You count."}}));
    chat = Json::parse(Parse(Chat(messages)).generation.chat_json);
    ASSERT_EQ(chat["messages"].size(), 2u) << chat;
    EXPECT_EQ(chat["messages"][0]["content"], "You count.");
  }
  Json body = Chat(Hello());
  body["chat_template_kwargs"] = {{"enable_thinking", true}};
  chat = Json::parse(Parse(body).generation.chat_json);
  EXPECT_EQ(chat["chat_template_kwargs"], (Json{{"enable_thinking", true}, {"style", "plain"}}));
}

TEST(Aliases, AreModelsToClients) {
  ModelTable models;
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  models.Apply(roster);
  models.SetAliases({Writer()});
  ASSERT_TRUE(models.Resolve("writer"));
  EXPECT_EQ((*models.Resolve("writer"))->name, "m");
  EXPECT_NE(models.Resolve("other").error().message.find("m, writer"), std::string::npos);
  const Json list = Json::parse(ModelList(models.models(), models.aliases()));
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][1]["id"], "writer");
  EXPECT_EQ(list["data"][1]["alias_of"], "m");
  EXPECT_FALSE(list["data"][0].contains("alias_of"));
  EXPECT_EQ(Json::parse(ModelObject(models.models()[0], "writer"))["alias_of"], "m");
}

}  // namespace
}  // namespace perdure::frontend
