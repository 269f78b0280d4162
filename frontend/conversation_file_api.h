// Requests of conversations as files: export, import, what is saved by name. Pure.
// docs/conversation_file.md#over-http has them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "frontend/conversation_file_calls.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

enum class ConversationFilePath { kNone, kExport, kSave, kLoad, kImport, kAllSaved, kSaved };

// Below /v1, a tenant's own, or below /admin, with `tenant=` as for /admin/conversations.
// /v1/conversations/load and …/import are paths of conversations, too: it takes POST to be these.
ConversationFilePath ConversationFilePathOf(std::string_view path);
// As in the header Allow, without OPTIONS.
std::string_view ConversationFileMethods(ConversationFilePath path);
// Its body is a file.
bool IsUpload(std::string_view method, std::string_view path);

Result<ConversationFileCall> ParseConversationFileCall(const HttpRequest& request,
                                                       const std::string& tenant);

}  // namespace perdure::frontend
