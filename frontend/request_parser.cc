#include "frontend/request_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/aliases.h"
#include "frontend/cache_fields.h"
#include "frontend/keep_alive.h"
#include "frontend/message_parser.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

using protocol::GenerationRequest;
using protocol::RequestKind;
using protocol::SamplingRequest;

Result<Json> ParseBody(std::string_view body) {
  if (body.empty())
    return Err(ErrorCode::invalid_request, "The request needs a body: a JSON object.");
  ASSIGN_OR_RETURN(Json json, ParseJson(body, "The request body", ErrorCode::invalid_request));
  if (!json.is_object())
    return Err(
        ErrorCode::invalid_request,
        fmt::format("The request body must be a JSON object, not of type {}.", JsonTypeName(json)));
  return json;
}

// Token ids stand as decimal strings in logit_bias.
std::optional<TokenId> ParseTokenId(std::string_view text) {
  if (text.empty() || text.size() > 10) return std::nullopt;
  int64_t id = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    id = id * 10 + (c - '0');
  }
  if (id > INT32_MAX) return std::nullopt;
  return static_cast<TokenId>(id);
}

Status ReadLogitBias(const Json& body, SamplingRequest& sampling) {
  const Json* bias = FindField(body, "logit_bias");
  if (!bias) return {};
  if (!bias->is_object())
    return Err(FieldError("logit_bias", "an object of token ids and numbers", *bias));
  if (bias->size() > limits::kLogitBiasMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("logit_bias has {} entries; at most {} are allowed.", bias->size(),
                           limits::kLogitBiasMax),
               "logit_bias");
  for (const auto& [key, value] : bias->get_ref<const Json::object_t&>()) {
    const std::optional<TokenId> id = ParseTokenId(key);
    if (!id)
      return Err(ErrorCode::invalid_request,
                 fmt::format("logit_bias has the key {}; keys are token ids.", Quoted(key)),
                 "logit_bias");
    const double number = value.is_number() ? value.get<double>() : 0;
    if (!value.is_number() || number < -100 || number > 100)
      return Err(FieldError("logit_bias", "an object of numbers from -100 to 100", value));
    sampling.logit_bias.emplace_back(*id, static_cast<float>(number));
  }
  return {};
}

Status ReadSampling(const Json& body, SamplingRequest& sampling) {
  ASSIGN_OR_RETURN(sampling.temperature, ReadFloat(body, "temperature", {0, 2}));
  ASSIGN_OR_RETURN(sampling.top_p, ReadFloat(body, "top_p", {0, 1, true}));
  // A number above 0 may round to 0 as a float, which would select nothing.
  if (sampling.top_p) sampling.top_p = std::max(*sampling.top_p, FLT_MIN);
  ASSIGN_OR_RETURN(sampling.min_p, ReadFloat(body, "min_p", {0, 1}));
  ASSIGN_OR_RETURN(const std::optional<int64_t> top_k, ReadInteger(body, "top_k", -1, INT32_MAX));
  if (top_k) sampling.top_k = static_cast<int32_t>(std::max<int64_t>(*top_k, 0));  // -1: off
  ASSIGN_OR_RETURN(sampling.repetition_penalty, ReadFloat(body, "repetition_penalty", {0.01, 100}));
  ASSIGN_OR_RETURN(sampling.frequency_penalty, ReadFloat(body, "frequency_penalty", {-2, 2}));
  ASSIGN_OR_RETURN(sampling.presence_penalty, ReadFloat(body, "presence_penalty", {-2, 2}));
  return ReadLogitBias(body, sampling);
}

