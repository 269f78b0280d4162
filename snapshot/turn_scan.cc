#include "snapshot/turn_scan.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/masked.h"

namespace perdure::snapshot {
namespace {

std::string Hex(std::string_view bytes) {
  std::string text;
  for (const char c : bytes.substr(0, limits::kEchoBytesMax))
    text += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return text;
}

bool IsId(std::string_view id) {
  return !id.empty() && id.size() <= limits::kConversationIdBytesMax;
}

bool SaysTheSame(const ConversationRecord& record, const TurnSize& size) {
  return record.tokens == size.tokens && record.messages == size.messages;
}

}  // namespace

StoredConversation Told(uint64_t owner, std::string_view id, const ConversationRecord& record) {
  StoredConversation told;
  told.owner = owner;
  told.id = id;
  told.named = record.named;
  told.created_unix_ms = record.created_unix_ms;
  told.used_unix_ms = record.used_unix_ms;
  told.turns = record.turns;
  told.tokens = record.tokens;
  told.messages = record.messages;
  told.messages_hash = record.messages_hash;
  told.user = record.user;
  return told;
}

void Describe(const StoredTurn& turn, ConversationRecord* record) {
  record->used_unix_ms = turn.unix_ms;
  record->tokens = static_cast<uint32_t>(turn.ids.size());
  record->messages = static_cast<uint32_t>(turn.messages.size());
  record->messages_hash = turn.message_hashes.empty() ? 0 : turn.message_hashes.back();
}

Status TurnScan::Run(Transaction& transaction) {
  using Take = void (TurnScan::*)(std::string_view, std::string_view);
  const auto scan = [&](Database database, Take take) {
    return transaction.Scan(database, {}, [&](std::string_view key, std::string_view value) {
      (this->*take)(key, value);
      return true;
    });
  };
  RETURN_IF_ERROR(scan(databases_.conversations, &TurnScan::TakeConversation));
  RETURN_IF_ERROR(scan(databases_.turns, &TurnScan::TakeTurn));
  RETURN_IF_ERROR(Settle(transaction));
  RETURN_IF_ERROR(scan(databases_.requests, &TurnScan::TakeRequest));
  if (lost_requests_ > 0)
    Problem(fmt::format("{} records of requests told of turns that are not there", lost_requests_));
  return ReadCounter(transaction);
}

void TurnScan::TakeConversation(std::string_view key, std::string_view value) {
  const auto parsed = ParseConversationKey(key);
  if (!parsed || !IsId(parsed->id)) {
    Problem(fmt::format("a conversation's record has the key {}, which is none", Hex(key)));
    return Drop(databases_.conversations, key);
  }
  const auto lost = [&](std::string_view why) {
    Problem(fmt::format("conversation {} is lost: {}", Masked(parsed->id), why));
    Drop(databases_.conversations, key);
  };
  auto record = Unseal<ConversationRecord>(key, value);
  if (!record) return lost(record.error().message);
  next_serial_ = std::max(next_serial_, record->serial + 1);
  if (by_serial_.contains(record->serial)) return lost("its turns are another conversation's");
  by_serial_[record->serial] = {parsed->owner, parsed->id, std::move(*record), {}, {}};
}

void TurnScan::TakeTurn(std::string_view key, std::string_view value) {
  const auto parsed = ParseTurnKey(key);
  if (!parsed) {
    Problem(fmt::format("a turn's record has the key {}, which is none", Hex(key)));
    return Drop(databases_.turns, key);
  }
  next_serial_ = std::max(next_serial_, parsed->serial + 1);
  const auto found = by_serial_.find(parsed->serial);
  if (found == by_serial_.end()) {
    if (lost_serial_ != parsed->serial || lost_serial_ == 0)
      Problem(fmt::format("turns of number {} are lost: their conversation's record is not there",
                          parsed->serial));
    lost_serial_ = parsed->serial;
    return Drop(databases_.turns, key);
  }
  Conversation& conversation = found->second;
  if (conversation.problem.empty())
    conversation.problem = Append(&conversation, parsed->turn, key, value);
  if (!conversation.problem.empty()) Drop(databases_.turns, key);
}

std::string TurnScan::Append(Conversation* conversation, uint32_t turn, std::string_view key,
                             std::string_view value) {
  const auto next = static_cast<uint32_t>(conversation->turns.size() + 1);
  if (turn != next) return fmt::format("turn {} is not there", next);
  if (turn > conversation->record.turns) return fmt::format("turn {} is one too many", turn);
  const auto record = Unseal<TurnRecord>(key, value);
  if (!record) return fmt::format("turn {}: {}", turn, record.error().message);
  const bool has_base = record->base != 0 && record->base < turn;
  const auto size =
      SizeOf(*record, turn, has_base ? conversation->turns[record->base - 1].size : TurnSize{});
  if (!size) return size.error().message;
  conversation->turns.push_back({*size, record->rid, record->choice});
  return {};
}

// Conversations are cut to their whole turns.
Status TurnScan::Settle(Transaction& transaction) {
  for (auto it = by_serial_.begin(); it != by_serial_.end();) {
    const uint64_t serial = it->first;
    Conversation& conversation = it->second;
    ConversationRecord& record = conversation.record;
    const std::string key = ConversationKey(conversation.owner, conversation.id);
    const auto turns = static_cast<uint32_t>(conversation.turns.size());
    if (turns < record.turns && conversation.problem.empty())
      conversation.problem = fmt::format("turn {} is not there", turns + 1);
    if (turns == 0) {
      Problem(fmt::format(
          "conversation {} is lost: {}", Masked(conversation.id),
          conversation.problem.empty() ? "it has no turns" : conversation.problem.c_str()));
      Drop(databases_.conversations, key);
      it = by_serial_.erase(it);
      continue;
    }
    const bool is_right = SaysTheSame(record, conversation.turns.back().size);
    if (turns == record.turns && is_right && conversation.problem.empty()) {
      ++it;
      continue;
    }
    if (turns < record.turns)
      Problem(fmt::format("conversation {} has lost its turns behind number {} of {}: {}",
                          Masked(conversation.id), turns, record.turns, conversation.problem));
    else
      Problem(fmt::format("conversation {} has all of its turns; corrected: {}",
                          Masked(conversation.id),
                          conversation.problem.empty() ? "its record said otherwise"
                                                       : conversation.problem.c_str()));
    ASSIGN_OR_RETURN(const ReadTurn last,
                     ReadWholeTurn(transaction, databases_.turns, serial, turns));
    record.turns = turns;
    Describe(last.turn, &record);
    changes_.emplace_back(key, Seal(key, record));
    ++it;
  }
  return {};
}

void TurnScan::TakeRequest(std::string_view key, std::string_view value) {
  const auto parsed = ParseRequestKey(key);
  if (!parsed) {
    Problem(fmt::format("a request's record has the key {}, which is none", Hex(key)));
    return Drop(databases_.requests, key);
  }
  const auto record = Unseal<RequestRecord>(key, value);
  if (!record) {
    Problem(fmt::format("of request {:016x}, choice {}: {}", parsed->rid, parsed->choice,
                        record.error().message));
    return Drop(databases_.requests, key);
  }
  const auto found = by_serial_.find(record->serial);
  const auto points_there = [&](const Conversation& conversation) {
    if (conversation.owner != record->owner || conversation.id != record->conversation ||
        record->turn == 0 || record->turn > conversation.turns.size())
      return false;
    const Turn& turn = conversation.turns[record->turn - 1];
    return turn.rid == parsed->rid && turn.choice == parsed->choice;
  };
  if (found != by_serial_.end() && points_there(found->second)) return;
  ++lost_requests_;
  Drop(databases_.requests, key);
}

Status TurnScan::ReadCounter(Transaction& transaction) {
  std::string value;
  ASSIGN_OR_RETURN(const bool found, transaction.GetTo(databases_.counters, kSerialKey, &value));
  if (!found) {
    is_counter_wrong_ = next_serial_ > 1;
    if (is_counter_wrong_) Problem("the counter of conversations is not there");
    return {};
  }
  const auto record = Unseal<CounterRecord>(kSerialKey, value);
  if (record && record->next >= next_serial_) {
    next_serial_ = record->next;
    return {};
  }
  is_counter_wrong_ = true;
  Problem(record ? "the counter of conversations is too low"
                 : "of the counter of conversations: " + record.error().message);
  return {};
}

Status TurnScan::Repair(Transaction& transaction) const {
  for (const auto& [database, key] : drops_) RETURN_IF_ERROR(transaction.Delete(database, key));
  for (const auto& [key, value] : changes_)
    RETURN_IF_ERROR(transaction.Put(databases_.conversations, key, value));
  if (!is_counter_wrong_) return {};
  return transaction.Put(databases_.counters, kSerialKey,
                         Seal(kSerialKey, CounterRecord{next_serial_}));
}

std::vector<StoredConversation> TurnScan::conversations() const {
  std::vector<StoredConversation> found;
  for (const auto& [serial, conversation] : by_serial_)
    found.push_back(Told(conversation.owner, conversation.id, conversation.record));
  return found;
}

std::vector<std::string> TurnScan::problems() const {
  std::vector<std::string> problems = problems_;
  if (problem_count_ > problems_.size())
    problems.push_back(fmt::format("and {} more", problem_count_ - problems_.size()));
  return problems;
}

void TurnScan::Problem(std::string text) {
  if (++problem_count_ <= limits::kSnapshotProblemsShown) problems_.push_back(std::move(text));
}

}  // namespace perdure::snapshot
