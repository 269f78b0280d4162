// What the dispatcher keeps of each worker and of each generation. For dispatcher*.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "frontend/dispatcher.h"
#include "frontend/request_timeout.h"

namespace perdure::frontend {

struct Dispatcher::Worker {
  WorkerId id = 0;
  protocol::ChannelOffer offer{};
  WorkerPort* port = nullptr;
  bool greeted = false;  // its Hello has come
};

struct Dispatcher::Generation {
  RequestLedger ledger;
  std::string model{};
  AnswerIdentity identity{};  // with the model as the client calls it
  bool stream = false;
  std::optional<int32_t> keep_alive_s{};
  AnswerSink* sink = nullptr;
  WorkerId worker = 0;   // 0: waits for one
  uint64_t arrival = 0;  // grows
  int64_t started_ms = 0;
  int64_t waited_ms = 0;                            // until it was submitted
  int64_t waiting_since_ms = 0, wait_until_ms = 0;  // while it waits
  int64_t last_output_ms = 0;                       // of a stream
  std::optional<RequestTimeout> timeout{};          // since started_ms
  bool head_sent = false;
  bool start_sent = false;
  std::vector<ChoiceAnswer> choices{};
  size_t kept_bytes = 0;  // of them all
};

}  // namespace perdure::frontend
