// Calls that are written as JSON: Hermes and Qwen, Mistral and Devstral, Llama 3, plain JSON.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "chat_checks.h"

namespace perdure::text {
namespace {

struct Row {
  std::string text;
  std::string content;
  std::vector<ReadCall> calls;
};

void ExpectRows(const ChatParserSettings& settings, const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SCOPED_TRACE(row.text);
    EXPECT_EQ(ReadEveryWay(settings, row.text), (ReadAnswer{row.content, "", row.calls}));
  }
}

// An answer that is no call at all.
void ExpectContent(const ChatParserSettings& settings, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    SCOPED_TRACE(text);
    EXPECT_EQ(ReadEveryWay(settings, text), (ReadAnswer{text, "", {}}));
  }
}

const std::string kWeather = R"({"place": "Bern", "days": 2})";

std::string Hermes(const std::string& inner) { return "<tool_call>\n" + inner + "\n</tool_call>"; }
std::string Call(const std::string& name, const std::string& arguments) {
  return R"({"name": ")" + name + R"(", "arguments": )" + arguments + "}";
}

TEST(ChatHermes, Calls) {
  const std::string one = Hermes(Call("get_weather", kWeather));
  const std::string two = Hermes(Call("get_time", "{}"));
  const ReadCall weather = {"get_weather", kWeather};
  const ReadCall time = {"get_time", "{}"};
  const std::string odd =
      R"({"text": "a </tool_call> \"q\" \\ \u00e9\ud83d\ude00 é 😀 <tool_call>", "n": {"k": [1, -2.5e3, {"x": null}, true, []]}})";
  ExpectRows(
      Settings(ToolFormat::kHermes),
      {
          {one, "", {weather}},
          {one + "\n" + two, "", {weather, time}},
          {one + two + one, "", {weather, time, weather}},
          {"Looking it up.\n\n" + one, "Looking it up.", {weather}},
          {" \n" + one + " \n", "", {weather}},
          {one + "\nDone, it seems.\n", "Done, it seems.\n", {weather}},
          {"a " + one + " b " + two + " c", "abc", {weather, time}},
          {Hermes(Call("write-file_2", odd)), "", {{"write-file_2", odd}}},
          {Hermes(Call("get_time", "{ }")), "", {{"get_time", "{ }"}}},
          {Hermes(R"({"name": "get_time"})"), "", {time}},
          {Hermes(R"({"name": "get_time", "arguments": null})"), "", {time}},
          {Hermes(R"({"name": "get_time", "arguments": ""})"), "", {time}},
          {Hermes(R"({"arguments": )" + kWeather + R"(, "name": "get_weather"})"), "", {weather}},
          {Hermes(R"({"parameters": {}, "name": "get_\u0074ime"})"), "", {time}},
          {Hermes(R"({"id": 12.5, "x": [{}], "name" : "get_time" , "arguments" : {} , "t": "s"})"),
           "",
           {time}},
          {"<tool_call>" + Call("get_time", "{}") + "</tool_call>", "", {time}},
          // As some models do it.
          {Hermes(Call("get_time", "{}") + "\n" + Call("get_weather", kWeather)),
           "",
           {time, weather}},
          {Hermes("[" + Call("get_time", "{}") + ", " + Call("get_time", "{}") + "]"),
           "",
           {time, time}},
          {"<tool_call>\n" + Call("get_time", "{}"), "", {time}},
          {"<tool_call>\n" + Call("get_time", "{}") + "\n</tool", "</tool", {time}},
      });
}

