#include "frontend/response_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace perdure::frontend {
namespace {

using protocol::AnswerPart;
using protocol::FinishReason;
using protocol::PartKind;
using protocol::RequestKind;
using protocol::RosterEntry;
using protocol::Usage;

bool IsChat(const AnswerIdentity& identity) { return identity.kind == RequestKind::kChat; }

Json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", int64_t{usage.prompt_tokens} + usage.completion_tokens},
          {"prompt_tokens_details",
           {{"cached_tokens", int64_t{usage.from_arena} + usage.from_snapshot}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

Json TimingsJson(const AnswerEnd& end) {
  const Usage& usage = end.usage;
  auto ms = [](int64_t us) { return static_cast<double>(us) / 1000; };
  auto per_second = [](int64_t count, int64_t us) {
    return us > 0 ? static_cast<double>(count) * 1e6 / static_cast<double>(us) : 0.0;
  };
  Json cache = {{"arena", usage.from_arena},  {"snapshot", usage.from_snapshot},
                {"computed", usage.computed}, {"spliced", end.spliced},
                {"stored", end.stored},       {"type", end.cache_type}};
  if (!end.conversation_id.empty()) cache["conversation_id"] = end.conversation_id;
  if (!end.warnings.empty()) cache["warnings"] = end.warnings;
  return {{"queue_ms", static_cast<double>(end.waited_ms) + ms(usage.queue_us)},
          {"prefill_ms", ms(usage.prefill_us)},
          {"decode_ms", ms(usage.decode_us)},
          {"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"prefill_tokens_per_second", per_second(usage.computed, usage.prefill_us)},
          {"decode_tokens_per_second", per_second(usage.completion_tokens, usage.decode_us)},
          {"cache", std::move(cache)}};
}

std::string_view ReasonName(FinishReason reason) {
  return reason == FinishReason::kLength      ? "\"length\""
         : reason == FinishReason::kToolCalls ? "\"tool_calls\""
                                              : "\"stop\"";
}

// A JSON object as text: what an answer may have much of is not made a DOM.
class ObjectText {
 public:
  ObjectText& Add(std::string_view name, std::string_view json) {
    text_ += text_.size() == 1 ? "\"" : ",\"";
    text_.append(name).append("\":").append(json);
    return *this;
  }
  std::string Text() const { return text_ + '}'; }

 private:
  std::string text_ = "{";
};

std::string Quote(std::string_view text) { return DumpJson(Json(text)); }

ObjectText Header(const AnswerIdentity& identity, bool chunk) {
  ObjectText out;
  out.Add("id",
          fmt::format("\"{}-{:016x}\"", IsChat(identity) ? "chatcmpl" : "cmpl", identity.rid));
  out.Add("object", !IsChat(identity) ? "\"text_completion\""
                    : chunk           ? "\"chat.completion.chunk\""
                                      : "\"chat.completion\"");
  out.Add("created", fmt::format("{}", identity.created_unix));
  out.Add("model", Quote(identity.model));
  return out;
}

std::string Data(const ObjectText& object) { return "data: " + object.Text() + "\n\n"; }

// `content`: the member `delta` of chats, `text` of completions.
ObjectText Chunk(const AnswerIdentity& identity, int index, std::string_view content,
                 std::string_view logprobs, std::string_view finish_reason) {
  ObjectText choice;
  choice.Add("index", fmt::format("{}", index));
  choice.Add(IsChat(identity) ? "delta" : "text", content);
  choice.Add("logprobs", logprobs);
  choice.Add("finish_reason", finish_reason);
  ObjectText out = Header(identity, true);
  out.Add("choices", '[' + choice.Text() + ']');
  if (identity.include_usage) out.Add("usage", "null");
  return out;
}

ObjectText ChoiceEnd(const AnswerIdentity& identity, int choice, FinishReason reason) {
  return Chunk(identity, choice, IsChat(identity) ? "{}" : "\"\"", "null", ReasonName(reason));
}

// Of an answer's parts those of one kind, one behind the other.
std::string TextOf(std::span<const AnswerPart> parts, PartKind kind) {
  std::string text;
  for (const AnswerPart& part : parts)
    if (part.kind == kind) text += part.text;
  return text;
}

// The elements of `tool_calls`; a call's arguments come before the next call.
std::string ToolCalls(const AnswerIdentity& identity, int choice,
                      std::span<const AnswerPart> parts) {
  std::string list, arguments;
  const AnswerPart* begin = nullptr;
  const auto end_call = [&] {
    if (begin == nullptr) return;
    const std::string function =
        ObjectText().Add("name", Quote(begin->text)).Add("arguments", Quote(arguments)).Text();
    list += list.empty() ? "" : ",";
    list += ObjectText()
                .Add("id", Quote(protocol::ToolCallId(identity.rid, choice, begin->call)))
                .Add("type", "\"function\"")
                .Add("function", function)
                .Text();
    arguments.clear();
  };
  for (const AnswerPart& part : parts) {
    if (part.kind == PartKind::kCallArguments) arguments += part.text;
    if (part.kind != PartKind::kCallBegin) continue;
    end_call();
    begin = &part;
  }
  end_call();
  return list;
}

std::string Message(const AnswerIdentity& identity, int choice, std::span<const AnswerPart> parts) {
  const std::string content = TextOf(parts, PartKind::kContent);
  const std::string reasoning = TextOf(parts, PartKind::kReasoning);
  const std::string calls = ToolCalls(identity, choice, parts);
  ObjectText message;
  message.Add("role", "\"assistant\"");
  message.Add("content", content.empty() && !calls.empty() ? "null" : Quote(content));
  if (!reasoning.empty()) message.Add("reasoning_content", Quote(reasoning));
  if (!calls.empty()) message.Add("tool_calls", '[' + calls + ']');
  return message.Add("refusal", "null").Text();
}

// The delta of one part.
std::string Delta(const AnswerIdentity& identity, int choice, const AnswerPart& part) {
  switch (part.kind) {
    case PartKind::kContent:
      return ObjectText().Add("content", Quote(part.text)).Text();
    case PartKind::kReasoning:
      return ObjectText().Add("reasoning_content", Quote(part.text)).Text();
    case PartKind::kCallBegin:
    case PartKind::kCallArguments:
      break;
  }
  ObjectText call, function;
  call.Add("index", fmt::format("{}", part.call));
  if (part.kind == PartKind::kCallBegin) {
    call.Add("id", Quote(protocol::ToolCallId(identity.rid, choice, part.call)));
    call.Add("type", "\"function\"");
    function.Add("name", Quote(part.text)).Add("arguments", "\"\"");
  } else {
    function.Add("arguments", Quote(part.text));
  }
  call.Add("function", function.Text());
  return ObjectText().Add("tool_calls", '[' + call.Text() + ']').Text();
}

Json ModelJson(const RosterEntry& model) {
  Json out = {{"id", model.name},
              {"object", "model"},
              {"created", model.created_unix},
              {"owned_by", "perdure"},
              {"state", ModelStateName(model.state)},
              {"default", model.is_default}};
  if (model.max_context > 0) out["max_context"] = model.max_context;
  return out;
}

}  // namespace

std::string RequestIdText(protocol::RequestId rid) { return fmt::format("req_{:016x}", rid); }

std::string ErrorBody(const Error& error) {
  const ErrorInfo& info = InfoOf(error.code);
  return DumpJson({{"error",
                    {{"message", error.message},
                     {"type", info.openai_type},
                     {"param", error.param.empty() ? Json(nullptr) : Json(error.param)},
                     {"code", info.name}}}});
}

std::string WholeAnswer(const AnswerIdentity& identity, std::span<const WholeChoice> choices,
                        const AnswerEnd& end) {
  std::string list;
  for (const WholeChoice& whole : choices) {
    ObjectText choice;
    choice.Add("index", fmt::format("{}", &whole - choices.data()));
    if (IsChat(identity)) {
      choice.Add("message",
                 Message(identity, static_cast<int>(&whole - choices.data()), whole.part.parts));
    } else {
      choice.Add("text", Quote(TextOf(whole.part.parts, PartKind::kContent)));
    }
    choice.Add("logprobs", whole.part.logprobs);
    choice.Add("finish_reason", ReasonName(whole.reason));
    list += (list.empty() ? "" : ",") + choice.Text();
  }
  ObjectText out = Header(identity, false);
  out.Add("choices", '[' + list + ']');
  out.Add("usage", DumpJson(UsageJson(end.usage)));
  out.Add("timings", DumpJson(TimingsJson(end)));
  return out.Text();
}

std::string StreamStart(const AnswerIdentity& identity, int choices) {
  std::string out;
  if (!IsChat(identity)) return out;
  for (int i = 0; i < choices; ++i)
    out += Data(Chunk(identity, i, R"({"role":"assistant","content":""})", "null", "null"));
  return out;
}

std::string StreamDelta(const AnswerIdentity& identity, int choice,
                        const ChoiceAnswer::Part& part) {
  if (!IsChat(identity))
    return Data(Chunk(identity, choice, Quote(TextOf(part.parts, PartKind::kContent)),
                      part.logprobs, "null"));
  if (part.parts.empty())
    return Data(Chunk(identity, choice, R"({"content":""})", part.logprobs, "null"));
  std::string out;
  for (const AnswerPart& one : part.parts)
    out += Data(Chunk(identity, choice, Delta(identity, choice, one),
                      &one == &part.parts.back() ? part.logprobs : "null", "null"));
  return out;
}

std::string StreamChoiceEnd(const AnswerIdentity& identity, int choice, FinishReason reason) {
  return Data(ChoiceEnd(identity, choice, reason));
}

std::string StreamEnd(const AnswerIdentity& identity, int choice, FinishReason reason,
                      const AnswerEnd& end) {
  ObjectText last = ChoiceEnd(identity, choice, reason);
  std::string out;
  if (identity.include_usage) {
    out = Data(last);
    last = Header(identity, true);
    last.Add("choices", "[]");
    last.Add("usage", DumpJson(UsageJson(end.usage)));
  }
  last.Add("timings", DumpJson(TimingsJson(end)));
  return out + Data(last) + "data: [DONE]\n\n";
}

std::string StreamError(const Error& error) { return "data: " + ErrorBody(error) + "\n\n"; }

namespace {

Json AliasJson(const RosterEntry& model, const std::string& name) {
  Json json = ModelJson(model);
  if (name == model.name) return json;
  json["id"] = name;
  json["default"] = false;
  json["alias_of"] = model.name;
  return json;
}

}  // namespace

std::string ModelList(std::span<const RosterEntry> models, std::span<const ModelAlias> aliases) {
  Json data = Json::array();
  for (const RosterEntry& model : models) data.push_back(ModelJson(model));
  for (const ModelAlias& alias : aliases)
    for (const RosterEntry& model : models)
      if (model.name == alias.model) data.push_back(AliasJson(model, alias.name));
  return DumpJson({{"object", "list"}, {"data", std::move(data)}});
}

std::string ModelObject(const RosterEntry& model, const std::string& name) {
  return DumpJson(AliasJson(model, name));
}

std::string HealthBody(std::string_view status, std::span<const RosterEntry> models) {
  Json states = Json::object();
  for (const RosterEntry& model : models) {
    Json state = {{"state", ModelStateName(model.state)}};
    if (!model.reason.empty()) state["reason"] = model.reason;
    if (model.load_bytes_total > 0 && model.state == protocol::ModelState::kLoading)
      state["load"] = {{"bytes_done", model.load_bytes_done},
                       {"bytes_total", model.load_bytes_total}};
    states[model.name] = std::move(state);
  }
  return DumpJson({{"status", status}, {"models", std::move(states)}});
}

}  // namespace perdure::frontend
