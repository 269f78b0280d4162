// Stored conversations as they are told and taken: JSON. docs/snapshots.md has the members. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "snapshot/turn_file.h"

namespace perdure::worker {

// As an operator names a tenant.
std::string TenantName(uint64_t owner);

// `with_tenant`: for an operator.
Json ConversationJson(const snapshot::StoredConversation& conversation, bool with_tenant = false);

// A turn with all that was said up to it; `turns`: of the conversation.
Json ConversationJson(const snapshot::StoredConversation& conversation,
                      const snapshot::StoredTurn& turn,
                      const std::vector<snapshot::TurnSummary>& turns, bool with_tokens);

// What ConversationJson has told with its tokens, of a model with so many different ones and so
// long a context; message hashes are made anew. invalid_request names what is wrong.
struct ImportedConversation {
  snapshot::TurnOwner owner;  // its `owner` is for the caller to set
  snapshot::StoredTurn turn;
};
Result<ImportedConversation> ParseConversation(const std::string& document, int32_t vocab_size,
                                               int max_context);

}  // namespace perdure::worker
