// Pages of KV for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/hash.h"
#include "shm/hashes.h"
#include "shm/layout.h"
#include "snapshot/kv_file.h"
#include "snapshot/kv_index.h"

namespace perdure::snapshot {

inline constexpr uint64_t kRoot = 77;

// A page of these tokens, after `parent`; nothing: it begins a chain.
inline StoredPage PageAfter(const StoredPage* parent, std::vector<TokenId> tokens,
                            const shm::PageKey& key = {}, uint32_t data_bytes = 1,
                            uint32_t used_unix_s = 1000) {
  StoredPage page;
  page.parent = parent == nullptr ? kRoot : parent->chain_hash;
  page.position = parent == nullptr ? 0 : parent->position + 1;
  page.key = key;
  page.tokens = std::move(tokens);
  page.chain_hash = shm::ChainHash(page.parent, key, shm::TokensHash(page.tokens));
  page.data_bytes = data_bytes;
  page.used_unix_s = used_unix_s;
  return page;
}

struct PageWithData {
  StoredPage page;
  std::vector<std::byte> data;
  PageToWrite ToWrite() const& { return {page, data}; }
  PageToWrite ToWrite() && = delete;  // it points to the data
};

// Of its number alone; all fields set.
inline PageWithData NumberedPage(uint32_t number, uint32_t data_bytes) {
  std::vector<TokenId> tokens(1 + number % shm::kArenaPageTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(number * 1000 + i);
  const shm::PageKey key{static_cast<shm::PageFormat>(number % shm::kPageFormats), number % 3, 5};
  PageWithData made{PageAfter(nullptr, tokens, key, data_bytes, 1000 + number), {}};
  made.page.drawn = number & 1;
  uint64_t state = number * 0x9E3779B97F4A7C15u + 1;
  made.data.resize(data_bytes);
  for (std::byte& byte : made.data) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56);
  }
  made.page.data_checksum = Hash64(made.data);
  return made;
}

inline bool Same(const StoredPage& a, const StoredPage& b) {
  return a.chain_hash == b.chain_hash && a.parent == b.parent && a.position == b.position &&
         a.key == b.key && a.tokens == b.tokens && a.drawn == b.drawn &&
         a.data_checksum == b.data_checksum && a.data_bytes == b.data_bytes &&
         a.used_unix_s == b.used_unix_s;
}

}  // namespace perdure::snapshot
