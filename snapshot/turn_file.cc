#include "snapshot/turn_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "snapshot/page_check.h"
#include "snapshot/turn_chain.h"
#include "snapshot/turn_scan.h"

namespace perdure::snapshot {
namespace {

// In this order; Environment knows them by number.
const std::vector<std::string> kDatabases = {"conversations", "turns", "requests", "counters"};

Status CheckId(std::string_view id) {
  if (!id.empty() && id.size() <= limits::kConversationIdBytesMax) return {};
  return Err(ErrorCode::invalid_request,
             fmt::format("the id of a conversation has 1 to {} bytes, not {}",
                         limits::kConversationIdBytesMax, id.size()));
}

// What a reader would refuse is not written.
Status Check(const TurnOwner& owner, const StoredTurn& turn) {
  RETURN_IF_ERROR(CheckId(owner.id));
  CHECK(turn.drawn.size() == turn.ids.size());
  CHECK(turn.message_hashes.size() == turn.messages.size());
  CHECK(turn.prompt_tokens <= turn.ids.size());
  size_t bytes = 0;
  for (const std::string& message : turn.messages) bytes += message.size();
  const auto too_many = [](std::string_view what, size_t is, size_t most) {
    return Err(
        ErrorCode::invalid_request,
        fmt::format("a turn of {} {} is too long to be stored; {} are possible", is, what, most));
  };
  if (owner.user.size() > limits::kConversationUserBytesMax)
    return too_many("bytes of user", owner.user.size(), limits::kConversationUserBytesMax);
  if (turn.ids.size() > limits::kContextMax)
    return too_many("tokens", turn.ids.size(), limits::kContextMax);
  if (turn.messages.size() > limits::kTurnMessagesMax)
    return too_many("messages", turn.messages.size(), limits::kTurnMessagesMax);
  if (bytes > limits::kTurnMessagesBytesMax)
    return too_many("bytes of messages", bytes, limits::kTurnMessagesBytesMax);
  // All else is as any record would have it.
  const auto size = SizeOf(DifferenceFrom({}, 0, 0, turn), 1, {});
  if (!size) return Err(ErrorCode::invalid_request, size.error().message);
  return {};
}

}  // namespace

struct TurnFile::Known {
  std::string key;
  ConversationRecord record;
};

Result<std::unique_ptr<TurnFile>> TurnFile::Open(const Options& options) {
  std::unique_ptr<TurnFile> file(new TurnFile);
  file->options_ = options;
  ASSIGN_OR_RETURN(file->environment_, Environment::Open({.file = options.file,
                                                          .name = "turns",
                                                          .model = options.model,
                                                          .bytes_max = options.bytes_max,
                                                          .sync = options.sync,
                                                          .lock_wait_ms = options.lock_wait_ms,
                                                          .read_only = options.read_only,
                                                          .lock = !options.read_only},
                                                         kDatabases));
  Environment& environment = *file->environment_;
  file->TakeDatabases();
  TurnScan scan(file->databases_);
  bool is_damaged = false;
  Status read = CheckPages(options.file, &is_damaged);
  if (read) {
    read = environment.Read([&](Transaction& t) { return scan.Run(t); });
    is_damaged = environment.last_failure() == Environment::Failure::kDamaged;
  }
  if (!read && is_damaged && !options.read_only) {
    // Not records, but what LMDB finds them by.
    RETURN_IF_ERROR(environment.BeginAnew(read.error().message));
    file->TakeDatabases();
    file->problems_ = {"all conversations are lost: " + read.error().message};
    return file;
  }
  RETURN_IF_ERROR(read);
  if (scan.is_damaged() && !options.read_only)
    RETURN_IF_ERROR(environment.Write([&](Transaction& t) { return scan.Repair(t); }));
  file->found_ = scan.conversations();
  file->problems_ = scan.problems();
  file->next_serial_ = scan.next_serial();
  return file;
}

Status TurnFile::Compact() {
  const Status done = environment_->Compact();
  TakeDatabases();
  return done;
}

void TurnFile::TakeDatabases() {
  databases_ = {environment_->database(0), environment_->database(1), environment_->database(2),
                environment_->database(3)};
}

Result<std::optional<TurnFile::Known>> TurnFile::Find(Transaction& transaction, uint64_t owner,
                                                      std::string_view id) {
  std::string key = ConversationKey(owner, id);
  ASSIGN_OR_RETURN(auto record,
                   GetRecord<ConversationRecord>(transaction, databases_.conversations, key));
  if (!record) return std::nullopt;
  return Known{std::move(key), std::move(*record)};
}

Result<TurnFile::Known> TurnFile::Get(Transaction& transaction, uint64_t owner,
                                      std::string_view id) {
  RETURN_IF_ERROR(CheckId(id));
  ASSIGN_OR_RETURN(auto known, Find(transaction, owner, id));
  if (!known) return Err(ErrorCode::not_found, "there is no such conversation");
  return std::move(*known);
}

Result<std::optional<StoredConversation>> TurnFile::FindAnswer(Transaction& transaction,
                                                               const StoredTurn& turn) {
  ASSIGN_OR_RETURN(const auto request, GetRecord<RequestRecord>(transaction, databases_.requests,
                                                                RequestKey(turn.rid, turn.choice)));
  if (!request) return std::nullopt;
  ASSIGN_OR_RETURN(const auto known, Find(transaction, request->owner, request->conversation));
  if (!known || known->record.serial != request->serial || known->record.turns < request->turn)
    return Err(ErrorCode::io_error, "the request's record tells of a turn that is not there");
  return Told(request->owner, request->conversation, known->record);
}

Result<uint64_t> TurnFile::TakeSerial(Transaction& transaction, uint64_t* next) {
  const uint64_t serial = (*next)++;
  RETURN_IF_ERROR(
      transaction.Put(databases_.counters, kSerialKey, Seal(kSerialKey, CounterRecord{*next})));
  return serial;
}

Result<StoredConversation> TurnFile::Commit(const TurnOwner& owner, const StoredTurn& turn) {
  RETURN_IF_ERROR(Check(owner, turn));
  StoredConversation stored;
  uint64_t next_serial = 0;
  RETURN_IF_ERROR(environment_->Write([&](Transaction& transaction) -> Status {
    next_serial = next_serial_;
    ASSIGN_OR_RETURN(auto answer, FindAnswer(transaction, turn));
    if (answer) {
      stored = std::move(*answer);
      return {};
    }
    ASSIGN_OR_RETURN(auto known, Find(transaction, owner.owner, owner.id));
    if (!known) {
      known.emplace();
      known->key = ConversationKey(owner.owner, owner.id);
      known->record.created_unix_ms = turn.unix_ms;
      ASSIGN_OR_RETURN(known->record.serial, TakeSerial(transaction, &next_serial));
    }
    RETURN_IF_ERROR(Append(transaction, owner, turn, &*known));
    stored = Told(owner.owner, owner.id, known->record);
    return {};
  }));
  next_serial_ = next_serial;
  return stored;
}

Status TurnFile::Append(Transaction& transaction, const TurnOwner& owner, const StoredTurn& turn,
                        Known* known) {
  ConversationRecord& record = known->record;
  ReadTurn previous;
  if (record.turns != 0) {
    // A turn behind one that is damaged would be dropped by the next Open.
    auto read = ReadWholeTurn(transaction, databases_.turns, record.serial, record.turns);
    if (!read) return Err(ErrorCode::io_error, "the turn before: " + read.error().message);
    previous = std::move(*read);
  }
  const std::string turn_key = TurnKey(record.serial, record.turns + 1);
  const TurnRecord difference =
      DifferenceFrom(previous.turn, record.turns, previous.size.records, turn);
  RETURN_IF_ERROR(transaction.Put(databases_.turns, turn_key, Seal(turn_key, difference)));
  ++record.turns;
  Describe(turn, &record);
  record.named |= owner.named;
  if (!owner.user.empty()) record.user = owner.user;
  RETURN_IF_ERROR(transaction.Put(databases_.conversations, known->key, Seal(known->key, record)));
  const std::string request_key = RequestKey(turn.rid, turn.choice);
  const RequestRecord request{owner.owner, owner.id, record.serial, record.turns};
  return transaction.Put(databases_.requests, request_key, Seal(request_key, request));
}

Result<StoredTurn> TurnFile::Load(uint64_t owner, std::string_view id, uint32_t turn) {
  StoredTurn loaded;
  RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(const Known known, Get(transaction, owner, id));
    ASSIGN_OR_RETURN(ReadTurn read,
                     ReadWholeTurn(transaction, databases_.turns, known.record.serial,
                                   turn != 0 ? turn : known.record.turns));
    loaded = std::move(read.turn);
    return {};
  }));
  return loaded;
}

