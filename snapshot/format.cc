#include "snapshot/format.h"

#include <fmt/format.h>

#include <cstring>

#include "base/check.h"
#include "base/hash.h"

namespace perdure::snapshot {
namespace {

constexpr size_t kChecksumAt = 8;

template <class T>
void PutLittle(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);  // base/codec.h asserts this
}

template <class T>
T GetLittle(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void PutBig(std::string* out, T value) {
  for (int shift = 8 * (static_cast<int>(sizeof value) - 1); shift >= 0; shift -= 8)
    out->push_back(static_cast<char>(value >> shift & 0xff));
}

template <class T>
T GetBig(std::string_view bytes, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof value; ++i)
    value = static_cast<T>(value << 8 | static_cast<uint8_t>(bytes[at + i]));
  return value;
}

// `head`: the header's bytes before the checksum.
uint64_t Checksum(std::string_view key, std::string_view head, std::string_view payload) {
  Hasher64 hasher;
  for (const std::string_view part : {key, head, payload})
    hasher.Add({reinterpret_cast<const std::byte*>(part.data()), part.size()});
  return hasher.value();
}

std::string_view NameOf(RecordKind kind) {
  switch (kind) {
    case RecordKind::kFormat:
      return "format record";
    case RecordKind::kConversation:
      return "conversation record";
    case RecordKind::kTurn:
      return "turn record";
    case RecordKind::kRequest:
      return "request record";
    case RecordKind::kPage:
      return "page record";
    case RecordKind::kCounter:
      return "counter record";
    case RecordKind::kScrub:
      return "scrub record";
    case RecordKind::kFileHeader:
      return "header record";
    case RecordKind::kFilePage:
      return "page record";
    case RecordKind::kFileEnd:
      return "end record";
  }
  return "record";
}

}  // namespace

std::string SealRecord(RecordKind kind, uint16_t version, std::string_view key,
                       std::string_view payload) {
  CHECK(payload.size() <= UINT32_MAX);
  std::string record;
  record.reserve(kRecordHeaderBytes + payload.size());
  PutLittle(&record, static_cast<uint16_t>(kind));
  PutLittle(&record, version);
  PutLittle(&record, static_cast<uint32_t>(payload.size()));
  PutLittle(&record, Checksum(key, record, payload));
  record += payload;
  return record;
}

Result<OpenedRecord> OpenRecord(RecordKind kind, uint16_t version_max, std::string_view key,
                                std::string_view value) {
  const auto wrong = [kind](std::string_view what) {
    return Err(ErrorCode::io_error, fmt::format("a {} {}", NameOf(kind), what));
  };
  if (value.size() < kRecordHeaderBytes)
    return wrong(fmt::format("has {} bytes, fewer than its header", value.size()));
  const std::string_view payload = value.substr(kRecordHeaderBytes);
  // First: of a record with another checksum nothing else can be said for certain.
  if (GetLittle<uint64_t>(value, kChecksumAt) !=
      Checksum(key, value.substr(0, kChecksumAt), payload))
    return wrong("has a wrong checksum");
  if (GetLittle<uint32_t>(value, 4) != payload.size())
    return wrong(
        fmt::format("says {} bytes and has {}", GetLittle<uint32_t>(value, 4), payload.size()));
  if (const auto found = GetLittle<uint16_t>(value, 0); found != static_cast<uint16_t>(kind))
    return wrong(fmt::format("is of another kind ({})", found));
  const auto version = GetLittle<uint16_t>(value, 2);
  if (version == 0 || version > version_max)
    return wrong(fmt::format("has version {}; this program knows 1 to {}", version, version_max));
  return OpenedRecord{version, payload};
}

tl::unexpected<Error> Malformed(RecordKind kind) {
  return Err(ErrorCode::io_error, fmt::format("a {} is malformed", NameOf(kind)));
}

std::string ConversationKey(uint64_t owner, std::string_view id) {
  std::string key;
  PutBig(&key, owner);
  key += id;
  return key;
}

std::string TurnKey(uint64_t serial, uint32_t turn) {
  std::string key;
  PutBig(&key, serial);
  PutBig(&key, turn);
  return key;
}

std::string RequestKey(uint64_t rid, uint32_t choice) {
  std::string key;
  PutBig(&key, rid);
  PutBig(&key, choice);
  return key;
}

std::string PageKeyBytes(uint64_t chain_hash) {
  std::string key;
  PutBig(&key, chain_hash);
  return key;
}

std::string ChunkKey(uint64_t chain_hash, uint16_t chunk) {
  std::string key = PageKeyBytes(chain_hash);
  PutBig(&key, chunk);
  return key;
}

std::optional<ParsedConversationKey> ParseConversationKey(std::string_view key) {
  if (key.size() < sizeof(uint64_t)) return std::nullopt;
  return ParsedConversationKey{GetBig<uint64_t>(key, 0), std::string(key.substr(8))};
}

std::optional<ParsedTurnKey> ParseTurnKey(std::string_view key) {
  if (key.size() != sizeof(uint64_t) + sizeof(uint32_t)) return std::nullopt;
  return ParsedTurnKey{GetBig<uint64_t>(key, 0), GetBig<uint32_t>(key, 8)};
}

std::optional<ParsedRequestKey> ParseRequestKey(std::string_view key) {
  const auto parsed = ParseTurnKey(key);  // of the same shape
  if (!parsed) return std::nullopt;
  return ParsedRequestKey{parsed->serial, parsed->turn};
}

std::optional<uint64_t> ParsePageKey(std::string_view key) {
  if (key.size() != sizeof(uint64_t)) return std::nullopt;
  return GetBig<uint64_t>(key, 0);
}

}  // namespace perdure::snapshot
