#include "shm/hashes.h"

#include "base/hash.h"

namespace perdure::shm {
namespace {

template <size_t kCount>
uint64_t HashOf(const uint64_t (&numbers)[kCount]) {
  return Hash64(std::as_bytes(std::span(numbers)));
}

// Of the bytes from one field's offset to another's.
template <class T>
uint64_t HashOfFields(const T& object, size_t from, size_t to) {
  return Hash64(std::as_bytes(std::span(&object, 1)).subspan(from, to - from));
}

}  // namespace

uint64_t RootHash(uint64_t fingerprint, uint64_t numerics) {
  return HashOf({fingerprint, numerics});
}

uint64_t ChainHash(uint64_t parent, const PageKey& key, uint64_t tokens_hash) {
  return HashOf({parent, static_cast<uint64_t>(key.format), key.owner, key.mask, tokens_hash});
}

uint64_t TokensHash(std::span<const TokenId> tokens) { return Hash64(std::as_bytes(tokens)); }

uint64_t HeaderChecksum(const ArenaHeaderShm& header) {
  return HashOfFields(header, offsetof(ArenaHeaderShm, version),
                      offsetof(ArenaHeaderShm, checksum));
}

uint64_t DescriptorChecksum(const PageDescriptorShm& descriptor, uint32_t page) {
  using D = PageDescriptorShm;
  return HashOf({page, HashOfFields(descriptor, offsetof(D, position), offsetof(D, checksum)),
                 HashOfFields(descriptor, offsetof(D, tokens), sizeof(D))});
}

uint64_t ConversationChecksum(const ConversationShm& record, uint32_t index) {
  using C = ConversationShm;
  return HashOf({index, HashOfFields(record, offsetof(C, tail_page), offsetof(C, checksum))});
}

}  // namespace perdure::shm
