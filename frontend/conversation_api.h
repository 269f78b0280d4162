// Requests of /v1/conversations, and of /admin/conversations, which are the same over all tenants:
// which there are, and what they ask for. Pure.
#pragma once

#include <string_view>

#include "base/result.h"
#include "frontend/conversation_calls.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

enum class ConversationPath { kNone, kAll, kOne, kAction, kTenants };
// (/v1|/admin)/conversations, …/conversations/ID, …/conversations/ID/(fork|rewind), /admin/tenants.
ConversationPath ConversationPathOf(std::string_view path);
// Whether it is for those alone who may use /admin.
bool IsOfAdmin(std::string_view path);
// A tenant's number, as /admin shows it; `name` is the parameter's.
Result<uint64_t> OwnerNamed(std::string_view name, std::string_view text);
// Of these the methods, as in the header Allow, without OPTIONS.
std::string_view ConversationMethods(ConversationPath path);

// `tenant`: whose conversations; under /admin of no matter.
Result<ConversationCall> ParseConversationCall(const HttpRequest& request,
                                               const std::string& tenant);

}  // namespace perdure::frontend
