// One conversation in one file: what was said, and the pages of KV that were computed for it.
// docs/conversation_file.md tells the format, with an example.
//
//   "perdure conversation 1\n"
//   header record, document (JSON)
//   page record, its numbers         as often as there are pages, by ascending position
//   end record                       and then the file ends
//
// Records are those of snapshot/format.h; the key that a checksum covers is the record's number in
// the file. Writer and reader hold one page at a time. For one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "base/token.h"
#include "snapshot/format.h"

namespace perdure::snapshot {

// Of what this code writes. It grows with any change; a reader knows all versions up to its own.
inline constexpr uint32_t kConversationFileVersion = 1;
inline constexpr std::string_view kConversationFileWord = "perdure conversation ";

struct FileHeaderRecord {
  static constexpr RecordKind kKind = RecordKind::kFileHeader;
  static constexpr uint16_t kVersion = 1;
  int64_t created_unix_ms = 0;
  std::string model;
  std::string conversation;  // its id
  uint32_t tokens = 0;       // of its last turn, prompt and answer
  uint64_t fingerprint = 0;  // of the model's weights, and of what else its numbers depend on
  uint64_t numerics = 0;
  uint32_t page_tokens = 0;
  uint32_t document_bytes = 0;
  uint64_t document_checksum = 0;  // XXH3
  auto Fields() {
    return std::tie(created_unix_ms, model, conversation, tokens, fingerprint, numerics,
                    page_tokens, document_bytes, document_checksum);
  }
};

struct FilePageRecord {
  static constexpr RecordKind kKind = RecordKind::kFilePage;
  static constexpr uint16_t kVersion = 1;
  uint32_t position = 0;  // pages before it
  uint8_t format = 0;     // shm::PageFormat
  uint64_t mask = 0;
  std::vector<TokenId> tokens;  // fewer than page_tokens: it is the last page
  uint32_t drawn = 0;           // bit i: the model has drawn tokens[i]
  uint32_t data_bytes = 0;
  uint64_t data_checksum = 0;  // XXH3 of its numbers
  auto Fields() {
    return std::tie(position, format, mask, tokens, drawn, data_bytes, data_checksum);
  }
};

struct FileEndRecord {
  static constexpr RecordKind kKind = RecordKind::kFileEnd;
  static constexpr uint16_t kVersion = 1;
  uint32_t pages = 0;
  uint64_t bytes = 0;     // of the file before this record
  uint64_t checksum = 0;  // XXH3 of the checksums of all records before this one
  auto Fields() { return std::tie(pages, bytes, checksum); }
};

// Errors are those of writing (base/private_file.h).
class ConversationFileWriter {
 public:
  // An empty file, which stays the caller's.
  explicit ConversationFileWriter(int fd) : fd_(fd) {}

  // Once, first. What the header says of the document is set here.
  Status Begin(FileHeaderRecord header, std::string_view document);
  // By ascending position.
  Status Add(const FilePageRecord& page, std::span<const std::byte> numbers);
  // Once, last.
  Status End();

  uint64_t bytes() const { return bytes_; }  // so far
  uint32_t pages() const { return pages_; }

 private:
  template <class Record>
  Status Put(const Record& record, std::string_view behind);

  const int fd_;
  uint64_t records_ = 0, bytes_ = 0;
  uint32_t pages_ = 0;
  Hasher64 checksums_;
};

// What a list tells of a file.
struct ConversationFileSummary {
  FileHeaderRecord header;
  uint32_t pages = 0;
};

// A file that comes from anywhere: whatever is wrong with it is invalid_request, in a sentence;
// what the disk does is io_error. No size is believed before it is bounded.
class ConversationFileReader {
 public:
  // The descriptor stays the caller's; its own place is not used.
  explicit ConversationFileReader(int fd) : fd_(fd) {}

  // Once, first: the line, the header, the document.
  Status Begin();
  const FileHeaderRecord& header() const { return header_; }
  std::string TakeDocument() { return std::move(document_); }

  struct Page {
    FilePageRecord record;
    uint64_t offset = 0;  // of its numbers
  };
  // The next page, whose numbers are in *numbers, and right; nothing: the file ends here, whole.
  Result<std::optional<Page>> Next(std::vector<std::byte>* numbers);
  // The numbers of a page that Next has told, once more.
  Status ReadNumbers(const Page& page, std::vector<std::byte>* numbers) const;

  uint64_t offset() const { return offset_; }  // what was read so far

  // Of the header and the end record alone.
  static Result<ConversationFileSummary> Summary(int fd);

 private:
  Status ReadHeader();
  Status ReadLine();
  Status ReadExactly(uint64_t offset, std::span<std::byte> to) const;
  Result<RecordKind> PeekKind() const;
  template <class Record>
  Result<Record> Take();
  Status CheckEnd();

  const int fd_;
  uint64_t file_bytes_ = 0, offset_ = 0, records_ = 0;
  FileHeaderRecord header_;
  std::string document_;
  std::optional<uint32_t> last_position_;
  bool is_over_ = false;  // a page that is not full was the last
  uint32_t pages_ = 0;
  Hasher64 checksums_;
};

}  // namespace perdure::snapshot
