// `perdure inspect arena`: what stands in a model's arena, read beside a running service or after
// it.
#pragma once

#include <string>

#include "base/json.h"
#include "shm/arena_report.h"

namespace perdure::cli {

// Hashes are hexadecimal texts: JSON's numbers hold no 64 bits.
Json ArenaJson(const std::string& name, const shm::ArenaReport& report);
std::string FormatArena(const std::string& name, const shm::ArenaReport& report);

// `name`: as shm::ArenaName makes it, or a model's name where only one service has an arena of it.
// Prints; returns the exit code.
int RunInspectArena(const std::string& name, bool json);

}  // namespace perdure::cli
