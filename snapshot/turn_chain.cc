#include "snapshot/turn_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/limits.h"

namespace perdure::snapshot {
namespace {

constexpr size_t kBitsOfByte = 8;

tl::unexpected<Error> Wrong(uint32_t turn, std::string_view what) {
  return Err(ErrorCode::io_error, fmt::format("turn {}: {}", turn, what));
}

bool BitOf(const std::vector<uint8_t>& bits, size_t i) {
  return (bits[i / kBitsOfByte] >> i % kBitsOfByte & 1) != 0;
}

bool IsBounded(const CacheSchedule& schedule) {
  return schedule.type.size() <= limits::kCacheTypeNameBytesMax && !schedule.segments.empty() &&
         schedule.segments.size() <= static_cast<size_t>(limits::kCacheSegmentsMax);
}

size_t CommonTokens(const StoredTurn& a, const StoredTurn& b) {
  const size_t most = std::min(a.ids.size(), b.ids.size());
  size_t common = 0;
  while (common < most && a.ids[common] == b.ids[common] && a.drawn[common] == b.drawn[common])
    ++common;
  return common;
}

// `turn` is what `record` is based on, and then what it tells.
void Apply(TurnRecord record, StoredTurn* turn) {
  turn->rid = record.rid;
  turn->choice = record.choice;
  turn->unix_ms = record.unix_ms;
  turn->finish = record.finish;
  turn->prompt_tokens = record.prompt_tokens;
  turn->schedule = std::move(record.schedule);
  turn->fingerprint = record.fingerprint;
  turn->numerics = record.numerics;
  turn->ids.resize(record.base_tokens);
  turn->ids.insert(turn->ids.end(), record.ids.begin(), record.ids.end());
  turn->drawn.resize(record.base_tokens);
  for (size_t i = 0; i < record.ids.size(); ++i) turn->drawn.push_back(BitOf(record.drawn, i));
  turn->messages.resize(record.base_messages);
  std::ranges::move(record.messages, std::back_inserter(turn->messages));
  turn->message_hashes.resize(record.base_messages);
  std::ranges::copy(record.message_hashes, std::back_inserter(turn->message_hashes));
}

}  // namespace

size_t CommonMessages(const StoredTurn& a, const StoredTurn& b) {
  const size_t most = std::min(a.messages.size(), b.messages.size());
  size_t common = 0;
  while (common < most && a.message_hashes[common] == b.message_hashes[common] &&
         a.messages[common] == b.messages[common])
    ++common;
  return common;
}

Result<TurnSize> SizeOf(const TurnRecord& record, uint32_t turn, const TurnSize& base) {
  // Ascending bases cannot make a circle.
  if (record.base >= turn) return Wrong(turn, "is based on itself or a later one");
  if (record.base != 0 && base.records == 0) return Wrong(turn, "what it is based on is not there");
  const TurnSize whole = record.base != 0 ? base : TurnSize{};
  if (record.base_tokens > whole.tokens)
    return Wrong(turn, "has more tokens of its base than that");
  if (record.base_messages > whole.messages)
    return Wrong(turn, "has more messages of its base than that");
  const size_t bytes = (record.ids.size() + kBitsOfByte - 1) / kBitsOfByte;
  if (record.drawn.size() != bytes) return Wrong(turn, "tells of other tokens that they are drawn");
  if (record.ids.size() % kBitsOfByte != 0 &&
      record.drawn.back() >> record.ids.size() % kBitsOfByte != 0)
    return Wrong(turn, "tells of tokens that are not there that they are drawn");
  if (record.messages.size() != record.message_hashes.size())
    return Wrong(turn, "has another number of hashes than of messages");
  const TurnSize size{record.base_tokens + uint64_t{record.ids.size()},
                      record.base_messages + uint64_t{record.messages.size()}, whole.records + 1};
  if (size.tokens > limits::kContextMax) return Wrong(turn, "has more tokens than any model takes");
  if (size.messages > limits::kTurnMessagesMax)
    return Wrong(turn, "has more messages than a request can have");
  if (size.records > limits::kTurnChainMax) return Wrong(turn, "is based on too many others");
  if (record.prompt_tokens > size.tokens) return Wrong(turn, "has a prompt of more tokens than it");
  if (!IsBounded(record.schedule)) return Wrong(turn, "has a cache schedule that cannot be");
  return size;
}

TurnRecord DifferenceFrom(const StoredTurn& previous, uint32_t previous_number,
                          uint32_t previous_records, const StoredTurn& turn) {
  TurnRecord record;
  record.rid = turn.rid;
  record.choice = turn.choice;
  record.unix_ms = turn.unix_ms;
  record.finish = turn.finish;
  record.prompt_tokens = turn.prompt_tokens;
  record.schedule = turn.schedule;
  record.fingerprint = turn.fingerprint;
  record.numerics = turn.numerics;
  size_t tokens = 0, messages = 0;
  if (previous_number != 0 && previous_records < limits::kTurnChainMax) {
    tokens = CommonTokens(previous, turn);
    messages = CommonMessages(previous, turn);
  }
  if (tokens + messages > 0) record.base = previous_number;
  record.base_tokens = static_cast<uint32_t>(tokens);
  record.base_messages = static_cast<uint32_t>(messages);
  const auto behind = [](const auto& all, size_t from) {
    return std::vector(all.begin() + static_cast<std::ptrdiff_t>(from), all.end());
  };
  record.ids = behind(turn.ids, tokens);
  record.drawn.resize((record.ids.size() + kBitsOfByte - 1) / kBitsOfByte);
  for (size_t i = 0; i < record.ids.size(); ++i)
    if (turn.drawn[tokens + i])
      record.drawn[i / kBitsOfByte] |= static_cast<uint8_t>(1 << i % kBitsOfByte);
  record.messages = behind(turn.messages, messages);
  record.message_hashes = behind(turn.message_hashes, messages);
  return record;
}

Result<ReadTurn> ReadWholeTurn(Transaction& transaction, Database turns, uint64_t serial,
                               uint32_t turn) {
  struct Link {
    TurnRecord record;
    uint32_t turn;
  };
  std::vector<Link> chain;  // from the last one to the one that stands for itself
  for (uint32_t next = turn; next != 0;) {
    if (chain.size() == limits::kTurnChainMax) return Wrong(turn, "is based on too many others");
    auto record = GetRecord<TurnRecord>(transaction, turns, TurnKey(serial, next));
    if (!record) return ErrWithContext(fmt::format("turn {}", next), record.error());
    if (!*record) {
      if (chain.empty()) return Err(ErrorCode::not_found, fmt::format("there is no turn {}", turn));
      return Wrong(turn, fmt::format("turn {}, which it is based on, is not there", next));
    }
    const uint32_t base = (*record)->base;
    if (base >= next) return Wrong(next, "is based on itself or a later one");
    chain.push_back({std::move(**record), next});
    next = base;
  }
  if (chain.empty()) return Err(ErrorCode::not_found, "there is no turn 0");
  ReadTurn read;
  for (auto link = chain.rbegin(); link != chain.rend(); ++link) {
    ASSIGN_OR_RETURN(read.size, SizeOf(link->record, link->turn, read.size));
    Apply(std::move(link->record), &read.turn);
  }
  return read;
}

Status ReadNextTurn(Transaction& transaction, Database turns, uint64_t serial, uint32_t turn,
                    uint32_t before, ReadTurn* read) {
  auto record = GetRecord<TurnRecord>(transaction, turns, TurnKey(serial, turn));
  if (record && *record && ((*record)->base == 0 || (*record)->base == before)) {
    const TurnSize base = (*record)->base == 0 ? TurnSize{} : read->size;
    ASSIGN_OR_RETURN(read->size, SizeOf(**record, turn, base));
    Apply(std::move(**record), &read->turn);
    return {};
  }
  ASSIGN_OR_RETURN(*read, ReadWholeTurn(transaction, turns, serial, turn));
  return {};
}

size_t AddToChains(const StoredTurn& turn, std::vector<TurnChain>* chains) {
  const auto begins_with = [](const std::vector<TokenId>& ids, const std::vector<TokenId>& begin) {
    return ids.size() >= begin.size() && std::equal(begin.begin(), begin.end(), ids.begin());
  };
  const auto end = static_cast<uint32_t>(turn.ids.size());
  if (!chains->empty()) {
    TurnChain& last = chains->back();
    const bool is_kept_alike = last.schedule == turn.schedule &&
                               last.fingerprint == turn.fingerprint &&
                               last.numerics == turn.numerics;
    if (is_kept_alike && begins_with(turn.ids, last.ids)) {
      const size_t more = turn.ids.size() - last.ids.size();
      last.ids.insert(last.ids.end(), turn.ids.end() - static_cast<std::ptrdiff_t>(more),
                      turn.ids.end());
      if (more > 0) last.ends.push_back(end);
      return more;
    }
  }
  chains->push_back({turn.ids, {end}, turn.schedule, turn.fingerprint, turn.numerics});
  return turn.ids.size();
}

}  // namespace perdure::snapshot
