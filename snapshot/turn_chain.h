// Whole turns and the records that tell them: each says what differs from the turn before it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"
#include "snapshot/turn_file.h"

namespace perdure::snapshot {

// The record under a key; io_error where it is damaged.
template <class Record>
Result<std::optional<Record>> GetRecord(Transaction& transaction, Database database,
                                        const std::string& key) {
  std::string value;
  ASSIGN_OR_RETURN(const bool found, transaction.GetTo(database, key, &value));
  if (!found) return std::nullopt;
  ASSIGN_OR_RETURN(Record record, Unseal<Record>(key, value));
  return record;
}

// What a record tells together with those it is based on.
struct TurnSize {
  uint64_t tokens = 0;
  uint64_t messages = 0;
  uint32_t records = 0;  // with its own; 0: there is no turn
};

// Of turn number `turn`, whose record this is; `base` is that of turn record.base, which has to be
// there. io_error naming what cannot be: all that the putting together relies on is checked here.
Result<TurnSize> SizeOf(const TurnRecord& record, uint32_t turn, const TurnSize& base);

// What tells `turn` after `previous`, number `previous_number`, which takes so many records itself.
// None: previous_number is 0.
TurnRecord DifferenceFrom(const StoredTurn& previous, uint32_t previous_number,
                          uint32_t previous_records, const StoredTurn& turn);

// The whole turn; not_found where there is none, io_error where it or what it is based on is
// damaged.
struct ReadTurn {
  StoredTurn turn;
  TurnSize size;
};
Result<ReadTurn> ReadWholeTurn(Transaction& transaction, Database turns, uint64_t serial,
                               uint32_t turn);

// The same, where `read` is turn `before` (0: none), in its place. With an error it is no turn.
Status ReadNextTurn(Transaction& transaction, Database turns, uint64_t serial, uint32_t turn,
                    uint32_t before, ReadTurn* read);
// How many tokens more the chains have with it: none where the last one begins with it, or it goes
// on with that.
size_t AddToChains(const StoredTurn& turn, std::vector<TurnChain>* chains);

// How many messages both begin with.
size_t CommonMessages(const StoredTurn& a, const StoredTurn& b);

}  // namespace perdure::snapshot
