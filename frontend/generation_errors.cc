#include "frontend/generation_errors.h"

#include <fmt/format.h>

#include <utility>

#include "base/limits.h"

namespace perdure::frontend {

Error ShuttingDown() { return {ErrorCode::shutting_down, "The service is shutting down.", {}, 5}; }

Error Lost(const std::string& model) {
  return {ErrorCode::worker_lost,
          fmt::format("The process that serves {} ended while this answer was under way, and no "
                      "other one follows it. Send the request again.",
                      model),
          {},
          1};
}

Error NoLongerServed(const std::string& model) {
  return {ErrorCode::model_not_found, fmt::format("The model {} is no longer served.", model),
          "model", 0};
}

Error Poison(const std::string& model) {
  return {ErrorCode::worker_crashed,
          fmt::format("The process that serves {} crashed twice while it computed this request, "
                      "the second time with nothing else: the request was given up. The "
                      "service's log has the details.",
                      model),
          {},
          0};
}

Error TooLong(bool logprobs) {
  std::string message = fmt::format("The answer exceeds {} bytes.", limits::kAnswerBytesMax);
  if (!logprobs) return {ErrorCode::internal, std::move(message), {}, 0};
  return {ErrorCode::unsupported, message + " Ask for a stream, or for fewer logprobs.", "logprobs",
          0};
}

namespace {

std::string WhatItDid(const PassedDeadline& passed) {
  switch (passed.stage) {
    case GenerationStage::kWaitsForModel:
      return fmt::format("while it waited for {} to be loaded; nothing was generated",
                         passed.model);
    case GenerationStage::kWaitsForTurn:
      return fmt::format(
          "while it waited for its turn behind other requests for {}; nothing was generated",
          passed.model);
    case GenerationStage::kComputesPrompt:
      return "while its prompt was computed; nothing was generated";
    case GenerationStage::kAnswers:
      break;
  }
  return fmt::format("when {} token{} of the answer had been generated{}", passed.tokens,
                     passed.tokens == 1 ? "" : "s",
                     passed.streamed ? "" : ", which a stream would have brought");
}

}  // namespace

Error DeadlineExceeded(const PassedDeadline& passed) {
  return {
      ErrorCode::deadline_exceeded,
      fmt::format("The request had {:g} s ({}) and was ended {}.",
                  static_cast<double>(passed.timeout_ms) / 1000, passed.set_by, WhatItDid(passed)),
      {},
      0};
}

}  // namespace perdure::frontend
