// Why a generation ends without its answer: the sentences for its client. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace perdure::frontend {

Error ShuttingDown();
// A stream whose worker died, and whose model does not come back.
Error Lost(const std::string& model);
Error NoLongerServed(const std::string& model);
// It has killed two workers.
Error Poison(const std::string& model);
// It holds more than kAnswerBytesMax.
Error TooLong(bool logprobs);

enum class GenerationStage {
  kWaitsForModel,
  kWaitsForTurn,  // in the worker's queue
  kComputesPrompt,
  kAnswers,
};

struct PassedDeadline {
  std::string_view model;
  int64_t timeout_ms = 0;
  std::string_view set_by;  // the header or the key that has it
  GenerationStage stage = GenerationStage::kWaitsForModel;
  size_t tokens = 0;  // of the answer so far, all choices
  bool streamed = false;
};
Error DeadlineExceeded(const PassedDeadline& passed);

}  // namespace perdure::frontend
