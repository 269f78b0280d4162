// An answer as content, reasoning and calls. The first byte is the format, the second how the
// prompt ended and where the answer is cut.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "fuzz_target.h"
#include "text/chat/chat_parser.h"
#include "text/output/utf8_assembler.h"

namespace perdure::text {
namespace {

using Kind = ChatPiece::Kind;

constexpr std::string_view kTools = R"([
  {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
    "s": {"type": "string"}, "i": {"type": "integer"}, "o": {"type": "object"},
    "n": {"type": ["string", "null"]}, "b": {"type": "boolean"}}}}},
  {"type": "function", "function": {"name": "get_time"}}])";

ChatParserSettings SettingsOf(unsigned char format, unsigned char start) {
  static const std::vector<ToolSignature> tools =
      ToolSignatures(*ParseJson(kTools, "tools", ErrorCode::internal));
  ChatParserSettings settings;
  settings.form.tools = static_cast<ToolFormat>(format % 7);
  if (format / 7 % 2 == 1) settings.form.reasoning = {"<think>", "</think>"};
  settings.reasoning = static_cast<ReasoningStart>(start % 3);
  settings.tools = tools;
  return settings;
}

// Joins neighbours of one kind: where pieces meet depends on where the text was cut.
void Add(std::vector<ChatPiece> more, std::vector<ChatPiece>* pieces) {
  for (ChatPiece& piece : more) {
    const bool joins = !pieces->empty() && pieces->back().kind == piece.kind &&
                       pieces->back().index == piece.index && piece.kind != Kind::kCallBegin &&
                       piece.kind != Kind::kCallEnd;
    if (joins)
      pieces->back().text += piece.text;
    else
      pieces->push_back(std::move(piece));
  }
}

std::vector<ChatPiece> Pieces(const ChatParserSettings& settings, std::string_view text,
                              size_t step) {
  ChatParser parser(settings);
  std::vector<ChatPiece> pieces;
  for (size_t at = 0; at < text.size(); at += step) {
    Add(parser.Push(text.substr(at, step)), &pieces);
    // A copy goes on where its original was.
    if (at / step % 64 == 7) parser = ChatParser(parser);
  }
  Add(parser.Finish(), &pieces);
  return pieces;
}

std::string WithoutSpace(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') out += c;
  return out;
}

bool IsSubsequence(std::string_view part, std::string_view whole) {
  size_t at = 0;
  for (const char c : whole)
    if (at < part.size() && part[at] == c) ++at;
  return at == part.size();
}

// Digits whose value no double can hold are JSON, but not for the library.
bool HasHugeNumber(std::string_view json) {
  size_t digits = 0;
  for (const char c : json) {
    digits = c >= '0' && c <= '9' ? digits + 1 : (c == '.' ? digits : 0);
    if (digits > 300 || ((c == 'e' || c == 'E') && digits == 0)) {
      const size_t at = json.find_first_of("eE");
      if (digits > 300 || at != std::string_view::npos) return true;
    }
  }
  return false;
}

// In order: begin, arguments, end. Gives what was told of each kind.
void CheckPieces(const ChatParserSettings& settings, const std::vector<ChatPiece>& pieces,
                 std::string_view text) {
  std::string told;  // content and reasoning
  std::string arguments;
  int open = -1;
  int calls = 0;
  for (const ChatPiece& piece : pieces) {
    CHECK(piece.text.empty() == (piece.kind == Kind::kCallEnd));
    switch (piece.kind) {
      case Kind::kContent:
      case Kind::kReasoning:
        CHECK(open < 0);
        told += piece.text;
        break;
      case Kind::kCallBegin:
        CHECK(open < 0 && piece.index == calls);
        CHECK(FindTool(settings.tools, piece.text) != nullptr);
        open = calls++;
        arguments.clear();
        break;
      case Kind::kCallArguments:
        CHECK(piece.index == open);
        arguments += piece.text;
        CHECK(arguments.front() == '{');
        break;
      case Kind::kCallEnd:
        CHECK(piece.index == open);
        CHECK(!piece.complete || HasHugeNumber(arguments) || Json::accept(arguments));
        open = -1;
        break;
    }
  }
  CHECK(open < 0);
  CHECK(IsSubsequence(told, text));
  if (calls > 0) return;
  // Nothing is lost but a pair of tags and white space.
  std::string all = WithoutSpace(text);
  const std::string kept = WithoutSpace(told);
  if (kept == all) return;
  CHECK(!settings.form.reasoning.none());
  for (const std::string_view tag : {"<think>", "</think>"}) {
    if (const size_t at = all.find(tag); at != std::string::npos) {
      all.erase(at, tag.size());
      if (all == kept) return;
    }
  }
  // Begun by the prompt, only the closing one is dropped.
  std::string closed = WithoutSpace(text);
  const size_t at = closed.find("</think>");
  CHECK(at != std::string::npos);
  closed.erase(at, 8);
  CHECK(closed == kept);
}

}  // namespace

FUZZ_TARGET(tool_call) {
  if (input.size() < 2) return;
  const auto format = static_cast<unsigned char>(input[0]);
  const auto how = static_cast<unsigned char>(input[1]);
  const ChatParserSettings settings = SettingsOf(format, how);
  std::string text;
  Utf8Assembler characters;
  characters.Push(input.substr(2), &text);
  characters.Finish(&text);
  const std::vector<ChatPiece> whole = Pieces(settings, text, text.size() + 1);
  CHECK(Pieces(settings, text, 1) == whole);
  CHECK(Pieces(settings, text, 2u + how / 3u) == whole);
  CheckPieces(settings, whole, text);
}

}  // namespace perdure::text
