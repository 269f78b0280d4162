#include "cli/conversations_text.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "cli/json_members.h"
#include "cli/table.h"

namespace perdure::cli {
namespace {

std::string Line(const Json& object, const char* key) { return Printable(TextOf(object, key)); }

// A text with the end of its line; nothing where there is none.
std::string Paragraph(std::string_view text) {
  return text.empty() ? "" : Printable(text, true) + (text.ends_with('\n') ? "" : "\n");
}

// A string, a list of parts with a text each, or whatever else it is.
std::string ContentText(const Json& content) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return DumpJson(content);
  std::string text;
  for (const Json& part : content) {
    if (!text.empty()) text += "\n";
    const auto found = part.is_object() ? part.find("text") : part.end();
    text += found != part.end() && found->is_string() ? found->get<std::string>() : DumpJson(part);
  }
  return text;
}

std::string FormatMessage(const Json& message) {
  if (!message.is_object())
    return Paragraph(message.is_string() ? message.get<std::string>() : DumpJson(message));
  // Plain completions have no roles.
  for (const char* plain : {"prompt", "completion"})
    if (const auto text = message.find(plain); text != message.end() && !message.contains("role"))
      return fmt::format("{}:\n{}", plain,
                         text->is_null() ? "(token ids)\n" : Paragraph(ContentText(*text)));
  std::string text = Line(message, "role");
  if (message.contains("tool_call_id")) text += " " + Line(message, "tool_call_id");
  text += ":\n";
  for (const char* thought : {"reasoning_content", "reasoning"})
    if (const auto it = message.find(thought); it != message.end() && it->is_string())
      text += Paragraph("(thinks) " + it->get<std::string>());
  if (const auto content = message.find("content"); content != message.end())
    text += Paragraph(ContentText(*content));
  for (const Json& call : List(message, "tool_calls")) {
    const Json& function = Member(call, "function");
    text += Paragraph(
        fmt::format("(calls) {} {}", TextOf(function, "name"), TextOf(function, "arguments")));
  }
  return text;
}

}  // namespace

std::string FormatConversations(const Json& list) {
  std::vector<std::vector<std::string>> rows{
      {"ID", "MODEL", "TENANT", "TURNS", "TOKENS", "LAST USED", "USER"}};
  for (const Json& each : List(list, "data"))
    rows.push_back({Line(each, "id"), Line(each, "model"), Line(each, "tenant"),
                    Grouped(Count(each, "turns")), Grouped(Count(each, "tokens")),
                    TimeOf(each, "last_used_at"), Line(each, "user")});
  if (rows.size() == 1) return "no conversations\n";
  return Table(rows) + (IsTrue(list, "has_more") ? "and older ones: see --limit\n" : "");
}

std::string FormatTenants(const Json& list) {
  std::vector<std::vector<std::string>> rows{
      {"TENANT", "MODEL", "CONVERSATIONS", "TOKENS", "LAST USED"}};
  for (const Json& each : List(list, "data"))
    rows.push_back({Line(each, "tenant"), Line(each, "model"),
                    Grouped(Count(each, "conversations")), Grouped(Count(each, "tokens")),
                    TimeOf(each, "last_used_at")});
  return rows.size() == 1 ? "no conversations\n" : Table(rows);
}

std::string FormatSaved(const Json& list) {
  std::vector<std::vector<std::string>> rows{{"NAME", "CONVERSATION", "BYTES", "SAVED"}};
  for (const Json& each : List(list, "data"))
    rows.push_back({Line(each, "name"), Line(each, "id"), Bytes(Count(each, "bytes")),
                    TimeOf(each, "saved_at")});
  return rows.size() == 1 ? "nothing is saved\n" : Table(rows);
}

std::string FormatConversation(const Json& conversation) {
  std::string text = Table({{"id", Line(conversation, "id")},
                            {"tenant", Line(conversation, "tenant")},
                            {"user", Line(conversation, "user")},
                            {"begun", TimeOf(conversation, "created_at")},
                            {"last used", TimeOf(conversation, "last_used_at")},
                            {"turns", Grouped(Count(conversation, "turns"))},
                            {"tokens", Grouped(Count(conversation, "tokens"))},
                            {"cache", Line(Member(conversation, "cache"), "type")}});
  for (const Json& message : List(conversation, "messages")) text += "\n" + FormatMessage(message);
  return text;
}

std::string Summary(const Json& conversation) {
  const uint64_t turns = Count(conversation, "turns");
  return fmt::format("{} of tenant {}: {} turn{}, {} tokens", Line(conversation, "id"),
                     Line(conversation, "tenant"), Grouped(turns), turns == 1 ? "" : "s",
                     Grouped(Count(conversation, "tokens")));
}

}  // namespace perdure::cli
