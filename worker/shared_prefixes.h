// Beginnings of prompts that all tenants may find cached: system prompts that the configuration
// names.
#pragma once

#include <string>
#include <vector>

#include "base/token.h"
#include "worker/model.h"

namespace perdure::worker {

// For each file the tokens with which all chats begin that have its text as their system message,
// as the model's template shows it. What cannot be used is left out, with a warning in the log.
std::vector<std::vector<TokenId>> SharedPrefixes(const Model& model,
                                                 const std::vector<std::string>& files);

}  // namespace perdure::worker