TEST(ChatHermes, ArgumentsAsText) {
  const auto text = [](const std::string& arguments) {
    return Hermes(R"({"name": "get_weather", "arguments": ")" + arguments + R"("})");
  };
  ExpectRows(Settings(ToolFormat::kHermes),
             {
                 {text(R"({\"place\": \"B\\\"e\\u00e9\u0072n\"})"),
                  "",
                  {{"get_weather", R"({"place": "B\"e\u00e9rn"})"}}},
                 {text(R"( \n{} \t)"), "", {{"get_weather", "{}"}}},
                 {text(R"({\"place\": 1)"), "\"}", {{"get_weather", R"({"place": 1)", false}}},
                 {text(R"({} x)"), "x\"}", {{"get_weather", "{}"}}},
                 {text("{\\q}"), "\\q}\"}", {{"get_weather", "{", false}}},
             });
  ExpectContent(Settings(ToolFormat::kHermes), {text("place"), text("[1]"), text("5")});
}

TEST(ChatHermes, MalformedCallsAreContent) {
  ExpectContent(Settings(ToolFormat::kHermes),
                {
                    Hermes(""),
                    Hermes("get_time"),
                    Hermes("{}"),
                    Hermes("[]"),
                    Hermes("{\"name\": 5}"),
                    Hermes(Call("", "{}")),
                    Hermes(Call("get", "{}")),
                    Hermes(Call("get_time_", "{}")),
                    Hermes(Call("unknown", "{\"a\": \"b\"}")),
                    Hermes(Call("get_time", "[1]")),
                    Hermes(Call("get_time", "5")),
                    Hermes(Call("get_time", "\"x\"")),
                    Hermes(R"({"arguments": {}})"),
                    Hermes(R"({"arguments": {"a": 1, "b": "c)"),
                    Hermes(R"({"name": "get_time", "name": "get_time"})"),
                    Hermes(R"({"arguments": {}, "parameters": {}, "name": "get_time"})"),
                    Hermes(R"({name: "get_time", "arguments": {}})"),
                    Hermes(R"({'name': 'get_time'})"),
                    "<tool_call>",
                    "<tool_call>\n",
                    "<tool_call>\n{\"name\": \"get_time\"",
                    "a <tool_call",
                    "<tool_call",
                    "<tool_cal x",
                    "</tool_call>",
                    "a </tool_call> b",
                    "<",
                    "x <",
                    "<tool_call>\n<tool_cal",
                    "{\"name\": \"get_time\", \"arguments\": {}}",
                    " leading, and trailing \n\n",
                    "",
                    " \n ",
                });
}

TEST(ChatHermes, BreaksBehindTheBeginning) {
  const std::string begin = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": ";
  const ReadCall time = {"get_time", "{}"};
  const std::string next = "\n" + Hermes(Call("get_time", "{}"));
  ExpectRows(Settings(ToolFormat::kHermes),
             {
                 {begin + "{\"place\": \"Be", "", {{"get_weather", "{\"place\": \"Be", false}}},
                 {begin + "{", "", {{"get_weather", "{", false}}},
                 {begin + "{\"place\": nil}}\n</tool_call>",
                  "il}}",
                  {{"get_weather", "{\"place\": n", false}}},
                 {begin + "{\"a\": 1,}}\n</tool_call>" + next,
                  "}}",
                  {{"get_weather", "{\"a\": 1,", false}, time}},
                 {begin + "{\"a\": \"line\nbreak\"}}\n</tool_call>" + next,
                  "break\"}}",
                  {{"get_weather", "{\"a\": \"line", false}, time}},
                 // The outer brace is missing, or there is one too many.
                 {begin + "{}\n</tool_call>" + next, "", {{"get_weather", "{}"}, time}},
                 {begin + "{}}}\n</tool_call>" + next, "}", {{"get_weather", "{}"}, time}},
                 {begin + "{}, \"id\": x", ", \"id\": x", {{"get_weather", "{}"}}},
                 {begin + "{}}\n{\"name\": \"x\"}\n</tool_call>",
                  "{\"name\": \"x\"}",
                  {{"get_weather", "{}"}}},
             });
}

TEST(ChatHermes, FindsACallBehindABrokenOne) {
  const std::string good = Hermes(Call("get_time", "{}"));
  const ReadCall time = {"get_time", "{}"};
  ExpectRows(Settings(ToolFormat::kHermes),
             {
                 {"<tool_call>\n" + good, "<tool_call>", {time}},
                 {"<tool_call>\n{\"name\": " + good, "<tool_call>\n{\"name\":", {time}},
                 {"<tool_call" + good, "<tool_call", {time}},
                 {Hermes(Call("none", "{}")) + "\n" + good, Hermes(Call("none", "{}")), {time}},
                 {"<<<" + good, "<<<", {time}},
             });
}

TEST(ChatHermes, NestsNoDeeperThanItsBound) {
  std::string deep;
  for (int i = 0; i < 63; ++i) deep += "[";
  const std::string arguments = "{\"a\":" + deep + std::string(63, ']') + "}";
  const ChatParserSettings settings = Settings(ToolFormat::kHermes);
  EXPECT_EQ(Read(settings, {Hermes(Call("get_time", arguments))}),
            (ReadAnswer{"", "", {{"get_time", arguments}}}));
  EXPECT_FALSE(
      Read(settings, {Hermes(Call("get_time", "{\"a\":[" + deep + "]}"))}).calls[0].complete);
}

TEST(ChatMistral, Calls) {
  const ReadCall weather = {"get_weather", kWeather};
  const ReadCall time = {"get_time", "{}"};
  const std::string first =
      R"({"name": "get_weather", "arguments": )" + kWeather + R"(, "id": "abcdefghi"})";
  const std::string second = Call("get_time", "{}");
  // Both forms are read whichever the template writes.
  for (const ToolFormat format : {ToolFormat::kMistral, ToolFormat::kDevstral}) {
    ExpectRows(
        Settings(format),
        {
            {"[TOOL_CALLS][" + first + "]", "", {weather}},
            {"[TOOL_CALLS] [" + first + ", " + second + "]", "", {weather, time}},
            {"I look.\n[TOOL_CALLS][" + second + "]\n", "I look.", {time}},
            {"[TOOL_CALLS]" + second, "", {time}},
            {"[TOOL_CALLS][" + second + "] and so on", "and so on", {time}},
            {"[TOOL_CALLS][" + second, "", {time}},
            {"[TOOL_CALLS][" + second + ",", "", {time}},
            {"[TOOL_CALLS][" + second + ", {\"name\"", ", {\"name\"", {time}},
            {"[TOOL_CALLS][" + second + ", 5]", ", 5]", {time}},
            {"[TOOL_CALLS][" + second + " x]", "x]", {time}},
            {"[TOOL_CALLS]get_weather[ARGS]" + kWeather, "", {weather}},
            {"Ok.[TOOL_CALLS]get_weather[ARGS]" + kWeather + "[TOOL_CALLS]get_time[ARGS]{}",
             "Ok.",
             {weather, time}},
            {"[TOOL_CALLS]get_time[CALL_ID]abc123XYZ[ARGS] {}\n", "", {time}},
            {"[TOOL_CALLS]get_time{} Then.", "Then.", {time}},
            {"[TOOL_CALLS] get_time [ARGS]\n{}", "", {time}},
            {"[TOOL_CALLS]write-file_2[ARGS]{\"text\": \"[TOOL_CALLS]get_time[ARGS]{}\"}",
             "",
             {{"write-file_2", "{\"text\": \"[TOOL_CALLS]get_time[ARGS]{}\"}"}}},
            {"[TOOL_CALLS]get_time[ARGS]{\"a\": tru", "", {{"get_time", "{\"a\": tru", false}}},
            {"[TOOL_CALLS]get_time[ARGS]{\"a\": t]}", "]}", {{"get_time", "{\"a\": t", false}}},
            {"[TOOL_CALLS][TOOL_CALLS][" + second + "]", "[TOOL_CALLS]", {time}},
            {"[TOOL_[TOOL_CALLS]get_time{}", "[TOOL_", {time}},
        });
    ExpectContent(Settings(format), {
                                        "[TOOL_CALLS]",
                                        "[TOOL_CALLS][]",
                                        "[TOOL_CALLS]none[ARGS]{}",
                                        "[TOOL_CALLS]get_time",
                                        "[TOOL_CALLS]get_time[ARGS]",
                                        "[TOOL_CALLS]get_time[ARGS]5",
                                        "[TOOL_CALLS]get_time[ARGS",
                                        "[TOOL_CALLS]get_time[X]{}",
                                        "[TOOL_CALLS]get_time[CALL_ID]a",
                                        "[TOOL_CALLS]get_time[CALL_ID]a{}",
                                        "[TOOL_CALLS]get_time[CALL_ID]a[CALL_ID]b[ARGS]{}",
                                        "[TOOL_CALLS][" + Call("none", "{}") + "]",
                                        "[TOOL_CALLS][" + first.substr(0, 30),
                                        "a [TOOL_CALL] b",
                                        "[TOOL_",
                                        "[ARGS]",
                                        "[1, 2]",
                                    });
  }
}

TEST(ChatLlama3, Calls) {
  const std::string weather_text = R"({"name": "get_weather", "parameters": )" + kWeather + "}";
  const std::string time_text = R"({"type": "function", "name": "get_time", "parameters": {}})";
  const ReadCall weather = {"get_weather", kWeather};
  const ReadCall time = {"get_time", "{}"};
  ExpectRows(Settings(ToolFormat::kLlama3),
             {
                 {weather_text, "", {weather}},
                 {"\n\n" + weather_text + "\n", "", {weather}},
                 {"<|python_tag|>" + weather_text, "", {weather}},
                 {weather_text + "; " + time_text, "", {weather, time}},
                 {weather_text + ";\n<|python_tag|>" + time_text, "", {weather, time}},
                 {"<|python_tag|> " + weather_text + ";" + time_text + ";", "", {weather, time}},
                 {weather_text + "\n" + time_text, "", {weather, time}},
                 {"[" + weather_text + ", " + time_text + "]", "", {weather, time}},
                 {weather_text + "\n\nThat is it.", "That is it.", {weather}},
                 {weather_text + "; {\"no\": 1}", "; {\"no\": 1}", {weather}},
                 {weather_text + ";;", ";;", {weather}},
                 {weather_text + "<|python", "<|python", {weather}},
             });
  ExpectContent(Settings(ToolFormat::kLlama3), {
                                                   "Hello {\"name\": \"get_time\"}",
                                                   "<|python_tag|>brave_search.call(query=\"x\")",
                                                   "<|python_tag|>print(1)\n",
                                                   "<|python_",
                                                   "<|py x",
                                                   "<b>",
                                                   "{",
                                                   "  [",
                                                   "```json\n" + weather_text + "\n```",
                                               });
}

TEST(ChatJson, Calls) {
  const std::string one = Call("get_weather", kWeather);
  const ReadCall weather = {"get_weather", kWeather};
  ExpectRows(Settings(ToolFormat::kJson),
             {
                 {one, "", {weather}},
                 {"[" + one + "," + one + "]\n", "", {weather, weather}},
                 {"```json\n" + one + "\n```", "", {weather}},
                 {"```\n[" + one + "]\n```\n", "", {weather}},
                 {"```json" + one + "```\nSo.", "So.", {weather}},
                 {one + "``", "``", {weather}},
                 {"```json\n" + one + "\n``", "``", {weather}},
             });
}

TEST(ChatJson, OtherJsonIsContentAsItIs) {
  ExpectContent(Settings(ToolFormat::kJson), {
                                                 "{}",
                                                 "[]",
                                                 "[1, 2, 3]",
                                                 "{\"a\": 1}",
                                                 "  {\"name\": \"Anna\", \"age\": 7}\n\n",
                                                 "{\"name\": \"get_weathers\"}",
                                                 "{\"name\": \"get_time\", \"age\": 7}",
                                                 "[{\"x\": {}}]",
                                                 "```json\n{\"a\": 1}\n```\n",
                                                 "```\ncode\n```",
                                                 "```python\nx\n```",
                                                 "``",
                                                 "```json",
                                                 "```js",
                                                 "5",
                                                 "\"text\"",
                                                 "\n\n",
                                                 "{\"name\": \"get_time\", \"arguments\": [1]}",
                                                 "{\"id\": 7, \"name\": \"x\"}",
                                                 "<|python_tag|>{\"name\": \"get_time\"}",
                                             });
}

// From where it is certain that an answer is none.
TEST(ChatJson, OtherJsonStreams) {
  ChatParser parser(Settings(ToolFormat::kJson));
  EXPECT_EQ(Join(parser.Push("{\"na")).content, "");
  EXPECT_EQ(Join(parser.Push("me\": \"Jo")).content, "{\"name\": \"Jo");
  EXPECT_EQ(Join(parser.Push("hn")).content, "hn");
  EXPECT_EQ(Join(ChatParser(Settings(ToolFormat::kJson)).Push("{\"answer\":")).content,
            "{\"answer\":");
}

TEST(ChatParser, ArgumentsStreamWithEachText) {
  ChatParser parser(Settings(ToolFormat::kHermes));
  using Kind = ChatPiece::Kind;
  EXPECT_TRUE(parser.Push("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": ").empty());
  EXPECT_EQ(parser.Push("{\"pl"), (std::vector<ChatPiece>{
                                      {Kind::kCallBegin, 0, "get_weather", true},
                                      {Kind::kCallArguments, 0, "{\"pl", true},
                                  }));
  EXPECT_EQ(parser.Push("ace\": \"B"),
            (std::vector<ChatPiece>{{Kind::kCallArguments, 0, "ace\": \"B", true}}));
  EXPECT_EQ(parser.calls(), 0);
  EXPECT_EQ(parser.Push("\"}}"), (std::vector<ChatPiece>{
                                     {Kind::kCallArguments, 0, "\"}", true},
                                     {Kind::kCallEnd, 0, "", true},
                                 }));
  EXPECT_EQ(parser.calls(), 1);
  EXPECT_TRUE(parser.Push("\n</tool_call>").empty());
  EXPECT_TRUE(parser.Finish().empty());
}

TEST(ChatParser, WithoutToolsMarkupOfCallsIsContent) {
  for (const ToolFormat format :
       {ToolFormat::kNone, ToolFormat::kHermes, ToolFormat::kQwen3Coder, ToolFormat::kMistral,
        ToolFormat::kDevstral, ToolFormat::kLlama3, ToolFormat::kJson}) {
    ChatParserSettings settings = Settings(format, kThink);
    settings.tools.clear();
    const std::string text =
        " a\n" + Hermes(Call("get_time", "{}")) + "[TOOL_CALLS]get_time[ARGS]{}\n";
    EXPECT_EQ(ReadEveryWay(settings, text), (ReadAnswer{text, "", {}}));
    // Nothing is held back.
    ChatParser parser(settings);
    EXPECT_EQ(Join(parser.Push("a <tool_call> \n")).content, "a <tool_call> \n");
  }
}

}  // namespace
}  // namespace perdure::text
