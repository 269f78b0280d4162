// A fast 64-bit checksum against accidents: damaged files, changed inputs. Not against attackers.
// XXH3, whose values are fixed, so that they may stand in files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace perdure {

uint64_t Hash64(std::span<const std::byte> bytes);
uint64_t Hash64(std::string_view text);

// The same of bytes that come in pieces. Not thread-safe.
class Hasher64 {
 public:
  Hasher64();
  ~Hasher64();
  Hasher64(const Hasher64&) = delete;
  Hasher64& operator=(const Hasher64&) = delete;

  void Add(std::span<const std::byte> bytes);
  void Reset();  // as if it were new
  uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace perdure
