// Files of one user's service, through descriptors: those without a name, and reading and writing
// them whole. What a disk has no room for is insufficient_storage, all else io_error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure {

// A file (0600) below `folder` without a name there: it goes with its last descriptor, or with a
// crash.
Result<UniqueFd> OpenUnlinkedFile(const std::filesystem::path& folder);
// A new file (0600); one that is there is an error.
Result<UniqueFd> CreateFile(const std::filesystem::path& path);

// The error of errno; `what` names the file.
tl::unexpected<Error> FileError(std::string_view what);

// At the descriptor's own place, all of it.
Status WriteAll(int fd, std::string_view bytes, std::string_view what);
// At `offset`, all of it.
Status WriteAt(int fd, uint64_t offset, std::string_view bytes, std::string_view what);
// From `offset` on, as much as there is, up to all of it; how much that is.
Result<size_t> ReadAt(int fd, uint64_t offset, std::span<std::byte> to, std::string_view what);

Result<uint64_t> BytesOfFile(int fd, std::string_view what);

}  // namespace perdure
