#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace perdure {

struct Hasher64::State {
  XXH3_state_t state;
};

uint64_t Hash64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

uint64_t Hash64(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

Hasher64::Hasher64() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->state); }
Hasher64::~Hasher64() = default;

void Hasher64::Add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(&state_->state, bytes.data(), bytes.size());
}

void Hasher64::Reset() { XXH3_64bits_reset(&state_->state); }

uint64_t Hasher64::value() const { return XXH3_64bits_digest(&state_->state); }

}  // namespace perdure