Status ReadStop(const Json& body, std::vector<std::string>& stop) {
  const Json* value = FindField(body, "stop");
  if (!value) return {};
  auto add = [&stop](const Json& text, const std::string& where) -> Status {
    if (!text.is_string()) return Err(FieldError(where, "a string", text));
    const auto& string = text.get_ref<const std::string&>();
    if (string.empty() || string.size() > limits::kStopStringBytesMax)
      return Err(ErrorCode::invalid_request,
                 fmt::format("{} must have 1 to {} bytes, but has {}.", where,
                             limits::kStopStringBytesMax, string.size()),
                 "stop");
    stop.push_back(string);
    return {};
  };
  if (value->is_string()) return add(*value, "stop");
  if (!value->is_array()) return Err(FieldError("stop", "a string or an array of strings", *value));
  if (value->size() > limits::kStopStringsMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("stop has {} strings; at most {} are allowed.", value->size(),
                           limits::kStopStringsMax),
               "stop");
  for (size_t i = 0; i < value->size(); ++i) {
    auto status = add((*value)[i], fmt::format("stop[{}]", i));
    if (!status) {
      status.error().param = "stop";
      return status;
    }
  }
  return {};
}

// OpenAI's best_of draws more answers than it returns.
Status CheckBestOf(const Json& body, int choices) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> count,
                   ReadInteger(body, "best_of", 1, limits::kChoicesMax));
  if (count.value_or(choices) == choices) return {};
  return Err(Unsupported(
      "best_of", fmt::format("best_of must be n, which is {}: this server returns every answer "
                             "that it draws.",
                             choices)));
}

Status RefuseResponseFormat(const Json& body) {
  const Json* format = FindField(body, "response_format");
  if (!format) return {};
  if (!format->is_object()) return Err(FieldError("response_format", "an object", *format));
  const Json* type = FindField(*format, "type");
  if (!type || !type->is_string())
    return Err(ErrorCode::invalid_request,
               "response_format.type must be \"text\"; it is missing or no string.",
               "response_format.type");
  if (*type == "text") return {};
  if (*type == "json_object" || *type == "json_schema")
    return Err(Unsupported(
        "response_format",
        fmt::format("response_format {} is not supported: output is not constrained to JSON.",
                    Quoted(type->get_ref<const std::string&>()))));
  return Err(FieldError("response_format.type", "\"text\"", *type));
}

// Fields that would change the answer, and that this version cannot honour.
Status RefuseUnsupported(const Json& body) {
  static constexpr std::string_view kRefused[] = {
      "audio",         "web_search_options", "guided_json", "guided_regex",
      "guided_choice", "guided_grammar",     "grammar",     "json_schema"};
  for (std::string_view name : kRefused) {
    if (FindField(body, name))
      return Err(Unsupported(std::string(name), fmt::format("{} is not supported.", name)));
  }
  if (const Json* modalities = FindField(body, "modalities")) {
    if (!modalities->is_array() || !std::all_of(modalities->begin(), modalities->end(),
                                                [](const Json& one) { return one == "text"; }))
      return Err(Unsupported("modalities", "modalities may be [\"text\"] only."));
  }
  return {};
}

// Tokens of reasoning that an effort allows; bounds that people can overrule by
// max_reasoning_tokens.
struct Effort {
  std::string_view name;
  std::optional<int32_t> tokens_max;  // absent: as many as the model likes
};
constexpr Effort kEfforts[] = {{"none", 0},      {"minimal", 256},       {"low", 1024},
                               {"medium", 4096}, {"high", std::nullopt}, {"xhigh", std::nullopt}};

Status ReadReasoning(const Json& body, GenerationRequest& generation) {
  if (const Json* value = FindField(body, "reasoning_effort")) {
    const auto* effort = std::ranges::find_if(
        kEfforts, [value](const Effort& each) { return *value == std::string(each.name); });
    if (effort == std::end(kEfforts))
      return Err(FieldError("reasoning_effort", "one of none, minimal, low, medium, high and xhigh",
                            *value));
    generation.reasoning_tokens_max = effort->tokens_max;
  }
  ASSIGN_OR_RETURN(const std::optional<int64_t> tokens,
                   ReadInteger(body, "max_reasoning_tokens", 0, INT32_MAX));
  if (tokens) generation.reasoning_tokens_max = static_cast<int32_t>(*tokens);
  return {};
}

