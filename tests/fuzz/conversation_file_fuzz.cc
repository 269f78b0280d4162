// The file of a conversation. After a byte 0 the bytes are such a file; after any other they are
// its records, which get right checksums: for each its kind, a byte, how many bytes its fields
// have, a byte, and how many follow it.
#include <fcntl.h>

#include <string>
#include <vector>

#include "fuzz_target.h"
#include "shm/layout.h"
#include "snapshot/conversation_file.h"

namespace perdure::snapshot {
namespace {

std::string Sealed(std::string_view input) {
  std::string file = std::string(kConversationFileWord) + "1\n";
  for (uint64_t number = 0; input.size() >= 3; ++number) {
    const auto kind = static_cast<RecordKind>(16 + static_cast<uint8_t>(input[0]) % 4);
    const size_t fields = static_cast<uint8_t>(input[1]), behind = static_cast<uint8_t>(input[2]);
    input.remove_prefix(3);
    file += SealRecord(kind, 1, PageKeyBytes(number), input.substr(0, fields));
    input.remove_prefix(std::min(input.size(), fields));
    file += input.substr(0, behind);
    input.remove_prefix(std::min(input.size(), behind));
  }
  return file;
}

}  // namespace

FUZZ_TARGET(conversation_file) {
  static fuzz::Folder folder;
  if (input.empty()) return;
  folder.Write("file", input[0] == 0 ? std::string(input.substr(1)) : Sealed(input.substr(1)));
  const UniqueFd fd(open((folder.path() / "file").c_str(), O_RDONLY | O_CLOEXEC));
  if (const auto summary = ConversationFileReader::Summary(fd.get()); !summary)
    fuzz::CheckError(summary.error());
  ConversationFileReader reader(fd.get());
  if (const Status begun = reader.Begin(); !begun) return fuzz::CheckError(begun.error());
  std::vector<std::byte> numbers;
  uint64_t next = 0;
  for (;;) {
    const auto page = reader.Next(&numbers);
    if (!page) return fuzz::CheckError(page.error());
    if (!*page) return;
    const FilePageRecord& record = (*page)->record;
    CHECK(record.position >= next);
    CHECK(!record.tokens.empty() && record.tokens.size() <= shm::kArenaPageTokens);
    CHECK(numbers.size() == record.data_bytes && record.format < shm::kPageFormats);
    next = record.position + uint64_t{1};
  }
}

}  // namespace perdure::snapshot