Result<std::vector<TurnSummary>> TurnFile::Turns(uint64_t owner, std::string_view id) {
  std::vector<TurnSummary> turns;
  RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(const Known known, Get(transaction, owner, id));
    for (uint32_t turn = 1; turn <= known.record.turns; ++turn) {
      ASSIGN_OR_RETURN(TurnSummary summary, Summary(transaction, known.record.serial, turn));
      turns.push_back(std::move(summary));
    }
    return {};
  }));
  return turns;
}

// One that has to be there.
Result<TurnRecord> TurnFile::GetTurn(Transaction& transaction, uint64_t serial, uint32_t turn) {
  ASSIGN_OR_RETURN(auto record,
                   GetRecord<TurnRecord>(transaction, databases_.turns, TurnKey(serial, turn)));
  if (!record) return Err(ErrorCode::io_error, fmt::format("turn {} is not there", turn));
  return std::move(*record);
}

// What stands in a turn's own record is enough, if that tells what differs from the turn before.
Result<TurnSummary> TurnFile::Summary(Transaction& transaction, uint64_t serial, uint32_t turn) {
  ASSIGN_OR_RETURN(TurnRecord record, GetTurn(transaction, serial, turn));
  TurnSummary summary;
  summary.turn = turn;
  summary.unix_ms = record.unix_ms;
  summary.finish = record.finish;
  summary.choice = record.choice;
  summary.prompt_tokens = record.prompt_tokens;
  summary.answer_tokens =
      record.base_tokens + static_cast<uint32_t>(record.ids.size()) - record.prompt_tokens;
  if (record.base + 1 == turn) {
    summary.messages = std::move(record.messages);
    return summary;
  }
  ASSIGN_OR_RETURN(const ReadTurn before,
                   ReadWholeTurn(transaction, databases_.turns, serial, turn - 1));
  ASSIGN_OR_RETURN(ReadTurn whole, ReadWholeTurn(transaction, databases_.turns, serial, turn));
  const auto common = static_cast<std::ptrdiff_t>(CommonMessages(before.turn, whole.turn));
  std::vector<std::string>& messages = whole.turn.messages;
  messages.erase(messages.begin(), messages.begin() + common);
  summary.messages = std::move(messages);
  return summary;
}

