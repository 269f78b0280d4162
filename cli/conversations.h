// `perdure conversations …`: what a running service has stored of conversations, of all tenants.
#pragma once

#include <filesystem>
#include <string>

#include "cli/command_line.h"

namespace perdure::cli {

// Prints; returns the exit code. Without a model `list`, `tenants` and deletions but those by id
// are of all models, the others of the default one.
int RunConversations(const std::filesystem::path& runtime_dir, const ConversationsOptions& options,
                     const std::string& model, bool json);

}  // namespace perdure::cli
