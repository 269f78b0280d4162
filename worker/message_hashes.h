// What of a chat's messages tells that a later request repeats them. Pure.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "worker/said_answer.h"

namespace perdure::worker {

// For each message the hash of it and all before it: who says what, and which tools are called with
// what. Reasoning does not count, nor blanks around a text, nor the ids of calls and how their
// arguments are spelled: clients leave them out or write them anew. System messages at
// the beginning have no hash of their own: many conversations share them. `chat_json`: as in
// GenerationRequest; empty for what is no chat.
std::vector<uint64_t> MessageHashes(std::string_view chat_json);

// The same with the model's answer behind them; where there are none, none.
void AddAnswer(const SaidAnswer& answer, std::vector<uint64_t>* hashes);

}  // namespace perdure::worker
