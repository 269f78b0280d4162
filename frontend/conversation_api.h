// Requests of /v1/conversations: which there are, and what they ask for. Pure.
#pragma once

#include <string_view>

#include "base/result.h"
#include "frontend/conversation_calls.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

enum class ConversationPath { kNone, kAll, kOne, kAction };
// /v1/conversations, /v1/conversations/ID, /v1/conversations/ID/(fork|rewind).
ConversationPath ConversationPathOf(std::string_view path);
// Of these the methods, as in the header Allow, without OPTIONS.
std::string_view ConversationMethods(ConversationPath path);

// `tenant`: whose conversations.
Result<ConversationCall> ParseConversationCall(const HttpRequest& request,
                                               const std::string& tenant);

}  // namespace perdure::frontend
