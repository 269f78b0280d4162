// Calls as Qwen3-Coder writes them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "chat_checks.h"
#include "text/json_escape.h"

namespace perdure::text {
namespace {

std::string Parameter(const std::string& key, const std::string& value) {
  return "<parameter=" + key + ">\n" + value + "\n</parameter>\n";
}
std::string Function(const std::string& name, const std::string& parameters) {
  return "<function=" + name + ">\n" + parameters + "</function>";
}
std::string Tag(const std::string& inner) { return "<tool_call>\n" + inner + "\n</tool_call>"; }

ReadAnswer Reads(const std::string& text) {
  return ReadEveryWay(Settings(ToolFormat::kQwen3Coder), text);
}

// The arguments of one whole call with one parameter.
std::string Argument(const std::string& key, const std::string& value) {
  const ReadAnswer answer = Reads(Tag(Function("get_weather", Parameter(key, value))));
  EXPECT_EQ(answer.content, "");
  EXPECT_EQ(answer.calls.size(), 1u) << value;
  if (answer.calls.empty()) return "";
  EXPECT_TRUE(answer.calls[0].complete);
  const std::string before = "{" + JsonQuoted(key) + ": ";
  EXPECT_TRUE(answer.calls[0].arguments.starts_with(before)) << answer.calls[0].arguments;
  return answer.calls[0].arguments.substr(before.size(),
                                          answer.calls[0].arguments.size() - before.size() - 1);
}

TEST(ChatXml, Calls) {
  const std::string one =
      Tag(Function("get_weather", Parameter("place", "Bern") + Parameter("days", "2")));
  const ReadCall weather = {"get_weather", R"({"place": "Bern", "days": 2})"};
  const ReadCall time = {"get_time", "{}"};
  EXPECT_EQ(Reads(one), (ReadAnswer{"", "", {weather}}));
  EXPECT_EQ(Reads("I look.\n\n" + one + "\n" + Tag(Function("get_time", "")) + "\nDone."),
            (ReadAnswer{"I look.Done.", "", {weather, time}}));
  // Everything in a line.
  EXPECT_EQ(Reads("<tool_call><function=get_weather><parameter=place>Bern</parameter>"
                  "</function></tool_call>"),
            (ReadAnswer{"", "", {{"get_weather", R"({"place": "Bern"})"}}}));
  // Two functions in a tag; no tag; only the closing one; no </function>.
  EXPECT_EQ(Reads(Tag(Function("get_time", "") + "\n" + Function("get_time", ""))),
            (ReadAnswer{"", "", {time, time}}));
  EXPECT_EQ(Reads("So:\n" + Function("get_time", "")), (ReadAnswer{"So:", "", {time}}));
  EXPECT_EQ(Reads(Function("get_time", "") + "\n</tool_call>\n"), (ReadAnswer{"", "", {time}}));
  EXPECT_EQ(Reads("<tool_call>\n<function=get_weather>\n" + Parameter("place", "Bern") +
                  "</tool_call> </tool_call>"),
            (ReadAnswer{"</tool_call>", "", {{"get_weather", R"({"place": "Bern"})"}}}));
  // JSON in the same tags.
  EXPECT_EQ(Reads(Tag(R"({"name": "get_time", "arguments": {}})")), (ReadAnswer{"", "", {time}}));
}

TEST(ChatXml, ValuesByType) {
  EXPECT_EQ(Argument("place", "5"), R"("5")");
  EXPECT_EQ(Argument("place", ""), R"("")");
  EXPECT_EQ(Argument("place", "null"), R"("null")");
  EXPECT_EQ(Argument("place", "a \"b\" \\ \t\r\n\n  c\x01 é 😀\n"),
            R"("a \"b\" \\ \t\r\n\n  c\u0001 é 😀\n")");
  EXPECT_EQ(Argument("unheard_of", "{}"), R"("{}")");
  EXPECT_EQ(Argument("days", " 12 "), "12");
  EXPECT_EQ(Argument("days", "-3.0"), "-3.0");
  EXPECT_EQ(Argument("days", "3.5"), R"("3.5")");
  EXPECT_EQ(Argument("days", "1e2"), R"("1e2")");
  EXPECT_EQ(Argument("days", "many"), R"("many")");
  EXPECT_EQ(Argument("days", ""), R"("")");
  EXPECT_EQ(Argument("days", "007"), R"("007")");
  EXPECT_EQ(Argument("scale", "-2.5e-3"), "-2.5e-3");
  EXPECT_EQ(Argument("scale", "2"), "2");
  EXPECT_EQ(Argument("scale", "2."), R"("2.")");
  EXPECT_EQ(Argument("exact", "true"), "true");
  EXPECT_EQ(Argument("exact", "False"), "false");
  EXPECT_EQ(Argument("exact", "yes"), R"("yes")");
  EXPECT_EQ(Argument("where", "{\"x\": [1, 2]}"), "{\"x\": [1, 2]}");
  EXPECT_EQ(Argument("where", "{'x': 1}"), R"("{'x': 1}")");
  EXPECT_EQ(Argument("where", "[1]"), R"("[1]")");
  EXPECT_EQ(Argument("list", "[\n  \"a\"\n]"), "[\n  \"a\"\n]");
  EXPECT_EQ(Argument("nothing", "None"), "null");
  EXPECT_EQ(Argument("maybe", "null"), "null");
  EXPECT_EQ(Argument("maybe", "nullify"), R"("nullify")");
  EXPECT_EQ(Argument("maybe", "nul"), R"("nul")");
  EXPECT_EQ(Argument("maybe", "5"), R"("5")");
  EXPECT_EQ(Argument("some", "5"), "5");
  EXPECT_EQ(Argument("some", "null"), "null");
  EXPECT_EQ(Argument("some", "x"), R"("x")");
  EXPECT_EQ(Argument("a \"key\"", "v"), R"("v")");
}

TEST(ChatXml, ValuesThatHoldMarkup) {
  EXPECT_EQ(Argument("place", "<parameter=x>\ny\n</parameter>\nz </function> </tool_call>"),
            R"("<parameter=x>\ny\n</parameter>\nz </function> </tool_call>")");
  EXPECT_EQ(Argument("place", "a</parameter></parameter>\n</parameter>\n</param"),
            R"("a</parameter></parameter>\n</parameter>\n</param")");
  EXPECT_EQ(Argument("place", "</parameter>\n  </functions>"), R"("</parameter>\n  </functions>")");
  EXPECT_EQ(Argument("days", "1</parameter>2"), R"("1</parameter>2")");
}

TEST(ChatXml, StringsStream) {
  ChatParser parser(Settings(ToolFormat::kQwen3Coder));
  const auto push = [&parser](const char* text) {
    std::string arguments;
    for (const ChatPiece& piece : parser.Push(text))
      if (piece.kind == ChatPiece::Kind::kCallArguments) arguments += piece.text;
    return arguments;
  };
  EXPECT_EQ(push("<tool_call>\n<function=write-file_2>\n<parameter=text>"), "{\"text\": ");
  EXPECT_EQ(push("\nfirst \"line\"\n"), "\"first \\\"line\\\"");
  EXPECT_EQ(push("second</par"), "\\nsecond");
  EXPECT_EQ(push("rot"), "</parrot");
}

TEST(ChatXml, MalformedCallsAreContent) {
  for (const std::string& text : std::vector<std::string>{
           Tag(Function("none", Parameter("place", "Bern"))), Tag("<function=get_weather"),
           Tag("<function=get_weather>"), Tag("<function=get_weather>\nBern</function>"),
           Tag("<function=get_weather>\n<parameter>\n"), Tag("<func"), Tag("<function=>"),
           Tag("<function=get_weather>\n<parameter="), Tag("<function=get_weather><parameter=>x"),
           Tag("<function=get_weather><parameter=pl\nace>x</parameter></function>"),
           "<function=", "<function=get_time>", "a <function", "<functions=x>",
           "<parameter=x>y</parameter>", "<tool_call>\n<function=get_time>\n</func"}) {
    SCOPED_TRACE(text);
    // All but this one end without </tool_call>, and one without stands for </function>.
    if (text == Tag("<function=get_weather>")) {
      EXPECT_EQ(Reads(text), (ReadAnswer{"", "", {{"get_weather", "{}"}}}));
      continue;
    }
    EXPECT_EQ(Reads(text), (ReadAnswer{text, "", {}}));
  }
  const std::string long_key(300, 'k');
  const std::string text = Tag(Function("get_time", Parameter(long_key, "x")));
  EXPECT_EQ(Read(Settings(ToolFormat::kQwen3Coder), {text}), (ReadAnswer{text, "", {}}));
}

TEST(ChatXml, BreaksBehindTheBeginning) {
  const std::string begin = "<tool_call>\n<function=get_weather>\n";
  const auto cut = [](const std::string& arguments) {
    return ReadAnswer{"", "", {{"get_weather", arguments, false}}};
  };
  EXPECT_EQ(Reads(begin + "<parameter=place>\nBer"), cut("{\"place\": \"Ber"));
  EXPECT_EQ(Reads(begin + "<parameter=place>\nBer\n</para"), cut("{\"place\": \"Ber\\n</para"));
  EXPECT_EQ(Reads(begin + "<parameter=place>\nBern\n</parameter>\n</fun"),
            cut("{\"place\": \"Bern\""));
  EXPECT_EQ(Reads(begin + "<parameter=days>\n12"), cut("{\"days\": 12"));
  EXPECT_EQ(Reads(begin + "<parameter=days>"), cut("{\"days\": "));
  EXPECT_EQ(Reads(begin + Parameter("days", "12") + "<parameter=pla"), cut("{\"days\": 12"));
  // The same parameter again.
  EXPECT_EQ(Reads(begin + Parameter("days", "1") + Parameter("days", "2") + "</function>\n" +
                  "</tool_call>"),
            (ReadAnswer{"<parameter=days>\n2\n</parameter>\n</function>",
                        "",
                        {{"get_weather", "{\"days\": 1", false}}}));
}

}  // namespace
}  // namespace perdure::text
