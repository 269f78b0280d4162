// Beginnings of prompts that all tenants may find cached: system prompts that the configuration
// names.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/token.h"
#include "shm/page_store.h"
#include "worker/model.h"

namespace perdure::worker {

// The owner of their pages, which stay when the conversations that needed them go: they are of use
// to those who come.
inline constexpr uint64_t kSharedOwner = 0;
inline std::function<bool(shm::PageIndex)> KeepsShared(const shm::PageStore& store) {
  return [&store](shm::PageIndex page) { return store.owner(page) == kSharedOwner; };
}

// For each file the tokens with which all chats begin that have its text as their system message,
// as the model's template shows it. What cannot be used is left out, with a warning in the log.
std::vector<std::vector<TokenId>> SharedPrefixes(const Model& model,
                                                 const std::vector<std::string>& files);

}  // namespace perdure::worker
