// Whole files, read or mapped, with a bound on their size.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace perdure {

// The file's bytes. io_error names the path; a file over `max_bytes` is refused with its size.
Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes);

// Written beside the target, then renamed: readers see the old or the new text, never a part.
Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text, int mode);

// A read-only private mapping. The file being cut short while mapped ends in SIGBUS: the process
// that maps must be one whose death is contained (a worker).
class MappedFile {
 public:
  static Result<MappedFile> Open(const std::filesystem::path& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that the pages of `part` are not needed again.
  void DropPages(std::span<const std::byte> part) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

}  // namespace perdure
