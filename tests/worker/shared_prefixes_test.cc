#include "worker/shared_prefixes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "engine/kv_view.h"
#include "tests/base/temp_folder.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/ids.h"
#include "tests/worker/pair_tokenizer.h"
#include "worker/chat_context.h"

namespace perdure::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// What the template adds to a system text: "<user>" and "<end>", and the next "<user>".
constexpr size_t kBeside = 3;

const std::string kText = "You are a helpful assistant. Answer in one sentence.";

Json Says(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

class SharedPrefixesTest : public testing::Test {
 protected:
  SharedPrefixesTest() { InitLogging("test", LogLevel::kInfo); }  // to standard error

  // A file with this text; its path.
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = Path(name);
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  std::string Path(const std::string& name) const { return (folder_.path() / name).string(); }

  std::vector<Ids> Prefixes(const std::vector<std::string>& files) {
    testing::internal::CaptureStderr();
    auto prefixes = SharedPrefixes(model_, files);
    log_ = testing::internal::GetCapturedStderr();
    return prefixes;
  }
  Ids PrefixOf(const std::string& text) {
    const auto prefixes = Prefixes({Write("one", text)});
    EXPECT_EQ(prefixes.size(), 1u) << log_;
    return prefixes.empty() ? Ids() : prefixes[0];
  }

  // The tokens of a chat's prompt.
  Ids Prompt(const Json& messages) {
    const auto prompt = RenderConversation(model_.chat, DumpJson({{"messages", messages}}), 0);
    EXPECT_TRUE(prompt) << prompt.error().message;
    return prompt ? *model_.tokenizer->Encode(prompt->prompt.text, prompt->prompt.input) : Ids();
  }
  // That these tokens are what its prompt begins with.
  void ExpectBegins(const Json& messages, const Ids& prefix) {
    const Ids prompt = Prompt(messages);
    ASSERT_GE(prompt.size(), prefix.size()) << messages;
    EXPECT_EQ(First(prompt, prefix.size()), prefix) << messages;
  }
  void ExpectAllBegin(const std::string& system, const Ids& prefix) {
    // Those with which it is found out begin with "1" and "a".
    for (const char* question :
         {"1", "a", "Hi", "b", "0", "2", "", " ", "\n", "<end>", "<user>", "\xC3\xA9"}) {
      ExpectBegins({Says("system", system), Says("user", question)}, prefix);
      ExpectBegins({Says("system", system), Says("user", question), Says("assistant", "Yes."),
                    Says("user", "And?")},
                   prefix);
    }
  }
  void Use(const std::string& source) {
    model_.chat.templates[0].chat = text::ChatTemplate::Parse(source, "test").value();
  }

  const TempFolder folder_;
  Model model_ = MakeFakeModel().model;
  std::string log_;
};

TEST_F(SharedPrefixesTest, AllChatsWithTheTextBeginWithIt) {
  const Ids prefix = PrefixOf(kText);
  EXPECT_EQ(prefix.size(), kText.size() + kBeside);
  ExpectAllBegin(kText, prefix);
  EXPECT_NE(First(Prompt({Says("system", "You."), Says("user", "Hi")}), 6), First(prefix, 6));
}

TEST_F(SharedPrefixesTest, TheTextIsNoTemplatesAndNoSpecialTokens) {
  const std::string text = "Say <end> or <user> {{ messages }} {% if x %}, \"quoted\" \\ or \t.";
  const Ids prefix = PrefixOf(text);
  EXPECT_EQ(prefix.size(), text.size() + kBeside);
  ExpectAllBegin(text, prefix);
}

TEST_F(SharedPrefixesTest, OneNewlineAtTheEndIsNobodys) {
  const Ids prefix = PrefixOf(kText);
  EXPECT_EQ(PrefixOf(kText + "\n"), prefix);
  const Ids with_newline = PrefixOf(kText + "\n\n");
  EXPECT_EQ(with_newline.size(), prefix.size() + 1);
  ExpectAllBegin(kText + "\n", with_newline);
  EXPECT_EQ(PrefixOf("\n" + kText).size(), prefix.size() + 1);
  EXPECT_EQ(PrefixOf(kText + " ").size(), prefix.size() + 1);
}

TEST_F(SharedPrefixesTest, AsTheTemplateShowsIt) {
  Use("<user>{{ messages[0].content | trim | upper }}<end>"
      "{% for m in messages[1:] %}<user>{{ m.content }}<end>{% endfor %}");
  const Ids prefix = PrefixOf("  " + kText + "  ");
  ASSERT_EQ(prefix.size(), kText.size() + kBeside);
  EXPECT_EQ(prefix[1], 'Y');
  EXPECT_EQ(prefix[2], 'O');
  ExpectAllBegin("  " + kText + "  ", prefix);
}

TEST_F(SharedPrefixesTest, TokensThatDependOnTheQuestionAreNotOfIt) {
  // The text's last letter and a question's first one may be one token.
  Use("{{ messages[0].content }}{{ messages[1].content }}<end>");
  model_.tokenizer = std::make_unique<PairTokenizer>();
  std::string text;
  for (int i = 0; i < 40; ++i) text += "ab";
  ASSERT_EQ(PrefixOf(text).size(), 40u);
  const Ids prefix = PrefixOf(text + "c");
  EXPECT_EQ(prefix.size(), 40u);
  for (const char* question : {"1", "a", "z", "Z", "?"})
    ExpectBegins({Says("system", text + "c"), Says("user", question)}, prefix);
}

TEST_F(SharedPrefixesTest, ATemplateThatShowsTheQuestionFirstSharesNothing) {
  Use("{{ messages[1].content }}{{ messages[0].content }}");
  EXPECT_TRUE(Prefixes({Write("one", kText)}).empty());
  EXPECT_THAT(log_, AllOf(HasSubstr(Path("one")), HasSubstr("too short")));
}

TEST_F(SharedPrefixesTest, EachFileHasItsOwnInTheirOrder) {
  const std::string other = "You are a pirate, and whatever is said to you, you say Arrr.";
  const std::string beginning = kText.substr(0, 40);
  const auto prefixes = Prefixes({Write("b", kText), Write("a", other), Write("c", beginning)});
  ASSERT_EQ(prefixes.size(), 3u);
  ExpectAllBegin(kText, prefixes[0]);
  ExpectAllBegin(other, prefixes[1]);
  ExpectAllBegin(beginning, prefixes[2]);
  EXPECT_EQ(prefixes[2].size(), beginning.size() + kBeside);
  EXPECT_TRUE(Prefixes({}).empty());
}

TEST_F(SharedPrefixesTest, LessThanAPageIsTooShort) {
  constexpr size_t kLeast = engine::kPageTokens - kBeside;
  EXPECT_EQ(PrefixOf(std::string(kLeast, 'x')).size(), static_cast<size_t>(engine::kPageTokens));
  EXPECT_THAT(log_, HasSubstr("the first 32 tokens of " + Path("one")));
  // Of more than one just the whole ones are of use.
  PrefixOf(std::string(kLeast + 2 * engine::kPageTokens - 1, 'x'));
  EXPECT_THAT(log_, HasSubstr("the first 64 tokens of " + Path("one")));
  for (const std::string& text : {std::string(kLeast - 1, 'x'), std::string(kLeast - 1, 'x') + "\n",
                                  std::string(), std::string("\n")}) {
    EXPECT_TRUE(Prefixes({Write("one", text)}).empty()) << text.size();
    EXPECT_THAT(log_, AllOf(HasSubstr(Path("one")), HasSubstr("too short")));
  }
}

TEST_F(SharedPrefixesTest, AFileIsBounded) {
  constexpr size_t kMost = limits::kSharedPromptBytesMax;
  EXPECT_EQ(PrefixOf(std::string(kMost, 'x')).size(), kMost + kBeside);
  EXPECT_TRUE(Prefixes({Write("one", std::string(kMost + 1, 'x'))}).empty());
  EXPECT_THAT(log_, AllOf(HasSubstr(Path("one")), HasSubstr("1048576")));
}

TEST_F(SharedPrefixesTest, WhatCannotBeUsedIsLeftOutAndTheOthersAreUsed) {
  std::filesystem::create_directory(Path("folder"));
  const std::vector<std::string> bad = {
      Path("missing"), Write("large", std::string(limits::kSharedPromptBytesMax + 1, 'x')),
      Write("short", "Hi."), Path("folder"),
      // The template does not take this one.
      Write("refused", "!\n")};
  const std::string first = Write("first", kText), last = Write("last", kText + " Always.");
  std::vector<std::string> files = {first};
  files.insert(files.end(), bad.begin(), bad.end());
  files.push_back(last);
  const auto prefixes = Prefixes(files);
  ASSERT_EQ(prefixes.size(), 2u);
  ExpectAllBegin(kText, prefixes[0]);
  ExpectAllBegin(kText + " Always.", prefixes[1]);
  EXPECT_EQ(prefixes[1].size(), kText.size() + 8 + kBeside);
  // The log says of each why; "shared" is said of those that are.
  for (const std::string& file : bad)
    EXPECT_THAT(log_, AllOf(HasSubstr("shared prompt " + file + " is "),
                            Not(HasSubstr("tokens of " + file + " are shared"))));
  EXPECT_THAT(log_, HasSubstr("the template does not like '!'"));
  for (const std::string& file : {first, last})
    EXPECT_THAT(log_, AllOf(HasSubstr("tokens of " + file + " are shared"),
                            Not(HasSubstr("shared prompt " + file))));
}

TEST_F(SharedPrefixesTest, AModelWithoutATemplateSharesNothing) {
  model_.chat.templates.clear();
  EXPECT_TRUE(Prefixes({Write("one", kText), Write("other", kText)}).empty());
  EXPECT_THAT(log_, AllOf(HasSubstr(Path("one")), HasSubstr(Path("other"))));
}

TEST_F(SharedPrefixesTest, ATemplateThatTakesNoSystemMessageSharesNothing) {
  Use("{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}x");
  EXPECT_TRUE(Prefixes({Write("one", kText)}).empty());
  EXPECT_THAT(log_, AllOf(HasSubstr(Path("one")), HasSubstr("no system role")));
}

}  // namespace
}  // namespace perdure::worker
