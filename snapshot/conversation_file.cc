#include "snapshot/conversation_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/private_file.h"
#include "shm/layout.h"

namespace perdure::snapshot {
namespace {

constexpr std::string_view kWhat = "the file of a conversation";
constexpr uint32_t kPositionsMax = limits::kContextMax / shm::kArenaPageTokens;
constexpr size_t kChecksumAt = 8;  // within a record's header

std::string Line() {
  return fmt::format("{}{}\n", kConversationFileWord, kConversationFileVersion);
}

// Number `record` of the file.
std::string KeyOf(uint64_t record) { return PageKeyBytes(record); }

size_t EndRecordBytes() { return kRecordHeaderBytes + Encode(FileEndRecord()).size(); }

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void AddChecksum(std::string_view record, Hasher64* checksums) {
  checksums->Add(std::as_bytes(std::span(record.substr(kChecksumAt, sizeof(uint64_t)))));
}

tl::unexpected<Error> Wrong(std::string_view what) {
  return Err(ErrorCode::invalid_request,
             fmt::format("The file is no conversation that can be imported: {}.", what));
}

// The next step is the same wherever it ends.
tl::unexpected<Error> CutShort() {
  return Wrong("it ends too early, so a part of it is missing; copy or export it again");
}

// What is wrong with a page by itself; empty: nothing.
std::string_view WrongWith(const FilePageRecord& page) {
  if (page.format >= shm::kPageFormats) return "has an unknown format";
  if (page.tokens.empty() || page.tokens.size() > shm::kArenaPageTokens)
    return "has a wrong number of tokens";
  if (page.tokens.size() < 32 && page.drawn >> page.tokens.size() != 0)
    return "says of more tokens than it has that they were drawn";
  if (page.position >= kPositionsMax) return "has a position beyond every context";
  if (page.data_bytes == 0 || page.data_bytes > limits::kSnapshotPageBytesMax)
    return "has a wrong number of bytes";
  return {};
}
static_assert(shm::kArenaPageTokens == 32, "bits of FilePageRecord::drawn");

}  // namespace

// --- Writing -------------------------------------------------------------------------------------

template <class Record>
Status ConversationFileWriter::Put(const Record& record, std::string_view behind) {
  const std::string sealed = Seal(KeyOf(records_++), record);
  AddChecksum(sealed, &checksums_);
  RETURN_IF_ERROR(WriteAll(fd_, sealed, kWhat));
  RETURN_IF_ERROR(WriteAll(fd_, behind, kWhat));
  bytes_ += sealed.size() + behind.size();
  return {};
}

Status ConversationFileWriter::Begin(FileHeaderRecord header, std::string_view document) {
  CHECK(records_ == 0);
  if (document.size() > limits::kConversationDocumentBytesMax)
    return Err(ErrorCode::payload_too_large, "The conversation is too long for a file.");
  header.page_tokens = shm::kArenaPageTokens;
  header.document_bytes = static_cast<uint32_t>(document.size());
  header.document_checksum = Hash64(document);
  RETURN_IF_ERROR(WriteAll(fd_, Line(), kWhat));
  bytes_ += Line().size();
  return Put(header, document);
}

Status ConversationFileWriter::Add(const FilePageRecord& page, std::span<const std::byte> numbers) {
  CHECK(records_ > 0 && numbers.size() == page.data_bytes);
  ++pages_;
  return Put(page, Text(numbers));
}

Status ConversationFileWriter::End() {
  FileEndRecord end;
  end.pages = pages_;
  end.bytes = bytes_;
  end.checksum = checksums_.value();
  return Put(end, {});
}

// --- Reading -------------------------------------------------------------------------------------

Status ConversationFileReader::ReadExactly(uint64_t offset, std::span<std::byte> to) const {
  ASSIGN_OR_RETURN(const size_t got, ReadAt(fd_, offset, to, kWhat));
  if (got < to.size()) return CutShort();
  return {};
}

Status ConversationFileReader::ReadLine() {
  std::string line(limits::kConversationFileLineBytesMax, '\0');
  ASSIGN_OR_RETURN(const size_t got,
                   ReadAt(fd_, 0, std::as_writable_bytes(std::span(line)), kWhat));
  line.resize(got);
  if (!line.starts_with(kConversationFileWord))
    return Wrong(fmt::format("it does not begin with \"{}\"", kConversationFileWord));
  const char* const begin = line.data() + kConversationFileWord.size();
  uint32_t version = 0;
  const auto [end, error] = std::from_chars(begin, line.data() + line.size(), version);
  if (error != std::errc() || end == line.data() + line.size() || *end != '\n' || version == 0)
    return Wrong("its first line has no version");
  if (version > kConversationFileVersion)
    return Err(ErrorCode::invalid_request,
               fmt::format("The file was written by a newer version of Perdure (format {}, this "
                           "one reads up to {}): update this one.",
                           version, kConversationFileVersion));
  offset_ = static_cast<uint64_t>(end - line.data()) + 1;
  return {};
}

Result<RecordKind> ConversationFileReader::PeekKind() const {
  uint16_t kind = 0;
  RETURN_IF_ERROR(ReadExactly(offset_, std::as_writable_bytes(std::span(&kind, 1))));
  return static_cast<RecordKind>(kind);
}

template <class Record>
Result<Record> ConversationFileReader::Take() {
  std::string bytes(kRecordHeaderBytes, '\0');
  RETURN_IF_ERROR(ReadExactly(offset_, std::as_writable_bytes(std::span(bytes))));
  uint32_t payload = 0;
  std::memcpy(&payload, bytes.data() + 4, sizeof payload);
  if (payload > limits::kConversationFileRecordBytesMax)
    return Wrong(fmt::format("its record {} has more bytes than any", records_));
  bytes.resize(kRecordHeaderBytes + payload);
  RETURN_IF_ERROR(ReadExactly(offset_, std::as_writable_bytes(std::span(bytes))));
  auto record = Unseal<Record>(KeyOf(records_), bytes);
  if (!record) return Wrong(fmt::format("its record {}: {}", records_, record.error().message));
  AddChecksum(bytes, &checksums_);
  ++records_;
  offset_ += bytes.size();
  return std::move(*record);
}

Status ConversationFileReader::ReadHeader() {
  CHECK(records_ == 0);
  ASSIGN_OR_RETURN(file_bytes_, BytesOfFile(fd_, kWhat));
  RETURN_IF_ERROR(ReadLine());
  ASSIGN_OR_RETURN(header_, Take<FileHeaderRecord>());
  if (header_.page_tokens != shm::kArenaPageTokens)
    return Wrong(fmt::format("its pages have {} tokens, and those of this version {}",
                             header_.page_tokens, shm::kArenaPageTokens));
  return {};
}

Status ConversationFileReader::Begin() {
  RETURN_IF_ERROR(ReadHeader());
  if (header_.document_bytes > limits::kConversationDocumentBytesMax)
    return Wrong("its document has more bytes than any");
  // Before so much memory is taken.
  if (header_.document_bytes > file_bytes_ - std::min(file_bytes_, offset_)) return CutShort();
  document_.resize(header_.document_bytes);
  RETURN_IF_ERROR(ReadExactly(offset_, std::as_writable_bytes(std::span(document_))));
  if (Hash64(document_) != header_.document_checksum)
    return Wrong("its document has a wrong checksum");
  offset_ += document_.size();
  return {};
}

Status ConversationFileReader::CheckEnd() {
  const uint64_t before = offset_, checksum = checksums_.value();
  ASSIGN_OR_RETURN(const FileEndRecord end, Take<FileEndRecord>());
  if (end.pages != pages_ || end.bytes != before || end.checksum != checksum)
    return Wrong("its end does not fit what stands before it");
  if (offset_ != file_bytes_) return Wrong("something follows its end");
  return {};
}

Result<std::optional<ConversationFileReader::Page>> ConversationFileReader::Next(
    std::vector<std::byte>* numbers) {
  CHECK(records_ > 0);
  ASSIGN_OR_RETURN(const RecordKind kind, PeekKind());
  if (kind == RecordKind::kFileEnd) {
    RETURN_IF_ERROR(CheckEnd());
    return std::optional<Page>();
  }
  const uint64_t number = records_;
  Page page;
  ASSIGN_OR_RETURN(page.record, Take<FilePageRecord>());
  const FilePageRecord& record = page.record;
  const auto wrong = [&](std::string_view what) {
    return Wrong(fmt::format("the page in its record {} {}", number, what));
  };
  if (const std::string_view what = WrongWith(record); !what.empty()) return wrong(what);
  if (is_over_) return wrong("follows one that is not full");
  if (last_position_ && record.position <= *last_position_) return wrong("is not in its order");
  if (record.position * uint64_t{shm::kArenaPageTokens} + record.tokens.size() > header_.tokens)
    return wrong("stands beyond the conversation's end");
  page.offset = offset_;
  RETURN_IF_ERROR(ReadNumbers(page, numbers));
  offset_ += record.data_bytes;
  last_position_ = record.position;
  is_over_ = record.tokens.size() < shm::kArenaPageTokens;
  ++pages_;
  return std::optional(std::move(page));
}

Status ConversationFileReader::ReadNumbers(const Page& page,
                                           std::vector<std::byte>* numbers) const {
  if (page.record.data_bytes > file_bytes_ - std::min(file_bytes_, page.offset)) return CutShort();
  numbers->resize(page.record.data_bytes);
  RETURN_IF_ERROR(ReadExactly(page.offset, *numbers));
  if (Hash64(*numbers) != page.record.data_checksum)
    return Wrong(fmt::format("page {} has numbers of another checksum", page.record.position));
  return {};
}

Result<ConversationFileSummary> ConversationFileReader::Summary(int fd) {
  ConversationFileReader reader(fd);
  RETURN_IF_ERROR(reader.ReadHeader());
  ConversationFileSummary summary{reader.header(), 0};
  std::string end(EndRecordBytes(), '\0');
  if (reader.file_bytes_ < end.size()) return CutShort();
  RETURN_IF_ERROR(
      reader.ReadExactly(reader.file_bytes_ - end.size(), std::as_writable_bytes(std::span(end))));
  // Its number in the file is the one of its pages, which it says itself.
  const auto record =
      DecodeExactly<FileEndRecord>(std::string_view(end).substr(kRecordHeaderBytes));
  if (!record || !Unseal<FileEndRecord>(KeyOf(uint64_t{record->pages} + 1), end)) return CutShort();
  summary.pages = record->pages;
  return summary;
}

}  // namespace perdure::snapshot
