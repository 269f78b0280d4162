#include "shm/hashes.h"

#include "base/hash.h"

namespace perdure::shm {
namespace {

template <size_t kCount>
uint64_t HashOf(const uint64_t (&numbers)[kCount]) {
  return Hash64(std::as_bytes(std::span(numbers)));
}

}  // namespace

uint64_t RootHash(uint64_t fingerprint, uint64_t numerics, std::string_view salt) {
  return HashOf({fingerprint, numerics, Hash64(salt)});
}

uint64_t ChainHash(uint64_t parent, std::span<const TokenId> tokens) {
  return HashOf({parent, Hash64(std::as_bytes(tokens))});
}

uint64_t HeaderChecksum(const ArenaHeaderShm& header) {
  const auto bytes = std::as_bytes(std::span(&header, 1));
  constexpr size_t kFrom = offsetof(ArenaHeaderShm, version);
  return Hash64(bytes.subspan(kFrom, offsetof(ArenaHeaderShm, checksum) - kFrom));
}

uint64_t DescriptorChecksum(const PageDescriptorShm& descriptor, uint32_t page) {
  return HashOf({uint64_t{descriptor.position} << 32 | page, descriptor.parent_page,
                 descriptor.chain_hash, descriptor.parent_hash, descriptor.data_checksum,
                 Hash64(std::as_bytes(std::span(descriptor.tokens)))});
}

}  // namespace perdure::shm
