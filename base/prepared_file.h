// Prepared files: what was made once from a model's files, in the form in which it is used, mapped
// read-only and shared by every process from then on. docs/prepared_weights.md tells the format.
//
// A file is a list of named sections. It comes into being under a temporary name and is renamed
// when it is whole and on the disk; it never changes afterwards. Locks (flock) say who uses it:
// shared by a PreparedFile, exclusive by a PreparedWriter on its temporary file.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure {

inline constexpr uint32_t kPreparedVersion = 1;
inline constexpr size_t kPreparedAlignment = 4096;  // of sections
inline constexpr char kPreparedMagic[8] = {'P', 'R', 'D', 'P', 'R', 'E', 'P', '\n'};

// At offset 0; numbers are little-endian. Written after all else.
struct PreparedHeaderDisk {
  char magic[8];
  uint32_t version;
  uint32_t sections;
  uint64_t fingerprint;  // of everything that the content was made from
  uint64_t file_bytes;
  uint64_t table_offset;  // the table reaches up to the file's end
  uint64_t table_hash;
  uint64_t reserved;     // 0
  uint64_t header_hash;  // of the fields above
};
static_assert(sizeof(PreparedHeaderDisk) == 64);
static_assert(offsetof(PreparedHeaderDisk, version) == 8);
static_assert(offsetof(PreparedHeaderDisk, sections) == 12);
static_assert(offsetof(PreparedHeaderDisk, fingerprint) == 16);
static_assert(offsetof(PreparedHeaderDisk, file_bytes) == 24);
static_assert(offsetof(PreparedHeaderDisk, table_offset) == 32);
static_assert(offsetof(PreparedHeaderDisk, table_hash) == 40);
static_assert(offsetof(PreparedHeaderDisk, reserved) == 48);
static_assert(offsetof(PreparedHeaderDisk, header_hash) == 56);

// An entry of the table; its name follows.
struct PreparedEntryDisk {
  uint64_t offset;  // of the section, a multiple of kPreparedAlignment
  uint64_t bytes;
  uint64_t hash;
  uint32_t name_bytes;
  uint32_t reserved;  // 0
};
static_assert(sizeof(PreparedEntryDisk) == 32);
static_assert(offsetof(PreparedEntryDisk, bytes) == 8);
static_assert(offsetof(PreparedEntryDisk, hash) == 16);
static_assert(offsetof(PreparedEntryDisk, name_bytes) == 24);
static_assert(offsetof(PreparedEntryDisk, reserved) == 28);

// A mapped prepared file; not evicted while this lives. Its being cut short while mapped ends in
// SIGBUS, as with every mapping. Immutable, thread-safe.
class PreparedFile {
 public:
  // Checks the header, the table and the size; Verify checks the rest. not_found: there is none.
  // io_error: it cannot be used; the message is the reason. Marks the file as used now.
  static Result<PreparedFile> Open(const std::filesystem::path& path, uint64_t fingerprint);

  PreparedFile(PreparedFile&& other) noexcept;
  PreparedFile& operator=(PreparedFile&& other) noexcept;
  ~PreparedFile();

  const std::filesystem::path& path() const { return path_; }
  size_t bytes() const { return size_; }
  // Aligned to kPreparedAlignment; nothing for a name that no section has.
  std::optional<std::span<const std::byte>> Find(std::string_view name) const;

  // Brings all of it to memory, in pieces; `done` is called with the bytes of each. io_error where
  // the disk does not give them.
  Status Populate(const std::function<void(uint64_t)>& done) const;
  // Compares every section with its checksum, until `stop` becomes true. io_error names the
  // section that is damaged.
  Status Verify(const std::atomic<bool>& stop) const;
  // Takes the file out of the folder, if it is still this one that lies there.
  void Remove() const;

 private:
  struct Section {
    std::span<const std::byte> bytes;
    uint64_t hash = 0;
  };

  PreparedFile() = default;
  Status Map();
  Status ReadTable(uint64_t fingerprint);

  std::filesystem::path path_;
  UniqueFd fd_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, Section, std::less<>> sections_;
};

// Not thread-safe.
class PreparedWriter {
 public:
  // Nothing where another process is writing this file. io_error: it cannot be written here.
  static Result<std::optional<PreparedWriter>> TryCreate(const std::filesystem::path& path,
                                                         uint64_t bytes_max);

  PreparedWriter(PreparedWriter&&) = default;
  PreparedWriter& operator=(PreparedWriter&&) = delete;
  ~PreparedWriter();  // removes what was not committed

  // io_error: the disk is full or fails, or the file would be larger than bytes_max.
  Status Add(std::string name, std::span<const std::byte> bytes);
  // From here on others find the file.
  Status Commit(uint64_t fingerprint);

 private:
  PreparedWriter() = default;
  Status Write(std::span<const std::byte> bytes, uint64_t offset);
  void StartWriteback(uint64_t offset, uint64_t bytes);

  std::filesystem::path path_, temporary_;
  UniqueFd fd_;
  uint64_t bytes_max_ = 0;
  uint64_t end_ = kPreparedAlignment;
  uint64_t written_back_from_ = 0, written_back_bytes_ = 0;
  uint32_t sections_ = 0;
  std::string table_;
};

// Where a prepared file that is being written lies until it is whole.
std::filesystem::path TemporaryOf(const std::filesystem::path& path);

}  // namespace perdure