Result<StoredConversation> TurnFile::Fork(uint64_t owner, std::string_view id, uint32_t turn,
                                          std::string_view new_id, int64_t unix_ms) {
  RETURN_IF_ERROR(CheckId(new_id));
  StoredConversation stored;
  uint64_t next_serial = 0;
  RETURN_IF_ERROR(environment_->Write([&](Transaction& transaction) -> Status {
    next_serial = next_serial_;
    ASSIGN_OR_RETURN(const Known from, Get(transaction, owner, id));
    if (turn == 0) turn = from.record.turns;
    ASSIGN_OR_RETURN(const auto taken, Find(transaction, owner, new_id));
    if (taken)
      return Err(ErrorCode::invalid_request, "there is a conversation with the new id already",
                 "id");
    ASSIGN_OR_RETURN(const ReadTurn last,
                     ReadWholeTurn(transaction, databases_.turns, from.record.serial, turn));
    Known copy{ConversationKey(owner, new_id), from.record};
    ASSIGN_OR_RETURN(copy.record.serial, TakeSerial(transaction, &next_serial));
    for (uint32_t number = 1; number <= turn; ++number) {
      ASSIGN_OR_RETURN(const TurnRecord record, GetTurn(transaction, from.record.serial, number));
      const std::string new_key = TurnKey(copy.record.serial, number);
      RETURN_IF_ERROR(transaction.Put(databases_.turns, new_key, Seal(new_key, record)));
    }
    Describe(last.turn, &copy.record);
    copy.record.turns = turn;
    copy.record.named = true;
    copy.record.created_unix_ms = copy.record.used_unix_ms = unix_ms;
    stored = Told(owner, new_id, copy.record);
    return transaction.Put(databases_.conversations, copy.key, Seal(copy.key, copy.record));
  }));
  next_serial_ = next_serial;
  return stored;
}