// Templates learn of the effort where they ask; "none" is what some of them have a switch for.
void TellTemplateOfEffort(const Json& body, Json* chat) {
  const Json* effort = FindField(body, "reasoning_effort");
  if (!effort) return;
  Json& kwargs = (*chat)["chat_template_kwargs"];
  if (!kwargs.is_object()) kwargs = Json::object();
  if (!kwargs.contains("reasoning_effort")) kwargs["reasoning_effort"] = *effort;
  if (*effort == "none" && !kwargs.contains("enable_thinking")) kwargs["enable_thinking"] = false;
}

// Fields that change nothing in the answer of this version, but have a type all the same.
Status CheckIgnored(const Json& body) {
  ASSIGN_OR_RETURN([[maybe_unused]] const auto parallel, ReadBool(body, "parallel_tool_calls"));
  return {};
}

Status ReadStream(const Json& body, ParsedRequest& parsed) {
  ASSIGN_OR_RETURN(const std::optional<bool> stream, ReadBool(body, "stream"));
  parsed.stream = stream.value_or(false);
  const Json* options = FindField(body, "stream_options");
  if (!options) return {};
  if (!options->is_object()) return Err(FieldError("stream_options", "an object", *options));
  if (!parsed.stream)
    return Err(ErrorCode::invalid_request, "stream_options is allowed only where stream is true.",
               "stream_options");
  auto include_usage = ReadBool(*options, "include_usage");
  if (!include_usage) {
    include_usage.error().param = "stream_options.include_usage";
    return Err(include_usage.error());
  }
  parsed.include_usage = include_usage->value_or(false);
  return {};
}

// What chat and plain completions have in common.
Result<ParsedRequest> ReadCommon(const Json& body, RequestKind kind,
                                 const RequestDefaults& defaults) {
  ParsedRequest parsed;
  GenerationRequest& generation = parsed.generation;
  generation.kind = kind;
  generation.unix_time = defaults.unix_time;
  generation.tenant = defaults.tenant;
  generation.client = defaults.client;

  if (const Json* model = FindField(body, "model")) {
    if (!model->is_string()) return Err(FieldError("model", "a string", *model));
    parsed.model = model->get<std::string>();
    if (parsed.model.empty())
      return Err(FieldError("model", "a model's name (leave it out for the default)", *model));
  }
  RETURN_IF_ERROR(ReadStream(body, parsed));
  RETURN_IF_ERROR(ReadSampling(body, generation.sampling));
  RETURN_IF_ERROR(ReadStop(body, generation.stop));
  ASSIGN_OR_RETURN(const std::optional<int64_t> choices,
                   ReadInteger(body, "n", 1, limits::kChoicesMax));
  generation.choices = static_cast<int32_t>(choices.value_or(1));
  ASSIGN_OR_RETURN(const std::optional<int64_t> seed,
                   ReadInteger(body, "seed", INT64_MIN, INT64_MAX));
  generation.seed = seed ? static_cast<uint64_t>(*seed) : defaults.seed;
  ASSIGN_OR_RETURN(const std::optional<bool> ignore_eos, ReadBool(body, "ignore_eos"));
  generation.ignore_eos = ignore_eos.value_or(false);
  ASSIGN_OR_RETURN(std::optional<int64_t> max_tokens,
                   ReadInteger(body, "max_tokens", 1, INT32_MAX));
  if (kind == RequestKind::kChat) {
    // The newer name wins where both are given.
    ASSIGN_OR_RETURN(const std::optional<int64_t> max_completion_tokens,
                     ReadInteger(body, "max_completion_tokens", 1, INT32_MAX));
    if (max_completion_tokens) max_tokens = max_completion_tokens;
  }
  if (max_tokens) generation.max_tokens = static_cast<int32_t>(*max_tokens);
  ASSIGN_OR_RETURN(generation.cache, ReadCache(body));
  ASSIGN_OR_RETURN(generation.conversation_id, ReadConversationId(body));
  ASSIGN_OR_RETURN(const std::optional<bool> store, ReadBool(body, "store"));
  generation.store = store.value_or(defaults.store);
  ASSIGN_OR_RETURN(parsed.keep_alive_s, ReadKeepAlive(body));
  if (const Json* user = FindField(body, "user")) {
    if (!user->is_string() ||
        user->get_ref<const std::string&>().size() > limits::kConversationUserBytesMax)
      return Err(FieldError(
          "user", fmt::format("a string of up to {} bytes", limits::kConversationUserBytesMax),
          *user));
    generation.user = user->get<std::string>();
  }
  RETURN_IF_ERROR(RefuseResponseFormat(body));
  RETURN_IF_ERROR(RefuseUnsupported(body));
  RETURN_IF_ERROR(CheckIgnored(body));
  if (const ModelAlias* const alias = FindAlias(defaults.aliases, parsed.model)) {
    parsed.alias = alias->name;
    parsed.model = alias->model;
    ApplyDefaults(*alias, &generation);
  }
  return parsed;
}

