// Randomness from the kernel, for ids and for seeds that the client left out. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

namespace perdure {

uint64_t RandomU64();
// `prefix` + 24 characters of [0-9a-z].
std::string RandomId(const char* prefix);

}  // namespace perdure