Result<StoredConversation> TurnFile::Rewind(uint64_t owner, std::string_view id, uint32_t turn) {
  StoredConversation stored;
  RETURN_IF_ERROR(environment_->Write([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(Known known, Get(transaction, owner, id));
    ASSIGN_OR_RETURN(const ReadTurn last,
                     ReadWholeTurn(transaction, databases_.turns, known.record.serial, turn));
    if (turn < known.record.turns) {
      RETURN_IF_ERROR(transaction.NoteDeletion());
      RETURN_IF_ERROR(DropTurns(transaction, known.record.serial, turn + 1));
      known.record.turns = turn;
      Describe(last.turn, &known.record);
      RETURN_IF_ERROR(
          transaction.Put(databases_.conversations, known.key, Seal(known.key, known.record)));
    }
    stored = Told(owner, id, known.record);
    return {};
  }));
  return stored;
}

Status TurnFile::Delete(std::span<const std::pair<uint64_t, std::string>> conversations) {
  for (const auto& [owner, id] : conversations) RETURN_IF_ERROR(CheckId(id));
  return environment_->Write([&](Transaction& transaction) -> Status {
    for (const auto& [owner, id] : conversations) {
      ASSIGN_OR_RETURN(const auto known, Find(transaction, owner, id));
      if (!known) continue;
      RETURN_IF_ERROR(transaction.NoteDeletion());
      RETURN_IF_ERROR(DropTurns(transaction, known->record.serial, 1));
      RETURN_IF_ERROR(transaction.Delete(databases_.conversations, known->key));
    }
    return {};
  });
}

Status TurnFile::Delete(uint64_t owner, std::string_view id) {
  const std::pair<uint64_t, std::string> one(owner, id);
  return Delete(std::span(&one, 1));
}

// One after another: each is mostly based on the one before.
Result<TurnFile::Chains> TurnFile::ReadChains(uint64_t owner, std::string_view id, uint32_t from,
                                              uint32_t to, size_t tokens_max) {
  Chains read;
  RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(const Known known, Get(transaction, owner, id));
    const uint32_t last = to == 0 ? known.record.turns : std::min(to, known.record.turns);
    ReadTurn turn;
    uint32_t number = 0;  // of it; 0: there is none
    size_t tokens = 0;
    for (uint32_t next = std::max(from, 1u); next <= last; ++next) {
      if (tokens >= tokens_max) {
        read.next = next;
        return {};
      }
      const Status status =
          ReadNextTurn(transaction, databases_.turns, known.record.serial, next, number, &turn);
      number = status ? next : 0;
      if (status) tokens += AddToChains(turn.turn, &read.chains);
    }
    return {};
  }));
  return read;
}

// And what tells of the requests that they answered.
Status TurnFile::DropTurns(Transaction& transaction, uint64_t serial, uint32_t from) {
  std::vector<std::string> turns, requests;
  bool is_damaged = false;
  RETURN_IF_ERROR(transaction.Scan(databases_.turns, TurnKey(serial, from),
                                   [&](std::string_view key, std::string_view value) {
                                     const auto parsed = ParseTurnKey(key);
                                     if (!parsed || parsed->serial != serial) return false;
                                     turns.emplace_back(key);
                                     if (const auto record = Unseal<TurnRecord>(key, value))
                                       requests.push_back(RequestKey(record->rid, record->choice));
                                     else
                                       is_damaged = true;
                                     return true;
                                   }));
  // A fork's turns have answered no request: their records are the original's.
  const auto is_of_these = [&](std::string_view key, std::string_view value) {
    const auto record = Unseal<RequestRecord>(key, value);
    return record && record->serial == serial && record->turn >= from;
  };
  std::vector<std::string> drops;
  if (is_damaged) {
    // Which request a damaged turn has answered only the requests tell.
    RETURN_IF_ERROR(transaction.Scan(databases_.requests, {},
                                     [&](std::string_view key, std::string_view value) {
                                       if (is_of_these(key, value)) drops.emplace_back(key);
                                       return true;
                                     }));
  } else {
    for (const std::string& key : requests) {
      std::string value;
      ASSIGN_OR_RETURN(const bool found, transaction.GetTo(databases_.requests, key, &value));
      if (found && is_of_these(key, value)) drops.push_back(key);
    }
  }
  for (const std::string& key : turns) RETURN_IF_ERROR(transaction.Delete(databases_.turns, key));
  for (const std::string& key : drops)
    RETURN_IF_ERROR(transaction.Delete(databases_.requests, key));
  return {};
}

}  // namespace perdure::snapshot
