#include "worker/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "base/limits.h"
#include "worker/answer_form.h"
#include "worker/chat_context.h"

namespace perdure::worker {
namespace {

using protocol::GenerationRequest;
using protocol::RequestKind;
using protocol::SamplingRequest;

std::string ParamOf(const GenerationRequest& request) {
  return request.kind == RequestKind::kChat ? "messages" : "prompt";
}

Status CheckIds(const Model& model, const std::vector<TokenId>& ids, const std::string& param) {
  const int vocab = model.engine->info().vocab_size;
  for (TokenId id : ids) {
    if (id < 0 || id >= vocab)
      return Err(ErrorCode::invalid_request,
                 fmt::format("token id {} is outside of the model's vocabulary [0, {})", id, vocab),
                 param);
  }
  return {};
}

// Bytes of tokens may be cut anywhere; clients get UTF-8.
std::string WithoutBrokenUtf8(std::string_view bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size();) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    const size_t length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    static constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    static constexpr unsigned char kMask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    bool valid = (byte < 0x80 || (byte >= 0xC2 && byte < 0xF5)) && i + length <= bytes.size();
    uint32_t code = byte & kMask[length];
    for (size_t j = 1; valid && j < length; ++j) {
      const auto next = static_cast<unsigned char>(bytes[i + j]);
      valid = (next & 0xC0) == 0x80;
      code = code << 6 | (next & 0x3F);
    }
    valid = valid && code >= kLeast[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    if (valid) {
      out.append(bytes, i, length);
      i += length;
    } else {
      out += "\xEF\xBF\xBD";
      ++i;
    }
  }
  return out;
}

Result<Prompt> RenderChat(const Model& model, const GenerationRequest& request) {
  if (model.chat.templates.empty())
    return Err(
        ErrorCode::unsupported,
        fmt::format("the model '{}' has no chat template: use /v1/completions with the whole "
                    "prompt, or add a chat_template.jinja to the model's folder",
                    model.name),
        "messages");
  ASSIGN_OR_RETURN(RenderedChat rendered,
                   RenderConversation(model.chat, request.chat_json, request.unix_time));
  const text::ChatForm& form = FormOf(model, *rendered.chat);
  Prompt prompt;
  prompt.form = TicketForm(form, text::ReasoningStartOf(form, rendered.prompt));
  prompt.tools = std::move(rendered.tools);
  ASSIGN_OR_RETURN(prompt.ids,
                   model.tokenizer->Encode(rendered.prompt.text, rendered.prompt.input));
  return prompt;
}

// What the model expects before a text, unless its author has written it.
void AddPrefix(std::span<const TokenId> prefix, std::vector<TokenId>* ids) {
  if (ids->size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids->begin()))
    return;
  ids->insert(ids->begin(), prefix.begin(), prefix.end());
}

Result<Prompt> Tokenize(const Model& model, const GenerationRequest& request) {
  if (request.kind == RequestKind::kChat) return RenderChat(model, request);
  Prompt prompt;
  if (request.prompt_ids) {
    prompt.ids = *request.prompt_ids;
    return prompt;
  }
  // A raw prompt is its author's to the last byte: the text of a special token is that token.
  ASSIGN_OR_RETURN(prompt.ids, model.tokenizer->Encode(request.prompt));
  AddPrefix(model.tokenizer->prefix_ids(), &prompt.ids);
  return prompt;
}

// The text of a completion's prompt; its ids, if it came as such, are known to be tokens.
std::string EchoOf(const Model& model, const GenerationRequest& request) {
  if (request.kind == RequestKind::kChat || !request.echo) return {};
  if (!request.prompt_ids) return WithoutBrokenUtf8(request.prompt);
  std::string bytes;
  for (TokenId id : *request.prompt_ids) bytes += model.tokenizer->TokenBytes(id);
  return WithoutBrokenUtf8(bytes);
}

Status CheckRange(float value, float low, float high, const char* param) {
  // Written so that NaN is refused.
  if (value >= low && value <= high) return {};
  return Err(ErrorCode::invalid_request,
             fmt::format("{} is {}, allowed is {} to {}", param, value, low, high), param);
}

