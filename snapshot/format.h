// What stands in the files of conversations: keys and records. docs/snapshot_format.md tells the
// whole, with an example.
//
// Two LMDB environments for each model: `turns` (what was said; precious) and `kv` (pages of
// numbers; each of them can be computed again). Numbers in keys are big-endian, so that their order
// is LMDB's; all else is little-endian. A value is a record: a header of kRecordHeaderBytes, then
// the fields of one of the structs below (base/codec.h). Its checksum covers the key too, so that a
// record under another key is as wrong as one with a flipped bit.
//
// Fields are only ever added, at the end of a new version of a record; a reader knows all versions
// up to its own. A newer format is refused as a whole (FormatRecord::reader_min).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/cache_settings.h"
#include "base/codec.h"
#include "base/result.h"
#include "base/token.h"

namespace perdure::snapshot {

// Of what this code writes, and the oldest code that may read that.
inline constexpr uint32_t kFormatVersion = 1;
inline constexpr uint32_t kFormatReaderMin = 1;

enum class RecordKind : uint16_t {
  kFormat = 1,
  kConversation = 2,
  kTurn = 3,
  kRequest = 4,
  kPage = 5,
  kCounter = 6,
  kScrub = 7,
  // Of snapshot/conversation_file.h, which is no environment.
  kFileHeader = 16,
  kFilePage = 17,
  kFileEnd = 18,
};

// kind u16, version u16, payload bytes u32, checksum u64: XXH3 of key, kind, version, payload bytes
// and payload.
inline constexpr size_t kRecordHeaderBytes = 16;

// The value of a record.
std::string SealRecord(RecordKind kind, uint16_t version, std::string_view key,
                       std::string_view payload);
// The payload of one, and its version; io_error naming what is wrong: too short, another kind, a
// version above `version_max`, a wrong checksum.
struct OpenedRecord {
  uint16_t version = 0;
  std::string_view payload;
};
Result<OpenedRecord> OpenRecord(RecordKind kind, uint16_t version_max, std::string_view key,
                                std::string_view value);

// "a turn record is malformed": its checksum is right and its fields are not these.
tl::unexpected<Error> Malformed(RecordKind kind);

// A record as the value that stands under `key`.
template <class Record>
std::string Seal(std::string_view key, const Record& record) {
  return SealRecord(Record::kKind, Record::kVersion, key, Encode(record));
}
// io_error where it is none. What its fields say is for the reader to judge.
template <class Record>
Result<Record> Unseal(std::string_view key, std::string_view value) {
  ASSIGN_OR_RETURN(const OpenedRecord opened,
                   OpenRecord(Record::kKind, Record::kVersion, key, value));
  auto record = DecodeExactly<Record>(opened.payload);
  if (!record) return Malformed(Record::kKind);
  return std::move(*record);
}

// --- Both environments: database "meta" --------------------------------------------------------

inline constexpr std::string_view kFormatKey = "format";
inline constexpr std::string_view kScrubKey = "scrub";

struct FormatRecord {
  static constexpr RecordKind kKind = RecordKind::kFormat;
  static constexpr uint16_t kVersion = 1;
  uint32_t version = kFormatVersion;
  uint32_t reader_min = kFormatReaderMin;
  std::string environment;  // "turns", "kv"
  std::string model;
  int64_t created_unix_ms = 0;
  auto Fields() { return std::tie(version, reader_min, environment, model, created_unix_ms); }
};

// Something was deleted since the last compaction, and may stand in free space; written with the
// deletion. Who does not know it leaves it alone.
struct ScrubRecord {
  static constexpr RecordKind kKind = RecordKind::kScrub;
  static constexpr uint16_t kVersion = 1;
  int64_t since_unix_ms = 0;  // of the first of these deletions
  auto Fields() { return std::tie(since_unix_ms); }
};

// --- turns -------------------------------------------------------------------------------------

// Database "conversations", key: owner u64, id.
struct ConversationRecord {
  static constexpr RecordKind kKind = RecordKind::kConversation;
  static constexpr uint16_t kVersion = 1;
  uint64_t serial = 0;  // of its turns' keys; never used twice
  bool named = false;   // by the client
  int64_t created_unix_ms = 0;
  int64_t used_unix_ms = 0;
  uint32_t turns = 0;  // the last one's number; they count from 1
  uint32_t tokens = 0;
  uint32_t messages = 0;
  uint64_t messages_hash = 0;  // the last of TurnRecord::message_hashes; 0: none
  std::string user;            // whom the client said it is for; may be empty
  auto Fields() {
    return std::tie(serial, named, created_unix_ms, used_unix_ms, turns, tokens, messages,
                    messages_hash, user);
  }
};

// Database "turns", key: serial u64, turn u32. What has not changed since turn `base` is left out.
struct TurnRecord {
  static constexpr RecordKind kKind = RecordKind::kTurn;
  static constexpr uint16_t kVersion = 1;
  uint64_t rid = 0;
  uint32_t choice = 0;
  int64_t unix_ms = 0;
  uint8_t finish = 0;                    // protocol::FinishReason
  uint32_t base = 0;                     // an earlier turn; 0: none, all is here
  uint32_t base_tokens = 0;              // the first ones are those of `base`
  std::vector<TokenId> ids;              // behind them, of prompt and answer
  std::vector<uint8_t> drawn;            // bit i % 8 of byte i / 8: the model has drawn ids[i]
  uint32_t prompt_tokens = 0;            // of all: what is behind was this turn's answer
  uint32_t base_messages = 0;            // the first ones are those of `base`
  std::vector<std::string> messages;     // behind them, as JSON; the last one is the answer
  std::vector<uint64_t> message_hashes;  // for each message: of all up to it, as recognition has it
  CacheSchedule schedule;
  uint64_t fingerprint = 0;  // of the model
  uint64_t numerics = 0;
  auto Fields() {
    return std::tie(rid, choice, unix_ms, finish, base, base_tokens, ids, drawn, prompt_tokens,
                    base_messages, messages, message_hashes, schedule, fingerprint, numerics);
  }
};

// Database "requests", key: rid u64, choice u32. That an answer is stored is found out by this: a
// worker that goes on with a dead one's request stores nothing twice.
struct RequestRecord {
  static constexpr RecordKind kKind = RecordKind::kRequest;
  static constexpr uint16_t kVersion = 1;
  uint64_t owner = 0;
  std::string conversation;
  uint64_t serial = 0;
  uint32_t turn = 0;
  auto Fields() { return std::tie(owner, conversation, serial, turn); }
};

// Database "counters", key "serial": what the next conversation gets, so that none is used twice.
inline constexpr std::string_view kSerialKey = "serial";

struct CounterRecord {
  static constexpr RecordKind kKind = RecordKind::kCounter;
  static constexpr uint16_t kVersion = 1;
  uint64_t next = 0;
  auto Fields() { return std::tie(next); }
};

// --- kv ----------------------------------------------------------------------------------------

// Database "pages", key: chain hash u64. Its numbers stand in "chunks", key: chain hash u64, chunk
// u16; value: XXH3 of key and data u64, then up to kChunkBytes of data. The record is written with
// its last chunk: a page without a record is none, and its chunks are dropped.
struct PageRecord {
  static constexpr RecordKind kKind = RecordKind::kPage;
  static constexpr uint16_t kVersion = 1;
  uint64_t parent = 0;    // chain hash of the page before; of the root for a first one
  uint32_t position = 0;  // pages before it
  uint8_t format = 0;     // shm::PageFormat
  uint64_t owner = 0;
  uint64_t mask = 0;
  std::vector<TokenId> tokens;
  uint32_t drawn = 0;
  uint64_t data_checksum = 0;  // XXH3 of the numbers
  uint32_t data_bytes = 0;
  uint16_t chunks = 0;
  uint8_t codec = 0;  // how chunks are compressed; 0: not
  uint32_t used_unix_s = 0;
  auto Fields() {
    return std::tie(parent, position, format, owner, mask, tokens, drawn, data_checksum, data_bytes,
                    chunks, codec, used_unix_s);
  }
};

// With its checksum and LMDB's header of 16 bytes a chunk fills 16 of LMDB's pages exactly.
inline constexpr size_t kChunkBytes = size_t{16} * 4096 - 16 - 8;

// --- Keys --------------------------------------------------------------------------------------

std::string ConversationKey(uint64_t owner, std::string_view id);
std::string TurnKey(uint64_t serial, uint32_t turn);
std::string RequestKey(uint64_t rid, uint32_t choice);
std::string PageKeyBytes(uint64_t chain_hash);
std::string ChunkKey(uint64_t chain_hash, uint16_t chunk);

struct ParsedConversationKey {
  uint64_t owner = 0;
  std::string id;
};
std::optional<ParsedConversationKey> ParseConversationKey(std::string_view key);
struct ParsedTurnKey {
  uint64_t serial = 0;
  uint32_t turn = 0;
};
std::optional<ParsedTurnKey> ParseTurnKey(std::string_view key);
struct ParsedRequestKey {
  uint64_t rid = 0;
  uint32_t choice = 0;
};
std::optional<ParsedRequestKey> ParseRequestKey(std::string_view key);
std::optional<uint64_t> ParsePageKey(std::string_view key);

}  // namespace perdure::snapshot
