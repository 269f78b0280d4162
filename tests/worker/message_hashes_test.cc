#include "worker/message_hashes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"

namespace perdure::worker {
namespace {

template <class... Messages>
std::vector<uint64_t> Hashes(const Messages&... messages) {
  return MessageHashes(DumpJson({{"messages", Json::array({messages...})}}));
}
Json Says(const std::string& role, const Json& content) {
  return {{"role", role}, {"content", content}};
}
const Json kUser = Says("user", "Hi"), kAnswer = Says("assistant", "Hello!");

TEST(MessageHashesTest, AnAnswerSentBackIsTheOneThatWasGiven) {
  auto given = Hashes(kUser);
  AddAnswer({.content = "<think>Hm.</think>\n\nHello!\n"}, &given);
  EXPECT_EQ(given, Hashes(kUser, kAnswer));
}

TEST(MessageHashesTest, CallsCountByNameAndArgumentsHoweverTheyAreSpelled) {
  const auto calling = [](const std::string& id, const std::string& name, const Json& arguments) {
    return Json{{"role", "assistant"},
                {"content", nullptr},
                {"reasoning_content", "Hm."},
                {"tool_calls",
                 {{{"id", id},
                   {"type", "function"},
                   {"function", {{"name", name}, {"arguments", arguments}}}}}}};
  };
  auto given = Hashes(kUser);
  AddAnswer({.reasoning = "Hm.", .calls = {{"find", "{\"a\": [1, 2]}"}}}, &given);
  EXPECT_EQ(given, Hashes(kUser, calling("x", "find", "{\"a\":[1,2]}")));
  EXPECT_EQ(given, Hashes(kUser, calling("y", "find", Json{{"a", {1, 2}}})));
  EXPECT_NE(given, Hashes(kUser, calling("x", "find", "{\"a\":[1,3]}")));
  EXPECT_NE(given, Hashes(kUser, calling("x", "tell", "{\"a\":[1,2]}")));
  EXPECT_NE(given, Hashes(kUser, Says("assistant", "")));
  // What is no JSON is what it is.
  EXPECT_NE(Hashes(kUser, calling("x", "find", "{\"a\":")),
            Hashes(kUser, calling("x", "find", "{\"b\":")));
}

TEST(MessageHashesTest, EachCountsAllBefore) {
  const auto one = Hashes(kUser, kAnswer);
  const auto other = Hashes(Says("user", "Bye"), kAnswer);
  ASSERT_EQ(one.size(), 2u);
  EXPECT_NE(one[0], other[0]);
  EXPECT_NE(one[1], other[1]);
  EXPECT_NE(Hashes(Says("assistant", "Hi")), Hashes(kUser));
}

TEST(MessageHashesTest, SystemMessagesCountWithoutHashesOfTheirOwn) {
  const auto brief = Hashes(Says("system", "Be brief."), kUser);
  EXPECT_EQ(brief.size(), 1u);
  EXPECT_NE(brief, Hashes(kUser));
  EXPECT_NE(brief, Hashes(Says("system", "Be long."), kUser));
  EXPECT_EQ(Hashes(kUser, Says("system", "Now be brief.")).size(), 2u);
}

TEST(MessageHashesTest, PartsAreTheirText) {
  const Json parts = Json::array({Json{{"type", "text"}, {"text", "H"}}, Json{{"text", "i"}}});
  EXPECT_EQ(Hashes(Says("user", parts)), Hashes(kUser));
}

TEST(MessageHashesTest, WhatIsNoChatHasNone) {
  auto none = MessageHashes("");
  EXPECT_TRUE(none.empty());
  AddAnswer({.content = "Hello!"}, &none);
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(MessageHashes("{").empty());
}

}  // namespace
}  // namespace perdure::worker
