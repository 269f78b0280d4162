// From a request to what the engine needs: token ids, sampling parameters, the length of the
// answer.
//
// Pure given the model and the request (the time that templates see is part of it), done once per
// request: a resumed stream never renders again.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/token.h"
#include "engine/sampler.h"
#include "protocol/messages.h"
#include "worker/model.h"

namespace perdure::worker {

struct AdmissionSettings {
  int max_context = 0;  // tokens of prompt and answer
  // The server's, below the model's own generation_config.json.
  std::optional<float> default_temperature;
  int default_max_tokens = 0;  // 0: up to the context
};

struct AdmittedRequest {
  std::vector<TokenId> prompt_ids;
  engine::SamplingParams sampling;  // with the request's seed, which is choice 0's
  int answer_tokens_max = 0;        // prompt and answer stay within the context
  std::string echo;                 // UTF-8; empty unless the request asks for it
};

struct Prompt {
  std::vector<TokenId> ids;
  // Of a chat: how its answer is read, and with which tools; null: none.
  protocol::AnswerForm form;
  Json tools;
};

// Errors: invalid_request, bad_template, unsupported (no template).
Result<Prompt> TakePrompt(const Model& model, const AdmissionSettings& settings,
                          const protocol::GenerationRequest& request);

// What else there is to a request with this prompt, which may have been rendered by another worker.
// Prompt and answer have max_context tokens at most, and no more than memory allows,
// `memory_tokens`. Errors: invalid_request, context_length_exceeded.
Result<AdmittedRequest> Admit(const Model& model, const AdmissionSettings& settings,
                              const protocol::GenerationRequest& request,
                              std::vector<TokenId> prompt_ids, int memory_tokens);

// The seed of one of several answers to a request; choice 0 has the request's own.
uint64_t SeedOfChoice(uint64_t seed, int choice);

}  // namespace perdure::worker
