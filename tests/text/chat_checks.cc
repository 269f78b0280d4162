#include "chat_checks.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <ostream>

namespace perdure::text {
namespace {

// Every type that a schema can tell.
constexpr std::string_view kTools = R"([
  {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
    "properties": {
      "place": {"type": "string"}, "days": {"type": "integer"}, "scale": {"type": "number"},
      "exact": {"type": "boolean"}, "where": {"type": "object"}, "list": {"type": "array"},
      "nothing": {"type": "null"}, "maybe": {"type": ["string", "null"]},
      "some": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}}},
  {"type": "function", "function": {"name": "get_time"}},
  {"name": "write-file_2", "parameters": {"type": "object", "properties": {
      "path": {"type": "string"}, "text": {"type": "string"}}}}])";

std::vector<ChatPiece> PiecesOf(ChatParser parser, const std::vector<std::string>& parts) {
  std::vector<ChatPiece> pieces;
  const auto add = [&pieces](std::vector<ChatPiece> more) {
    pieces.insert(pieces.end(), more.begin(), more.end());
  };
  for (const std::string& part : parts) add(parser.Push(part));
  add(parser.Finish());
  return pieces;
}

}  // namespace

void PrintTo(const ReadAnswer& answer, std::ostream* out) {
  *out << "reasoning <" << answer.reasoning << "> content <" << answer.content << ">";
  for (const ReadCall& call : answer.calls)
    *out << " call " << call.name << " <" << call.arguments << ">"
         << (call.complete ? "" : " incomplete");
}

ReadAnswer Join(const std::vector<ChatPiece>& pieces) {
  using Kind = ChatPiece::Kind;
  ReadAnswer answer;
  bool open = false;
  for (const ChatPiece& piece : pieces) {
    EXPECT_EQ(piece.text.empty(), piece.kind == Kind::kCallEnd);
    const bool of_open_call = piece.kind == Kind::kCallArguments || piece.kind == Kind::kCallEnd;
    EXPECT_EQ(of_open_call, open);
    if (of_open_call && answer.calls.empty()) return answer;
    switch (piece.kind) {
      case Kind::kContent:
        answer.content += piece.text;
        break;
      case Kind::kReasoning:
        EXPECT_TRUE(answer.content.empty());
        EXPECT_TRUE(answer.calls.empty());
        answer.reasoning += piece.text;
        break;
      case Kind::kCallBegin:
        EXPECT_EQ(piece.index, static_cast<int>(answer.calls.size()));
        answer.calls.push_back({piece.text, "", false});
        open = true;
        break;
      case Kind::kCallArguments:
        EXPECT_EQ(piece.index, static_cast<int>(answer.calls.size()) - 1);
        answer.calls.back().arguments += piece.text;
        break;
      case Kind::kCallEnd:
        EXPECT_EQ(piece.index, static_cast<int>(answer.calls.size()) - 1);
        answer.calls.back().complete = piece.complete;
        open = false;
        break;
    }
  }
  EXPECT_FALSE(open);
  return answer;
}

ReadAnswer Read(const ChatParserSettings& settings, const std::vector<std::string>& parts) {
  return Join(PiecesOf(ChatParser(settings), parts));
}

ReadAnswer ReadEveryWay(const ChatParserSettings& settings, const std::string& text) {
  const ReadAnswer whole = Read(settings, {text});
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  EXPECT_EQ(Read(settings, bytes), whole) << "byte by byte: " << text;
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      const ReadAnswer cut =
          Read(settings, {text.substr(0, i), text.substr(i, j - i), text.substr(j)});
      EXPECT_EQ(cut, whole) << "cut at " << i << " and " << j << ": " << text;
      if (!(cut == whole)) return whole;
    }
  }
  ChatParser parser(settings);
  std::vector<ChatPiece> before;
  for (size_t i = 0; i <= text.size(); ++i) {
    std::vector<ChatPiece> pieces = before;
    const auto rest = PiecesOf(parser, {text.substr(i)});
    pieces.insert(pieces.end(), rest.begin(), rest.end());
    EXPECT_EQ(Join(pieces), whole) << "copied at " << i << ": " << text;
    if (i == text.size()) break;
    const auto more = parser.Push(text.substr(i, 1));
    before.insert(before.end(), more.begin(), more.end());
  }
  // Whole arguments are what the rest of this program takes for JSON.
  for (const ReadCall& call : whole.calls) {
    if (!call.complete) continue;
    const auto json = ParseJson(call.arguments, "arguments", ErrorCode::internal);
    EXPECT_TRUE(json && json->is_object()) << call.arguments;
  }
  return whole;
}

ChatParserSettings Settings(ToolFormat format, ReasoningTags reasoning, ReasoningStart start) {
  ChatParserSettings settings;
  settings.form = {format, std::move(reasoning)};
  settings.reasoning = start;
  settings.tools = ToolSignatures(*ParseJson(kTools, "tools", ErrorCode::internal));
  return settings;
}

}  // namespace perdure::text