Result<engine::SamplingParams> MergeSampling(const Model& model, const AdmissionSettings& settings,
                                             const GenerationRequest& request) {
  const SamplingRequest& asked = request.sampling;
  const engine::GenerationDefaults& own = model.engine->generation_defaults();
  engine::SamplingParams params;
  const auto first = [](auto fallback, const auto&... values) {
    std::optional<decltype(fallback)> found;
    ((found = found ? found : values), ...);
    return found.value_or(fallback);
  };
  params.temperature =
      first(1.0f, asked.temperature, own.temperature, settings.default_temperature);
  params.top_k = std::max(0, first(0, asked.top_k, own.top_k));  // -1 is used for off as well
  params.top_p = first(1.0f, asked.top_p, own.top_p);
  params.min_p = first(0.0f, asked.min_p, own.min_p);
  params.repetition_penalty = first(1.0f, asked.repetition_penalty, own.repetition_penalty);
  params.frequency_penalty = asked.frequency_penalty.value_or(0.0f);
  params.presence_penalty = asked.presence_penalty.value_or(0.0f);
  params.logit_bias = asked.logit_bias;
  params.seed = request.seed;
  RETURN_IF_ERROR(CheckRange(params.temperature, 0, 100, "temperature"));
  RETURN_IF_ERROR(CheckRange(params.top_p, 0, 1, "top_p"));
  RETURN_IF_ERROR(CheckRange(params.min_p, 0, 1, "min_p"));
  RETURN_IF_ERROR(CheckRange(params.repetition_penalty, 0.01f, 100, "repetition_penalty"));
  RETURN_IF_ERROR(CheckRange(params.frequency_penalty, -100, 100, "frequency_penalty"));
  RETURN_IF_ERROR(CheckRange(params.presence_penalty, -100, 100, "presence_penalty"));
  const int vocab = model.engine->info().vocab_size;
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab)
      return Err(
          ErrorCode::invalid_request,
          fmt::format("logit_bias names token {}, the model's vocabulary is [0, {})", id, vocab),
          "logit_bias");
    RETURN_IF_ERROR(CheckRange(bias, -1000, 1000, "logit_bias"));
  }
  return params;
}

Status CheckRequest(const GenerationRequest& request) {
  if (request.kind != RequestKind::kChat && request.kind != RequestKind::kCompletion)
    return Err(ErrorCode::invalid_request, "a request of unknown kind");
  if (request.choices < 1 || request.choices > limits::kChoicesMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("n is {}, allowed is 1 to {}", request.choices, limits::kChoicesMax),
               "n");
  if (request.top_logprobs &&
      (*request.top_logprobs < 0 || *request.top_logprobs > limits::kTopLogprobsMax))
    return Err(ErrorCode::invalid_request,
               fmt::format("top_logprobs is {}, allowed is 0 to {}", *request.top_logprobs,
                           limits::kTopLogprobsMax),
               "top_logprobs");
  if (request.max_tokens && *request.max_tokens < 0)
    return Err(ErrorCode::invalid_request,
               fmt::format("max_tokens is {}, allowed is 0 and above", *request.max_tokens),
               "max_tokens");
  for (const std::string& stop : request.stop) {
    if (stop.empty())
      return Err(ErrorCode::invalid_request, "a stop string is empty: it would end any answer",
                 "stop");
  }
  return {};
}

}  // namespace

Result<Prompt> TakePrompt(const Model& model, const AdmissionSettings& settings,
                          const GenerationRequest& request) {
  RETURN_IF_ERROR(CheckRequest(request));
  // Cheap, and an error in it is told before anything is rendered.
  RETURN_IF_ERROR(MergeSampling(model, settings, request));
  return Tokenize(model, request);
}

Result<AdmittedRequest> Admit(const Model& model, const AdmissionSettings& settings,
                              const GenerationRequest& request, std::vector<TokenId> prompt_ids,
                              int memory_tokens) {
  RETURN_IF_ERROR(CheckRequest(request));
  AdmittedRequest admitted;
  ASSIGN_OR_RETURN(admitted.sampling, MergeSampling(model, settings, request));
  if (prompt_ids.empty())
    return Err(ErrorCode::invalid_request, "the prompt is empty: it has no tokens",
               ParamOf(request));
  const int max_context = std::min(settings.max_context, memory_tokens);
  if (prompt_ids.size() >= static_cast<size_t>(max_context))
    return Err(
        ErrorCode::context_length_exceeded,
        fmt::format(
            "the maximum context length is {} tokens{}, but the prompt alone has "
            "{} tokens: shorten it",
            max_context,
            max_context < settings.max_context ? " (bounded by the memory for the KV cache)" : "",
            prompt_ids.size()),
        ParamOf(request));
  RETURN_IF_ERROR(CheckIds(model, prompt_ids, ParamOf(request)));
  int answer = max_context - static_cast<int>(prompt_ids.size());
  if (request.max_tokens) {
    answer = std::min(answer, *request.max_tokens);
  } else if (settings.default_max_tokens > 0) {
    answer = std::min(answer, settings.default_max_tokens);
  }
  if (request.choices > 1 && int64_t{request.choices} * answer > limits::kChoicesTokensMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("n is {}, and each answer may have {} tokens: together more than {}; "
                           "lower n or max_tokens",
                           request.choices, answer, limits::kChoicesTokensMax),
               "n");
  admitted.echo = EchoOf(model, request);
  admitted.prompt_ids = std::move(prompt_ids);
  admitted.answer_tokens_max = answer;
  return admitted;
}

uint64_t SeedOfChoice(uint64_t seed, int choice) {
  if (choice == 0) return seed;
  // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
  uint64_t z = seed + static_cast<uint64_t>(choice) * 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace perdure::worker