// True where the prompt is to show the tools.
Result<bool> ReadToolChoice(const Json& body) {
  const Json* choice = FindField(body, "tool_choice");
  if (!choice || *choice == "auto") return true;
  if (*choice == "none") return false;
  if (*choice == "required" || choice->is_object())
    return Err(Unsupported("tool_choice",
                           "tool_choice may be \"none\" or \"auto\": this server cannot force a "
                           "tool call."));
  return Err(FieldError("tool_choice", "\"none\" or \"auto\"", *choice));
}

Status ReadChatLogprobs(const Json& body, GenerationRequest& generation) {
  ASSIGN_OR_RETURN(const std::optional<bool> logprobs, ReadBool(body, "logprobs"));
  ASSIGN_OR_RETURN(const std::optional<int64_t> top,
                   ReadInteger(body, "top_logprobs", 0, limits::kTopLogprobsMax));
  if (logprobs.value_or(false)) {
    generation.top_logprobs = static_cast<int32_t>(top.value_or(0));
  } else if (top.value_or(0) > 0) {
    return Err(ErrorCode::invalid_request, "top_logprobs is allowed only where logprobs is true.",
               "top_logprobs");
  }
  return {};
}

Status ReadCompletionLogprobs(const Json& body, GenerationRequest& generation) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> logprobs,
                   ReadInteger(body, "logprobs", 0, limits::kCompletionLogprobsMax));
  if (!logprobs) return {};
  if (generation.echo)
    return Err(Unsupported("logprobs",
                           "logprobs are not supported with echo: those of the prompt's tokens "
                           "are not computed. Leave one of the two out."));
  generation.top_logprobs = static_cast<int32_t>(*logprobs);
  return {};
}

bool IsTokenArray(const Json& value) {
  return value.is_array() && !value.empty() && value[0].is_number();
}

Status ReadTokenPrompt(const Json& ids, const std::string& where, GenerationRequest& generation) {
  std::vector<TokenId>& out = generation.prompt_ids.emplace();
  out.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::optional<int64_t> id = AsInteger(ids[i], 0, INT32_MAX);
    if (!id) {
      Error error = FieldError(fmt::format("{}[{}]", where, i), "a token id", ids[i]);
      error.param = "prompt";
      return Err(std::move(error));
    }
    out.push_back(static_cast<TokenId>(*id));
  }
  return {};
}

