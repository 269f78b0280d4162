// Where the reader of one call gives out what it has read.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/chat/chat_piece.h"
#include "text/chat/tool_signature.h"

namespace perdure::text {

// What a byte was to the reader of a call. kBroken: this cannot be a call, or cannot go on as one;
// the byte is not taken, and the reader must not be used any more.
enum class CallStep : uint8_t { kMore, kDone, kBroken };

struct CallSink {
  const std::vector<ToolSignature>* tools;
  int index;  // of the call
  ChatPieces* pieces;

  void Begin(std::string_view name) const { pieces->BeginCall(index, name); }
  void Arguments(std::string_view text) const { pieces->Arguments(index, text); }
  void Arguments(char c) const { Arguments(std::string_view(&c, 1)); }
};

}  // namespace perdure::text
