#include "frontend/response_writer.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace perdure::frontend {
namespace {

using protocol::FinishReason;
using protocol::RequestKind;
using protocol::RosterEntry;
using protocol::Usage;

bool IsChat(const AnswerIdentity& identity) { return identity.kind == RequestKind::kChat; }

Json UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", int64_t{usage.prompt_tokens} + usage.completion_tokens},
          {"prompt_tokens_details",
           {{"cached_tokens", int64_t{usage.from_arena} + usage.from_snapshot}}}};
}

Json TimingsJson(const AnswerEnd& end) {
  const Usage& usage = end.usage;
  auto ms = [](int64_t us) { return static_cast<double>(us) / 1000; };
  auto per_second = [](int64_t count, int64_t us) {
    return us > 0 ? static_cast<double>(count) * 1e6 / static_cast<double>(us) : 0.0;
  };
  return {{"queue_ms", static_cast<double>(end.waited_ms) + ms(usage.queue_us)},
          {"prefill_ms", ms(usage.prefill_us)},
          {"decode_ms", ms(usage.decode_us)},
          {"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"prefill_tokens_per_second", per_second(usage.computed, usage.prefill_us)},
          {"decode_tokens_per_second", per_second(usage.completion_tokens, usage.decode_us)},
          {"cache",
           {{"arena", usage.from_arena},
            {"snapshot", usage.from_snapshot},
            {"computed", usage.computed}}}};
}

std::string_view ReasonName(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

Json Header(const AnswerIdentity& identity, bool chunk) {
  Json out = Json::object();
  out["id"] = fmt::format("{}-{:016x}", IsChat(identity) ? "chatcmpl" : "cmpl", identity.rid);
  out["object"] = !IsChat(identity) ? "text_completion"
                  : chunk           ? "chat.completion.chunk"
                                    : "chat.completion";
  out["created"] = identity.created_unix;
  out["model"] = identity.model;
  return out;
}

std::string Data(const Json& json) { return "data: " + DumpJson(json) + "\n\n"; }

// `content` is the delta object for chat and the text for completions.
Json ChunkJson(const AnswerIdentity& identity, Json content, Json finish_reason) {
  Json out = Header(identity, true);
  Json choice = {{"index", 0}};
  choice[IsChat(identity) ? "delta" : "text"] = std::move(content);
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = std::move(finish_reason);
  out["choices"] = Json::array({std::move(choice)});
  if (identity.include_usage) out["usage"] = nullptr;
  return out;
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

std::string WholeAnswer(const AnswerIdentity& identity, std::string_view text,
                        const AnswerEnd& end) {
  Json out = Header(identity, false);
  Json choice = {{"index", 0}};
  if (IsChat(identity)) {
    choice["message"] = {{"role", "assistant"}, {"content", text}, {"refusal", nullptr}};
  } else {
    choice["text"] = text;
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = ReasonName(end.reason);
  out["choices"] = Json::array({std::move(choice)});
  out["usage"] = UsageJson(end.usage);
  out["timings"] = TimingsJson(end);
  return DumpJson(out);
}

std::string StreamStart(const AnswerIdentity& identity) {
  if (!IsChat(identity)) return {};
  return Data(ChunkJson(identity, {{"role", "assistant"}, {"content", ""}}, nullptr));
}

std::string StreamDelta(const AnswerIdentity& identity, std::string_view text) {
  return Data(
      ChunkJson(identity, IsChat(identity) ? Json{{"content", text}} : Json(text), nullptr));
}

std::string StreamEnd(const AnswerIdentity& identity, const AnswerEnd& end) {
  Json last =
      ChunkJson(identity, IsChat(identity) ? Json::object() : Json(""), ReasonName(end.reason));
  std::string out;
  if (identity.include_usage) {
    out = Data(last);
    last = Header(identity, true);
    last["choices"] = Json::array();
    last["usage"] = UsageJson(end.usage);
  }
  last["timings"] = TimingsJson(end);
  out += Data(last);
  out += "data: [DONE]\n\n";
  return out;
}

std::string StreamError(const Error& error) { return "data: " + ErrorBody(error) + "\n\n"; }

std::string ModelList(std::span<const RosterEntry> models) {
  Json data = Json::array();
  for (const RosterEntry& model : models) data.push_back(ModelJson(model));
  return DumpJson({{"object", "list"}, {"data", std::move(data)}});
}

std::string ModelObject(const RosterEntry& model) { return DumpJson(ModelJson(model)); }

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
