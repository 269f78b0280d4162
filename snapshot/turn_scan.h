// All of a file of turns, read and checked: what is whole, and what is to be dropped so that the
// rest is.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"
#include "snapshot/turn_chain.h"
#include "snapshot/turn_file.h"

namespace perdure::snapshot {

StoredConversation Told(uint64_t owner, std::string_view id, const ConversationRecord& record);
// What a conversation's record says of its last turn.
void Describe(const StoredTurn& turn, ConversationRecord* record);

class TurnScan {
 public:
  explicit TurnScan(const TurnDatabases& databases) : databases_(databases) {}

  // Changes nothing.
  Status Run(Transaction& transaction);
  bool is_damaged() const { return !drops_.empty() || !changes_.empty() || is_counter_wrong_; }
  // Drops what Run has found to be.
  Status Repair(Transaction& transaction) const;

  std::vector<StoredConversation> conversations() const;
  // In words; the first ones and how many more there are.
  std::vector<std::string> problems() const;
  uint64_t next_serial() const { return next_serial_; }

 private:
  struct Turn {
    TurnSize size;
    uint64_t rid = 0;
    uint32_t choice = 0;
  };
  struct Conversation {
    uint64_t owner = 0;
    std::string id;
    ConversationRecord record;
    std::vector<Turn> turns;  // whole ones
    std::string problem;      // of the turn behind them
  };
  void TakeConversation(std::string_view key, std::string_view value);
  void TakeTurn(std::string_view key, std::string_view value);
  void TakeRequest(std::string_view key, std::string_view value);
  Status Settle(Transaction& transaction);
  Status ReadCounter(Transaction& transaction);
  // What is wrong with the turn that comes next; it is added where nothing is.
  std::string Append(Conversation* conversation, uint32_t turn, std::string_view key,
                     std::string_view value);
  void Drop(Database database, std::string_view key) {
    drops_.emplace_back(database, std::string(key));
  }
  void Problem(std::string text);

  const TurnDatabases databases_;
  std::map<uint64_t, Conversation> by_serial_;
  uint64_t next_serial_ = 1;
  bool is_counter_wrong_ = false;
  std::vector<std::pair<Database, std::string>> drops_;       // keys
  std::vector<std::pair<std::string, std::string>> changes_;  // keys and values of conversations
  std::vector<std::string> problems_;
  size_t problem_count_ = 0;
  uint64_t lost_serial_ = 0;  // of the turn without a conversation that was named last
  size_t lost_requests_ = 0;
};

}  // namespace perdure::snapshot
