// The environment of what was said: conversations and their turns. For one thread.
//
// A turn is stored when Commit has returned, once: a second time the same request's answer changes
// nothing. Turns are whole to the outside; in the file each tells what differs from one before.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/cache_settings.h"
#include "base/result.h"
#include "base/token.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"

namespace perdure::snapshot {

// What is known of a conversation without reading its turns.
struct StoredConversation {
  uint64_t owner = 0;
  std::string id;
  bool named = false;
  int64_t created_unix_ms = 0;
  int64_t used_unix_ms = 0;
  uint32_t turns = 0;  // 1 and above: its last turn
  uint32_t tokens = 0;
  uint32_t messages = 0;
  uint64_t messages_hash = 0;  // of all messages; 0: it has none
  std::string user;
};

struct StoredTurn {
  uint64_t rid = 0;
  uint32_t choice = 0;
  int64_t unix_ms = 0;
  uint8_t finish = 0;
  std::vector<TokenId> ids;  // of prompt and answer
  std::vector<bool> drawn;   // of ids
  uint32_t prompt_tokens = 0;
  std::vector<std::string> messages;     // JSON; the last one is the answer
  std::vector<uint64_t> message_hashes;  // of each message
  CacheSchedule schedule;
  uint64_t fingerprint = 0, numerics = 0;
};

// Whose turn it is.
struct TurnOwner {
  uint64_t owner = 0;
  std::string id;  // 1 to kConversationIdBytesMax bytes
  bool named = false;
  std::string user;  // up to kConversationUserBytesMax; empty: as it was
};

// By which the pages of turns are found: the tokens of one of them, and those others with which it
// begins.
struct TurnChain {
  std::vector<TokenId> ids;    // of prompt and answer
  std::vector<uint32_t> ends;  // with how many of them a turn ends, ascending; the last: with all
  CacheSchedule schedule;
  uint64_t fingerprint = 0, numerics = 0;
};

// For people who look at a conversation.
struct TurnSummary {
  uint32_t turn = 0;
  int64_t unix_ms = 0;
  uint8_t finish = 0;
  uint32_t choice = 0;
  uint32_t prompt_tokens = 0;
  uint32_t answer_tokens = 0;
  std::vector<std::string> messages;  // that the turn before did not have; the last is the answer
};

struct TurnDatabases {
  Database conversations = 0, turns = 0, requests = 0, counters = 0;
};

class TurnFile {
 public:
  struct Options {
    std::filesystem::path file;
    std::string model;
    uint64_t bytes_max = 0;
    bool sync = true;
    int lock_wait_ms = 0;
    bool read_only = false;  // see EnvironmentOptions; nobody else has it
  };
  // Reads and checks all that is stored: damaged records are dropped, with what hangs on them (a
  // conversation keeps its turns before a damaged one), and named in problems(). A file that is
  // damaged beyond that is put aside (Environment::Open), and a new one begun. With read_only
  // nothing is dropped, only named.
  static Result<std::unique_ptr<TurnFile>> Open(const Options& options);

  // As they were found by Open, in no order.
  std::vector<StoredConversation> TakeConversations() { return std::move(found_); }
  const std::vector<std::string>& problems() const { return problems_; }

  // Appends a turn; its conversation begins where there is none with that owner and id. What is
  // known of it afterwards; of a request's answer that is stored already, as it is now. What is
  // longer than limits.h allows is invalid_request. io_error, and nothing is stored, where the turn
  // before cannot be read.
  Result<StoredConversation> Commit(const TurnOwner& owner, const StoredTurn& turn);

  // Turn `turn`, or the last one (0). not_found where there is none. Whether its schedule makes
  // sense is not looked at.
  Result<StoredTurn> Load(uint64_t owner, std::string_view id, uint32_t turn = 0);
  // All of a conversation's turns.
  Result<std::vector<TurnSummary>> Turns(uint64_t owner, std::string_view id);

  // A copy up to and with `turn` (0: all), as new_id, named; created and used at `unix_ms`.
  // invalid_request where that exists.
  Result<StoredConversation> Fork(uint64_t owner, std::string_view id, uint32_t turn,
                                  std::string_view new_id, int64_t unix_ms);
  // Forgets the turns behind `turn`, which is there. Last used then is when that turn was.
  Result<StoredConversation> Rewind(uint64_t owner, std::string_view id, uint32_t turn);
  // All of them or none; no error where there is none.
  Status Delete(std::span<const std::pair<uint64_t, std::string>> conversations);
  Status Delete(uint64_t owner, std::string_view id);

  // Of a conversation's turns from `from` up to and with `to` (0: the last one), as many as have
  // together `tokens_max`, one at least; what cannot be read is left out. `next`: where it goes on;
  // 0: that is all. not_found where there is no such conversation.
  struct Chains {
    std::vector<TurnChain> chains;
    uint32_t next = 0;
  };
  Result<Chains> ReadChains(uint64_t owner, std::string_view id, uint32_t from, uint32_t to,
                            size_t tokens_max);

  // Without what was deleted, in the place of the file as it is now: no trace of that is left.
  Status Compact();
  Environment& environment() { return *environment_; }

 private:
  TurnFile() = default;
  void TakeDatabases();
  struct Known;  // a conversation's key and record
  Result<std::optional<Known>> Find(Transaction& transaction, uint64_t owner, std::string_view id);
  Result<Known> Get(Transaction& transaction, uint64_t owner, std::string_view id);
  Result<std::optional<StoredConversation>> FindAnswer(Transaction& transaction,
                                                       const StoredTurn& turn);
  Result<uint64_t> TakeSerial(Transaction& transaction, uint64_t* next);
  Status Append(Transaction& transaction, const TurnOwner& owner, const StoredTurn& turn,
                Known* known);
  Result<TurnRecord> GetTurn(Transaction& transaction, uint64_t serial, uint32_t turn);
  Result<TurnSummary> Summary(Transaction& transaction, uint64_t serial, uint32_t turn);
  Status DropTurns(Transaction& transaction, uint64_t serial, uint32_t from);

  Options options_;
  TurnDatabases databases_;
  std::unique_ptr<Environment> environment_;
  std::vector<StoredConversation> found_;
  std::vector<std::string> problems_;
  uint64_t next_serial_ = 1;
};

}  // namespace perdure::snapshot
