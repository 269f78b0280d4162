// What the storm's child tells on its standard output, and what it stores: all of it follows from
// numbers, so that the test knows what must be there.
#pragma once

#include <cstdint>
#include <string>

#include "tests/snapshot/kv_pages.h"
#include "tests/snapshot/turns.h"

namespace perdure::power_cut {

enum class StormReport : uint32_t {
  kOpened = 1,
  kTurnStored,   // conversation, turn
  kPagesAsked,   // first, count
  kPagesStored,  // first, count
  kDropAsked,    // page
  kNotStored,    // never: the disk is a good one
};
struct StormReportWire {
  StormReport kind;
  uint32_t number, more;
};

inline constexpr uint64_t kStormOwner = 1;
inline constexpr uint32_t kStormConversations = 3;  // at a time; the next one's number is higher
inline constexpr uint32_t kStormTurns = 20;         // of a conversation
inline constexpr uint32_t kStormPages = 12;         // older ones are dropped

inline std::string StormConversation(uint32_t conversation) {
  return "c" + std::to_string(conversation);
}
inline snapshot::StoredTurn StormTurn(uint32_t conversation, uint32_t turn) {
  const uint64_t rid = uint64_t{conversation} * 1000;
  snapshot::StoredTurn whole = snapshot::FirstTurn(rid + 1);
  for (uint32_t i = 2; i <= turn; ++i) whole = snapshot::NextTurn(whole, rid + i);
  return whole;
}
inline snapshot::PageWithData StormPage(uint32_t number) {
  return snapshot::NumberedPage(number, 1 + number * 7919 % 100'000);
}

}  // namespace perdure::power_cut
