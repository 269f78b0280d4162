#include "worker/conversation_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"
#include "worker/cache_schedule.h"
#include "worker/message_hashes.h"

namespace perdure::worker {

using snapshot::StoredConversation;
using snapshot::StoredTurn;

namespace {

constexpr int kDocumentVersion = 1;

tl::unexpected<Error> Wrong(std::string what) {
  return Err(ErrorCode::invalid_request, "The document is no exported conversation: " + what,
             "document");
}

Json ScheduleJson(const CacheSchedule& schedule) {
  Json segments = Json::array();
  for (const CacheSegment& segment : schedule.segments)
    segments.push_back({{"from", segment.from},
                        {"bits", segment.bits},
                        {"keep", segment.keep},
                        {"size", segment.size}});
  return {{"type", schedule.type},
          {"segments", std::move(segments)},
          {"chunk_size", schedule.chunk_size},
          {"pinned", schedule.pinned}};
}

// Members of another type throw; the caller makes an error of that.
CacheSchedule ScheduleOf(const Json& json) {
  CacheSchedule schedule;
  schedule.type = json.at("type").get<std::string>();
  schedule.segments.clear();
  for (const Json& segment : json.at("segments"))
    schedule.segments.push_back(
        {segment.at("from").get<int32_t>(), segment.at("bits").get<int32_t>(),
         segment.at("keep").get<int32_t>(), segment.at("size").get<int32_t>()});
  schedule.chunk_size = json.at("chunk_size").get<int32_t>();
  schedule.pinned = json.at("pinned").get<bool>();
  return schedule;
}

Json Runs(const std::vector<bool>& drawn) {
  // Lengths of stretches, the first of tokens that were not drawn.
  Json runs = Json::array();
  size_t begin = 0;
  for (bool value = false; begin < drawn.size(); value = !value) {
    size_t end = begin;
    while (end < drawn.size() && drawn[end] == value) ++end;
    runs.push_back(end - begin);
    begin = end;
  }
  return runs;
}

}  // namespace

std::string TenantName(uint64_t owner) { return fmt::format("{:016x}", owner); }

Json ConversationJson(const StoredConversation& conversation, bool with_tenant) {
  Json json = {{"id", conversation.id},
               {"object", "conversation"},
               {"created_at", conversation.created_unix_ms / 1000},
               {"last_used_at", conversation.used_unix_ms / 1000},
               {"named", conversation.named},
               {"turns", conversation.turns},
               {"tokens", conversation.tokens}};
  if (!conversation.user.empty()) json["user"] = conversation.user;
  if (with_tenant) json["tenant"] = TenantName(conversation.owner);
  return json;
}

Json ConversationJson(const StoredConversation& conversation, const StoredTurn& turn,
                      const std::vector<snapshot::TurnSummary>& turns, bool with_tokens) {
  Json json = ConversationJson(conversation);
  json["document_version"] = kDocumentVersion;
  Json messages = Json::array();
  for (const std::string& message : turn.messages) {
    Json parsed = Json::parse(message, nullptr, false);
    messages.push_back(parsed.is_discarded() ? Json(message) : std::move(parsed));
  }
  json["messages"] = std::move(messages);
  json["cache"] = ScheduleJson(turn.schedule);
  Json history = Json::array();
  for (const snapshot::TurnSummary& each : turns)
    history.push_back({{"turn", each.turn},
                       {"at", each.unix_ms / 1000},
                       {"prompt_tokens", each.prompt_tokens},
                       {"answer_tokens", each.answer_tokens}});
  json["history"] = std::move(history);
  if (!with_tokens) return json;
  json["fingerprint"] = fmt::format("{:016x}", turn.fingerprint);
  json["prompt_tokens"] = turn.prompt_tokens;
  json["token_ids"] = turn.ids;
  json["drawn_runs"] = Runs(turn.drawn);
  return json;
}

Result<ImportedConversation> ParseConversation(const std::string& document, int32_t vocab_size,
                                               int max_context) {
  ASSIGN_OR_RETURN(const Json json,
                   ParseJson(document, "The document", ErrorCode::invalid_request));
  if (!json.is_object()) return Wrong("it is no JSON object.");
  ImportedConversation imported;
  StoredTurn& turn = imported.turn;
  try {
    if (json.at("document_version").get<int>() > kDocumentVersion)
      return Wrong(fmt::format("it is of version {}, this server knows {}.",
                               json.at("document_version").get<int>(), kDocumentVersion));
    imported.owner.id = json.at("id").get<std::string>();
    imported.owner.named = json.value("named", true);
    imported.owner.user = json.value("user", "");
    const Json& messages = json.at("messages");
    if (!messages.is_array()) return Wrong("its messages are no list.");
    if (messages.size() > limits::kMessagesMax) return Wrong("it has too many messages.");
    size_t bytes = 0;  // numbers may be longer than they were
    for (const Json& message : messages) {
      if (!message.is_object()) return Wrong("a message is no object.");
      turn.messages.push_back(DumpJson(message));
      bytes += turn.messages.back().size();
      if (bytes > limits::kFrameBytesMax / 2) return Wrong("its messages are too long.");
    }
    std::vector<uint64_t> hashes = MessageHashes(DumpJson(Json{{"messages", messages}}));
    turn.message_hashes.resize(turn.messages.size() -
                               std::min(hashes.size(), turn.messages.size()));
    turn.message_hashes.insert(turn.message_hashes.end(), hashes.begin(), hashes.end());
    turn.schedule = ScheduleOf(json.at("cache"));
    turn.ids = json.at("token_ids").get<std::vector<TokenId>>();
    turn.prompt_tokens = json.at("prompt_tokens").get<uint32_t>();
    turn.fingerprint = std::stoull(json.at("fingerprint").get<std::string>(), nullptr, 16);
    bool value = false;
    for (const Json& run : json.at("drawn_runs")) {
      const auto count = run.get<size_t>();
      if (count > turn.ids.size() - turn.drawn.size()) return Wrong("drawn_runs are too long.");
      turn.drawn.insert(turn.drawn.end(), count, value);
      value = !value;
    }
  } catch (const std::exception& e) {
    return Wrong(e.what());
  }
  if (turn.messages.empty()) return Wrong("it has no messages.");
  if (imported.owner.id.empty() || imported.owner.id.size() > limits::kConversationIdBytesMax)
    return Wrong(fmt::format("its id must have 1 to {} bytes.", limits::kConversationIdBytesMax));
  if (std::ranges::any_of(imported.owner.id, [](unsigned char c) { return c < 0x20 || c == 0x7F; }))
    return Wrong("its id has control characters.");
  if (imported.owner.user.size() > limits::kConversationUserBytesMax)
    return Wrong("its user is too long.");
  if (turn.ids.size() > static_cast<size_t>(max_context))
    return Wrong(fmt::format("it has {} tokens, and the model a context of {}.", turn.ids.size(),
                             max_context));
  if (turn.drawn.size() != turn.ids.size() || turn.prompt_tokens > turn.ids.size())
    return Wrong("token_ids, drawn_runs and prompt_tokens do not agree.");
  for (const TokenId id : turn.ids)
    if (id < 0 || id >= vocab_size)
      return Wrong(fmt::format("token {} is none of this model's {}.", id, vocab_size));
  if (!IsSound(turn.schedule)) return Wrong("its cache is one that there is not.");
  return imported;
}

}  // namespace perdure::worker
