// What is done with stored conversations on demand.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"
#include "base/random.h"
#include "worker/conversation_json.h"
#include "worker/generator_state.h"

namespace perdure::worker {

using protocol::ConversationCommand;
using protocol::ConversationOperation;
using snapshot::StoredConversation;
using snapshot::StoredTurn;
using snapshot::TurnFile;

namespace {

protocol::ConversationAnswer Failure(const Error& error) {
  return {0, static_cast<uint16_t>(error.code), error.message, error.param};
}
protocol::ConversationAnswer Success(const Json& json) { return {0, 0, DumpJson(json), {}}; }

// The conversation as it is now.
Managed Changed(Result<StoredConversation> stored) {
  Managed managed;
  if (!stored) {
    managed.answer = Failure(stored.error());
    return managed;
  }
  managed.answer = Success(ConversationJson(*stored));
  managed.stored = std::move(*stored);
  return managed;
}

Managed Get(TurnFile& file, const StoredConversation& conversation, uint32_t turn,
            bool with_tokens) {
  Managed managed;
  auto loaded = file.Load(conversation.owner, conversation.id, turn);
  auto turns = file.Turns(conversation.owner, conversation.id);
  if (!loaded || !turns)
    managed.answer = Failure(loaded ? turns.error() : loaded.error());
  else
    managed.answer = Success(ConversationJson(conversation, *loaded, *turns, with_tokens));
  return managed;
}

}  // namespace

void Generator::Command(const ConversationCommand& command) {
  const auto refuse = [&](ErrorCode code, const std::string& message, const char* param = "") {
    sink_->Send(
        protocol::ConversationAnswer{command.rid, static_cast<uint16_t>(code), message, param});
  };
  if (options_.persistence == nullptr)
    return refuse(ErrorCode::unsupported,
                  "Conversations of this model are not stored: see [snapshots] and the log.");
  const uint64_t owner = OwnerOf(command.tenant);
  if (command.operation == ConversationOperation::kList) return ListConversations(command, owner);
  const int64_t now_ms = options_.unix_ms();
  if (command.operation == ConversationOperation::kImport) {
    auto imported = ParseConversation(command.document, model_->engine->info().vocab_size,
                                      options_.admission.max_context);
    if (!imported) return refuse(imported.error().code, imported.error().message, "document");
    if (!command.new_id.empty()) imported->owner.id = command.new_id;
    imported->owner.owner = owner;
    imported->turn.rid = command.rid;
    imported->turn.unix_ms = now_ms;
    if (stored_.Find(owner, imported->owner.id) != nullptr ||
        conversations_.Get(owner, imported->owner.id) != nullptr)
      return refuse(ErrorCode::invalid_request,
                    fmt::format("There is a conversation {} already.", imported->owner.id), "id");
    return options_.persistence->Manage(
        command.rid, [imported = std::move(*imported)](TurnFile& file) {
          return Changed(file.Commit(imported.owner, imported.turn));
        });
  }
  if (command.operation == ConversationOperation::kDeleteAll) {
    return DeleteConversations(command.rid, AllOf(owner, command.user));
  }
  const StoredConversation* stored = stored_.Find(owner, command.id);
  // Its first answer may still be on its way.
  StoredConversation not_stored;
  not_stored.owner = owner;
  not_stored.id = command.id;
  if (stored == nullptr && command.operation == ConversationOperation::kDelete &&
      IsKnown(owner, command.id))
    stored = &not_stored;
  if (stored == nullptr)
    return refuse(ErrorCode::not_found, fmt::format("There is no conversation {}.", command.id),
                  "id");
  const StoredConversation of_it = *stored;
  switch (command.operation) {
    case ConversationOperation::kGet:
      return options_.persistence->Manage(
          command.rid, [of_it, turn = command.turn, tokens = command.tokens](TurnFile& file) {
            return Get(file, of_it, turn, tokens);
          });
    case ConversationOperation::kDelete:
      return DeleteConversations(command.rid, {of_it});
    case ConversationOperation::kFork: {
      const std::string new_id =
          command.new_id.empty() ? fmt::format("conv_{:016x}", RandomU64()) : command.new_id;
      return options_.persistence->Manage(
          command.rid, [of_it, new_id, now_ms, turn = command.turn](TurnFile& file) {
            return Changed(file.Fork(of_it.owner, of_it.id, turn, new_id, now_ms));
          });
    }
    case ConversationOperation::kRewind: {
      const Conversation* const known = conversations_.Get(owner, of_it.id);
      if (known != nullptr && known->running > 0)
        return refuse(
            ErrorCode::invalid_request,
            fmt::format("A request goes on with conversation {}: wait for its end.", of_it.id),
            "id");
      // Its last turn is another one now: it is read again when it is needed.
      conversations_.Remove(owner, of_it.id);
      return ForgetTurnsBehind(command.turn, of_it, command.rid,
                               [of_it, turn = command.turn](TurnFile& file) {
                                 return Changed(file.Rewind(of_it.owner, of_it.id, turn));
                               });
    }
    default:
      return refuse(ErrorCode::unsupported, "There is no such operation.");
  }
}

void Generator::ListConversations(const ConversationCommand& command, uint64_t owner) {
  const size_t limit =
      static_cast<size_t>(std::clamp(command.limit, 1, limits::kConversationsListedMax));
  Json data = Json::array();
  bool has_more = false, has_begun = command.after.empty();
  for (const StoredConversation* each : stored_.Of(owner, command.user)) {
    if (has_begun && data.size() == limit) {
      has_more = true;
      break;
    }
    if (has_begun) data.push_back(ConversationJson(*each));
    has_begun = has_begun || each->id == command.after;
  }
  Json json = {{"object", "list"}};
  json["first_id"] = data.empty() ? Json() : data.front()["id"];
  json["last_id"] = data.empty() ? Json() : data.back()["id"];
  json["has_more"] = has_more;
  json["data"] = std::move(data);
  sink_->Send(protocol::ConversationAnswer{command.rid, 0, DumpJson(json), {}});
}

void Generator::OnAnswer(Managed managed) {
  if (managed.stored && !deleting_.contains({managed.stored->owner, managed.stored->id}))
    stored_.Put(*managed.stored);
  if (managed.answer.rid == 0) return;
  constexpr size_t kRestOfAnswer = 4096;  // beside the text
  if (managed.answer.text.size() + kRestOfAnswer > limits::kFrameBytesMax) {
    managed.answer.error_code = static_cast<uint16_t>(ErrorCode::payload_too_large);
    managed.answer.text = "The conversation is too long to be shown.";
  }
  sink_->Send(managed.answer);
}

}  // namespace perdure::worker