Status ReadPrompt(Json& body, GenerationRequest& generation) {
  if (!FindField(body, "prompt"))
    return Err(ErrorCode::invalid_request, "prompt is required.", "prompt");
  Json& prompt = body["prompt"];
  static constexpr std::string_view kExpected = "a string, or an array of token ids";
  if (prompt.is_string()) {
    generation.prompt = std::move(prompt.get_ref<std::string&>());
    return {};
  }
  if (IsTokenArray(prompt)) return ReadTokenPrompt(prompt, "prompt", generation);
  if (!prompt.is_array() || prompt.empty()) return Err(FieldError("prompt", kExpected, prompt));
  if (prompt.size() > 1)
    return Err(Unsupported(
        "prompt", fmt::format("prompt has {} entries, but this server takes one prompt a request.",
                              prompt.size())));
  if (prompt[0].is_string()) {
    generation.prompt = std::move(prompt[0].get_ref<std::string&>());
    return {};
  }
  if (IsTokenArray(prompt[0])) return ReadTokenPrompt(prompt[0], "prompt[0]", generation);
  return Err(FieldError("prompt", kExpected, prompt));
}

}  // namespace

Result<ParsedRequest> ParseChatRequest(std::string_view text, const RequestDefaults& defaults) {
  ASSIGN_OR_RETURN(Json body, ParseBody(text));
  ASSIGN_OR_RETURN(ParsedRequest parsed, ReadCommon(body, RequestKind::kChat, defaults));
  RETURN_IF_ERROR(ReadChatLogprobs(body, parsed.generation));
  RETURN_IF_ERROR(ReadReasoning(body, parsed.generation));

  Json chat = Json::object();
  if (!FindField(body, "messages"))
    return Err(ErrorCode::invalid_request, "messages is required.", "messages");
  ASSIGN_OR_RETURN(chat["messages"], ParseMessages(std::move(body["messages"])));

  for (std::string_view name : {"functions", "function_call"}) {
    if (FindField(body, name))
      return Err(Unsupported(std::string(name),
                             fmt::format("{} is the old form; use tools and tool_choice.", name)));
  }
  ASSIGN_OR_RETURN(const bool show_tools, ReadToolChoice(body));
  if (const Json* tools = FindField(body, "tools")) {
    RETURN_IF_ERROR(CheckTools(*tools));
    if (show_tools && !tools->empty()) chat["tools"] = std::move(body["tools"]);
  }
  if (const Json* kwargs = FindField(body, "chat_template_kwargs")) {
    if (!kwargs->is_object()) return Err(FieldError("chat_template_kwargs", "an object", *kwargs));
    for (std::string_view name : {"messages", "tools"}) {
      if (kwargs->contains(std::string(name)))
        return Err(ErrorCode::invalid_request,
                   fmt::format("chat_template_kwargs must not override {}.", name),
                   "chat_template_kwargs");
    }
    if (!kwargs->empty()) chat["chat_template_kwargs"] = std::move(body["chat_template_kwargs"]);
  }
  TellTemplateOfEffort(body, &chat);
  if (const ModelAlias* const alias = FindAlias(defaults.aliases, parsed.alias))
    ApplyToChat(*alias, &chat);
  parsed.generation.chat_json = DumpJson(chat);
  return parsed;
}

Result<ParsedRequest> ParseCompletionRequest(std::string_view text,
                                             const RequestDefaults& defaults) {
  ASSIGN_OR_RETURN(Json body, ParseBody(text));
  ASSIGN_OR_RETURN(ParsedRequest parsed, ReadCommon(body, RequestKind::kCompletion, defaults));
  RETURN_IF_ERROR(CheckBestOf(body, parsed.generation.choices));
  ASSIGN_OR_RETURN(const std::optional<bool> echo, ReadBool(body, "echo"));
  parsed.generation.echo = echo.value_or(false);
  RETURN_IF_ERROR(ReadCompletionLogprobs(body, parsed.generation));
  if (const Json* suffix = FindField(body, "suffix")) {
    if (!suffix->is_string()) return Err(FieldError("suffix", "a string", *suffix));
    if (!suffix->empty() && *suffix != "")
      return Err(Unsupported("suffix", "suffix is not supported: text is not inserted."));
  }
  RETURN_IF_ERROR(ReadPrompt(body, parsed.generation));
  return parsed;
}

}  // namespace perdure::frontend
