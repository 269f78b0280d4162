// Hashes and checksums of what stands in an arena. XXH3: against accidents, not against attackers.
#pragma once

#include <cstdint>
#include <span>

#include "base/token.h"
#include "shm/layout.h"
#include "shm/page_key.h"

namespace perdure::shm {

// Where chains begin: equal where pages may be of use.
uint64_t RootHash(uint64_t fingerprint, uint64_t numerics);

// Of a page with these tokens after a chain with the hash `parent` (or after the root). Stands for
// all tokens up to the page's end, but tokens that are made for it can have equal hashes: who looks
// a page up also compares its key, its tokens and the page before it.
uint64_t ChainHash(uint64_t parent, const PageKey& key, uint64_t tokens_hash);
uint64_t TokensHash(std::span<const TokenId> tokens);

// What ArenaHeaderShm::checksum and PageDescriptorShm::checksum should be. `page` is the index of
// the descriptor.
uint64_t HeaderChecksum(const ArenaHeaderShm& header);
uint64_t DescriptorChecksum(const PageDescriptorShm& descriptor, uint32_t page);
uint64_t ConversationChecksum(const ConversationShm& record, uint32_t index);

}  // namespace perdure::shm
