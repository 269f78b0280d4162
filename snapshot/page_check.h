// Whether the pages of a file of LMDB's (0.9) hang together. LMDB believes what a page says of
// itself, and copies by that: a damaged one can overwrite memory that is none of its own.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace perdure::snapshot {

// Reads all pages of all trees and the list of free ones, but no long values; follows nothing that
// it has not bounded. For who has the file's lock, between transactions. io_error with what is
// wrong, which is set in *is_damaged unless the disk is.
Status CheckPages(const std::filesystem::path& file, bool* is_damaged);

}  // namespace perdure::snapshot
