// Every message between Perdure's processes. docs/wire_protocol.md tells who sends what when.
//
// F = frontend, W = worker, S = supervisor. Numbers of types are never reused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/cache_settings.h"
#include "base/model_alias.h"
#include "base/token.h"

namespace perdure::protocol {

enum class MessageType : uint16_t {
  // F ↔ W
  kHello = 1,          // W → F, first frame of a channel
  kSubmit = 2,         // F → W
  kAccepted = 3,       // W → F
  kEvent = 4,          // W → F
  kEnd = 5,            // W → F
  kFailed = 6,         // W → F
  kRelease = 7,        // F → W
  kCancel = 8,         // F → W
  kCredit = 9,         // F → W
  kBegun = 11,         // W → F
  kResume = 10,        // F → W, instead of Submit: a stream that a dead worker had accepted
  kCacheCommand = 12,  // F → W
  kCacheAnswer = 13,   // W → F
  kConversationCommand = 14,      // F → W
  kConversationAnswer = 15,       // W → F
  kConversationFileCommand = 16,  // F → W
  kConversationUpload = 17,       // F → W, with one fd
  kConversationFile = 18,         // W → F, with one fd
  kForgotten = 20,                // W → F
  kTenantSettings = 21,           // F → W
  // S → F
  kRoster = 32,
  kChannelOffer = 33,  // with one fd
  kFrontendSettings = 34,
  kMemoryReport = 35,
  // F → S
  kFrontendReady = 48,
  kDrained = 49,        // also W → S
  kChannelBroken = 50,  // also W → S
  kDemand = 51,
  kMemoryQuery = 52,
  // S → W
  kNewChannel = 64,  // with one fd: the frontend was replaced
  kKvLimit = 68,
  kThreads = 67,
  // S → F and W
  kDrain = 65,
  // S → W
  kBackUp = 66,  // with one fd
  // W → S
  kWorkerReady = 80,
  kLoadFailed = 81,
  kCleared = 82,
  kKvState = 83,
};

// --- F ↔ W -------------------------------------------------------------------------------------

// Chosen by F at random, unique for the life of the service; x-request-id shows it.
using RequestId = uint64_t;

struct Hello {
  static constexpr MessageType kType = MessageType::kHello;
  std::string model;
  uint32_t epoch = 0;  // counts the workers of this model; a replacement has the next one
  int32_t max_context = 0;
  int32_t max_sequences = 0;
  auto Fields() { return std::tie(model, epoch, max_context, max_sequences); }
};

// What the client asked for; absent where it did not say, so that W can apply the model's defaults.
struct SamplingRequest {
  std::optional<float> temperature, top_p, min_p;
  std::optional<int32_t> top_k;
  std::optional<float> repetition_penalty, frequency_penalty, presence_penalty;
  std::vector<std::pair<TokenId, float>> logit_bias;
  auto Fields() {
    return std::tie(temperature, top_p, min_p, top_k, repetition_penalty, frequency_penalty,
                    presence_penalty, logit_bias);
  }
};

enum class RequestKind : uint8_t { kChat = 0, kCompletion = 1 };

struct GenerationRequest {
  RequestKind kind = RequestKind::kChat;
  // kChat: a JSON object {messages, tools?, chat_template_kwargs?}. kCompletion: empty.
  std::string chat_json;
  // kCompletion: the prompt as text, or as token ids where prompt_ids is present.
  std::string prompt;
  std::optional<std::vector<TokenId>> prompt_ids;
  SamplingRequest sampling;
  uint64_t seed = 0;  // the client's, or drawn by F
  int32_t choices = 1;
  std::optional<int32_t> max_tokens;  // tokens of the answer
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool echo = false;      // kCompletion: the prompt's text precedes the answer
  int64_t unix_time = 0;  // what templates see as now
  // Logprobs are wanted, with so many alternatives of each token; they exclude echo.
  std::optional<int32_t> top_logprobs;
  std::string tenant;           // who may find what is cached; equal for requests of one key
  uint64_t client = 0;          // between whom places are shared where requests wait
  std::string conversation_id;  // the client's; may be empty
  CacheChoice cache;            // as the client has it
  bool store = true;            // false: its turn stays in memory
  std::string user;             // whom the client says it is for; may be empty
  std::optional<int32_t> reasoning_tokens_max;  // of a chat's answer; then it is closed
  bool remembers = true;  // false: its conversation was deleted meanwhile; it leaves nothing
  auto Fields() {
    return std::tie(kind, chat_json, prompt, prompt_ids, sampling, seed, choices, max_tokens, stop,
                    ignore_eos, echo, unix_time, top_logprobs, tenant, client, conversation_id,
                    cache, store, user, reasoning_tokens_max, remembers);
  }
};

struct Submit {
  static constexpr MessageType kType = MessageType::kSubmit;
  RequestId rid = 0;
  GenerationRequest request;
  uint32_t credit_bytes = 0;  // encoded payload bytes of Event that W may send before Credit
  bool suspect = false;       // a worker died in its step: it is computed alone until it passes
  auto Fields() { return std::tie(rid, request, credit_bytes, suspect); }
};

// What F has of a choice whose worker died.
struct ChoiceSoFar {
  uint64_t last_seq = 0;
  std::vector<TokenId> token_ids;
  bool ended = false;
  std::optional<int32_t> from_arena;  // of Begun, if it has come
  int32_t from_snapshot = 0;
  auto Fields() { return std::tie(last_seq, token_ids, ended, from_arena, from_snapshot); }
};

// How what a model writes is read: text::ChatForm and text::ReasoningStart by their numbers.
struct AnswerForm {
  uint8_t tool_format = 0;
  std::string reasoning_open, reasoning_close;  // both empty: it shows none
  uint8_t reasoning_start = 0;
  auto Fields() { return std::tie(tool_format, reasoning_open, reasoning_close, reasoning_start); }
};

// Which conversation a request's turns become part of, how its KV is kept and its answer read: made
// by the worker that accepts it, kept by F for the next one.
struct ConversationTicket {
  CacheSchedule cache;
  std::string conversation_id;           // empty: nothing is remembered
  std::vector<uint64_t> message_hashes;  // of the request's messages, each with all before it
  // Bits of the prompt's tokens, the lowest first: those that the model has drawn in earlier turns.
  // The next worker may have no other way to know.
  std::vector<uint64_t> drawn;
  AnswerForm form{};
  auto Fields() { return std::tie(cache, conversation_id, message_hashes, drawn, form); }
};

// A stream goes on with the next worker, which neither renders nor draws again what F has, and
// sends what follows last_seq: the bytes that the dead one would have sent.
struct Resume {
  static constexpr MessageType kType = MessageType::kResume;
  RequestId rid = 0;
  GenerationRequest request;
  std::vector<TokenId> prompt_ids;   // of Accepted
  ConversationTicket ticket;         // of Accepted
  std::vector<ChoiceSoFar> choices;  // request.choices of them
  uint32_t credit_bytes = 0;
  bool suspect = false;
  auto Fields() {
    return std::tie(rid, request, prompt_ids, ticket, choices, credit_bytes, suspect);
  }
};

// The request was rendered, tokenized, checked and queued. F keeps the ids: with the tokens of the
// events they are the whole truth of a stream.
struct Accepted {
  static constexpr MessageType kType = MessageType::kAccepted;
  RequestId rid = 0;
  std::vector<TokenId> prompt_ids;
  ConversationTicket ticket{};
  int32_t spliced = 0;                  // tokens of the prompt that are as they were drawn once
  std::vector<std::string> warnings{};  // what was asked for and cannot be, a sentence each
  auto Fields() { return std::tie(rid, prompt_ids, ticket, spliced, warnings); }
};

// A choice is computed for the first time. What a later worker finds cached is another number.
struct Begun {
  static constexpr MessageType kType = MessageType::kBegun;
  RequestId rid = 0;
  int32_t choice = 0;
  int32_t from_arena = 0;     // tokens of the prompt that were cached
  int32_t from_snapshot = 0;  // and that were once they had been read from the disk
  auto Fields() { return std::tie(rid, choice, from_arena, from_snapshot); }
};

struct TokenLogprob {
  float logprob = 0.0f;
  // What the token adds to the text, perhaps part of a character; the name of a special token,
  // which adds nothing.
  std::string bytes{};
  bool special = false;
  auto Fields() { return std::tie(logprob, bytes, special); }
};

struct TokenLogprobs {
  TokenLogprob token{};
  std::vector<TokenLogprob> top{};  // the likeliest, in this order
  uint32_t text_offset = 0;         // characters of the answer before the token's
  auto Fields() { return std::tie(token, top, text_offset); }
};

// Of a chat's answer.
enum class PartKind : uint8_t {
  kContent = 0,
  kReasoning = 1,
  kCallBegin = 2,      // text: the tool's name
  kCallArguments = 3,  // text: the next part of the arguments, an object as JSON
};

struct AnswerPart {
  PartKind kind = PartKind::kContent;
  int32_t call = 0;  // number of the call, from 0 in each choice
  std::string text;
  auto Fields() { return std::tie(kind, call, text); }
  bool operator==(const AnswerPart&) const = default;
};

// The same in all workers, and at the client: "call_…", unique for the life of the service.
std::string ToolCallId(RequestId rid, int32_t choice, int32_t call);

// One or more new tokens of a choice and what the fold made of them: `text` is content, and what
// comes behind it stands in `parts`. Both may be empty.
struct Event {
  static constexpr MessageType kType = MessageType::kEvent;
  RequestId rid = 0;
  int32_t choice = 0;
  uint64_t seq = 0;  // 1, 2, 3, … within (rid, choice); End carries the next one
  std::vector<TokenId> token_ids;
  std::string text;
  // Where they are wanted: those of token_ids, and how many of the choice's tokens, from its first
  // on, have given all their text by now. A choice's last event leaves out the others: a stop
  // string cut them off, or they are the end token.
  std::vector<TokenLogprobs> logprobs{};
  uint32_t tokens_out = 0;
  std::vector<AnswerPart> parts{};
  auto Fields() { return std::tie(rid, choice, seq, token_ids, text, logprobs, tokens_out, parts); }
};

// kToolCalls: as kStop, of an answer that calls tools.
enum class FinishReason : uint8_t { kStop = 0, kLength = 1, kToolCalls = 2 };

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  // Where the prompt's KV came from; they add up to prompt_tokens.
  int32_t from_arena = 0;
  int32_t from_snapshot = 0;
  int32_t computed = 0;
  // Microseconds: waiting in W, computing the prompt, generating.
  int64_t queue_us = 0;
  int64_t prefill_us = 0;
  int64_t decode_us = 0;
  int32_t reasoning_tokens = 0;  // of completion_tokens
  auto Fields() {
    return std::tie(prompt_tokens, completion_tokens, from_arena, from_snapshot, computed, queue_us,
                    prefill_us, decode_us, reasoning_tokens);
  }
};

struct End {
  static constexpr MessageType kType = MessageType::kEnd;
  RequestId rid = 0;
  int32_t choice = 0;
  uint64_t seq = 0;
  FinishReason reason = FinishReason::kStop;
  Usage usage;             // completion_tokens of this choice
  bool persisted = false;  // the turn is stored
  auto Fields() { return std::tie(rid, choice, seq, reason, usage, persisted); }
};

// The request, all its choices, ends with an error; nothing follows.
struct Failed {
  static constexpr MessageType kType = MessageType::kFailed;
  RequestId rid = 0;
  uint16_t error_code = 0;  // ErrorCode
  std::string message;
  std::string param;
  auto Fields() { return std::tie(rid, error_code, message, param); }
};

// F has queued the request's end to the client; W forgets it.
struct Release {
  static constexpr MessageType kType = MessageType::kRelease;
  RequestId rid = 0;
  auto Fields() { return std::tie(rid); }
};

// The client is gone or gave up. W sends nothing more of it.
struct Cancel {
  static constexpr MessageType kType = MessageType::kCancel;
  RequestId rid = 0;
  auto Fields() { return std::tie(rid); }
};

// The client has taken so many more bytes of Event payloads.
struct Credit {
  static constexpr MessageType kType = MessageType::kCredit;
  RequestId rid = 0;
  uint32_t bytes = 0;
  auto Fields() { return std::tie(rid, bytes); }
};

// What a person wants done with a model's cache.
enum class CacheOperation : uint8_t {
  kStats = 0,
  kOptimize = 1,
  kClear = 2,
  kHealth = 3,
  kRecommend = 4,
  kMonitor = 5,
};

struct CacheCommand {
  static constexpr MessageType kType = MessageType::kCacheCommand;
  RequestId rid = 0;  // of the HTTP request
  CacheOperation operation = CacheOperation::kStats;
  bool unused_only = false;  // kClear: what belongs to a conversation stays
  int32_t seconds = 0;       // kMonitor
  auto Fields() { return std::tie(rid, operation, unused_only, seconds); }
};

// Comes when it is done, which may take long; in any order.
struct CacheAnswer {
  static constexpr MessageType kType = MessageType::kCacheAnswer;
  RequestId rid = 0;
  std::string json;  // an object; docs/caching.md has its members
  auto Fields() { return std::tie(rid, json); }
};

// What a person or an application wants done with stored conversations.
enum class ConversationOperation : uint8_t {
  kList = 0,
  kGet = 1,
  kDelete = 2,
  kDeleteAll = 3,
  kFork = 4,
  kRewind = 5,
  kImport = 6,
  kTenants = 7,  // an operator's
};

struct ConversationCommand {
  static constexpr MessageType kType = MessageType::kConversationCommand;
  RequestId rid = 0;  // of the HTTP request
  ConversationOperation operation = ConversationOperation::kList;
  std::string tenant;
  std::string id;
  std::string new_id;    // kFork, kImport
  std::string user;      // kList, kDeleteAll: of whom; empty: of all
  std::string after;     // kList: those that come after this one
  int32_t limit = 0;     // kList
  uint32_t turn = 0;     // kGet, kFork, kRewind; 0: the last one
  bool tokens = false;   // kGet: with the token ids
  std::string document;  // kImport: as kGet tells it, with the token ids
  // An operator asks, and `tenant` is nobody's: of all tenants, or of those that have these numbers
  // (of `after`: after_owner).
  bool of_all_tenants = false;
  std::optional<uint64_t> owner, after_owner;
  auto Fields() {
    return std::tie(rid, operation, tenant, id, new_id, user, after, limit, turn, tokens, document,
                    of_all_tenants, owner, after_owner);
  }
};

struct ConversationAnswer {
  static constexpr MessageType kType = MessageType::kConversationAnswer;
  RequestId rid = 0;
  uint16_t error_code = 0;  // ErrorCode; 0: it is done
  std::string text;         // a JSON object; of an error the message
  std::string param;
  auto Fields() { return std::tie(rid, error_code, text, param); }
};

// What is wanted of conversations as files.
enum class ConversationFileOperation : uint8_t {
  kExport = 0,  // ConversationFile answers it
  kSave = 1,
  kLoad = 2,
  kListSaved = 3,
  kDeleteSaved = 4,
};

// ConversationAnswer answers it, but for kExport, where it has an error. Cancel ends it.
struct ConversationFileCommand {
  static constexpr MessageType kType = MessageType::kConversationFileCommand;
  RequestId rid = 0;  // of the HTTP request
  ConversationFileOperation operation = ConversationFileOperation::kExport;
  std::string tenant;
  std::string id;          // kExport, kSave; kLoad: of the new one; empty: as the file has it
  std::string name;        // of what is saved: kSave, kLoad, kDeleteSaved
  bool kv = true;          // kExport, kSave: with pages
  bool overwrite = false;  // kSave
  // As in ConversationCommand; without a number whoever has the conversation, else nobody's key.
  bool of_all_tenants = false;
  std::optional<uint64_t> owner;
  auto Fields() {
    return std::tie(rid, operation, tenant, id, name, kv, overwrite, of_all_tenants, owner);
  }
};

// Comes with an unlinked file, a conversation to be imported. ConversationAnswer answers it.
struct ConversationUpload {
  static constexpr MessageType kType = MessageType::kConversationUpload;
  RequestId rid = 0;
  std::string tenant;
  std::string id;                 // of the new one; empty: as the file has it
  std::optional<uint64_t> owner;  // whose an operator says that it is
  auto Fields() { return std::tie(rid, tenant, id, owner); }
};

// Comes with an unlinked file of so many bytes, the conversation `id`.
struct ConversationFile {
  static constexpr MessageType kType = MessageType::kConversationFile;
  RequestId rid = 0;
  std::string id;
  uint64_t bytes = 0;
  auto Fields() { return std::tie(rid, id, bytes); }
};

// The conversations that these requests go on with, or would begin, are deleted: nothing of the
// requests is to be kept, by no later worker either. Precedes the answer to who has deleted them.
struct Forgotten {
  static constexpr MessageType kType = MessageType::kForgotten;
  std::vector<RequestId> rids;
  auto Fields() { return std::tie(rids); }
};

struct TenantRetention {
  std::string tenant;
  int32_t retention_days = 0;
  auto Fields() { return std::tie(tenant, retention_days); }
};

// All tenants whose conversations are kept for another time than the model's; after Hello, and
// after a reload that changed it. Before the first one W deletes nothing for its age.
struct TenantSettings {
  static constexpr MessageType kType = MessageType::kTenantSettings;
  std::vector<TenantRetention> retentions;
  auto Fields() { return std::tie(retentions); }
};

// --- S → F -------------------------------------------------------------------------------------

enum class ModelState : uint8_t {
  kStarting = 0,  // process started, not loading yet
  kLoading = 1,
  kReady = 2,
  kBackoff = 3,   // died; waits to be started again
  kFailed = 4,    // gave up until a cool-down has passed
  kStopping = 5,  // drains
  kStopped = 6,
};
std::string_view ModelStateName(ModelState state);

struct RosterEntry {
  std::string name;
  ModelState state = ModelState::kStarting;
  uint32_t epoch = 0;
  bool is_default = false;
  int64_t created_unix = 0;
  int32_t max_context = 0;    // 0 until known
  int32_t retry_after_s = 0;  // sensible wait while not ready
  std::string reason;         // why not ready, for people: the last obituary's sentence
  uint64_t load_bytes_done = 0, load_bytes_total = 0;
  // kStopped, kStopping: it comes when it is asked for, as requests that wait do (Demand).
  bool on_demand = false;
  uint64_t missing_bytes = 0;  // of memory, to load it even if all goes that may go
  auto Fields() {
    return std::tie(name, state, epoch, is_default, created_unix, max_context, retry_after_s,
                    reason, load_bytes_done, load_bytes_total, on_demand, missing_bytes);
  }
};

// The whole roster, each time; a later one replaces an earlier one.
struct Roster {
  static constexpr MessageType kType = MessageType::kRoster;
  std::vector<RosterEntry> models;
  bool draining = false;
  bool ends_soon = false;  // all is served as before, but load balancers are to look elsewhere
  auto Fields() { return std::tie(models, draining, ends_soon); }
};

// Comes with F's end of a channel to the worker `epoch` of `model`.
struct ChannelOffer {
  static constexpr MessageType kType = MessageType::kChannelOffer;
  std::string model;
  uint32_t epoch = 0;
  // Requests in whose step an earlier worker died, newest last; some may have ended long ago.
  std::vector<RequestId> suspects;
  std::vector<RequestId> quarantined;  // those that are to be given up
  auto Fields() { return std::tie(model, epoch, suspects, quarantined); }
};

// Of one of the api_keys, where the config has a table of its own.
struct ApiKeySettings {
  std::string key;
  int32_t retention_days = 0;  // 0: as the model has it
  bool store = true;           // of requests that do not say
  auto Fields() { return std::tie(key, retention_days, store); }
};

// Of one model, where its table has its own.
struct ModelLimits {
  std::string model;
  std::optional<int32_t> queue_max, request_timeout_s;
  auto Fields() { return std::tie(model, queue_max, request_timeout_s); }
};

// What F needs of the config; sent at start in the heritage and again after a reload.
struct FrontendSettings {
  static constexpr MessageType kType = MessageType::kFrontendSettings;
  std::string host;  // as bound
  int32_t port = 0;
  std::vector<std::string> api_keys;       // empty: none asked for
  std::vector<std::string> admin_keys;     // for /admin; none: see docs/api.md
  std::string admin_token;                 // the command line's key for /admin
  std::vector<std::string> allowed_hosts;  // Host and Origin names beside loopback and `host`
  uint64_t body_bytes_max = 0;
  uint64_t upload_bytes_max = 0;
  std::string upload_dir;  // where uploads lie while they come, without a name
  int32_t connections_max = 0;
  int32_t queue_max = 0;         // requests under way per model, running and waiting; beyond: 503
  int32_t header_timeout_s = 0;  // from a connection's first byte of a request to its body's end
  int32_t idle_timeout_s = 0;    // keep-alive connections between requests
  int32_t sse_comment_s = 0;     // silence in a stream before a comment line is sent
  int32_t slow_client_timeout_s = 0;
  int32_t drain_timeout_s = 0;    // running answers after SIGTERM
  int32_t request_timeout_s = 0;  // of generations; 0: none
  std::string log_level;
  std::vector<ModelAlias> aliases;
  std::vector<ApiKeySettings> key_settings;  // of some of api_keys
  std::vector<ModelLimits> model_limits;     // of some of the models
  auto Fields() {
    return std::tie(host, port, api_keys, admin_keys, admin_token, allowed_hosts, body_bytes_max,
                    upload_bytes_max, upload_dir, connections_max, queue_max, header_timeout_s,
                    idle_timeout_s, sse_comment_s, slow_client_timeout_s, drain_timeout_s,
                    request_timeout_s, log_level, aliases, key_settings, model_limits);
  }
};

// Answers MemoryQuery.
struct MemoryReport {
  static constexpr MessageType kType = MessageType::kMemoryReport;
  uint64_t id = 0;
  std::string json;  // an object
  auto Fields() { return std::tie(id, json); }
};

// --- F, W → S ----------------------------------------------------------------------------------

struct FrontendReady {
  static constexpr MessageType kType = MessageType::kFrontendReady;
  uint8_t reserved = 0;
  auto Fields() { return std::tie(reserved); }
};

// All running answers have ended; the process exits next.
struct Drained {
  static constexpr MessageType kType = MessageType::kDrained;
  uint8_t reserved = 0;
  auto Fields() { return std::tie(reserved); }
};

// The sender closed the channel between F and W because the other broke the protocol. From F: W is
// replaced, as its memory may be damaged. From W: both get a new channel.
struct ChannelBroken {
  static constexpr MessageType kType = MessageType::kChannelBroken;
  std::string model;
  uint32_t epoch = 0;
  std::string reason;
  auto Fields() { return std::tie(model, epoch, reason); }
};

// What is asked of a model.
struct ModelDemand {
  std::string model;
  uint32_t waiting = 0;         // requests that no worker has
  uint32_t running = 0;         // that one has
  int64_t longest_wait_ms = 0;  // of those that wait
  // What the request that ended last said of how long its model shall stay; -1: for ever.
  std::optional<int32_t> keep_alive_s;
  auto Fields() { return std::tie(model, waiting, running, longest_wait_ms, keep_alive_s); }
};

// All models of which something is asked, or was since the message before.
struct Demand {
  static constexpr MessageType kType = MessageType::kDemand;
  std::vector<ModelDemand> models;
  auto Fields() { return std::tie(models); }
};

// Who has what of the memory? `id` is the sender's.
struct MemoryQuery {
  static constexpr MessageType kType = MessageType::kMemoryQuery;
  uint64_t id = 0;
  auto Fields() { return std::tie(id); }
};

struct WorkerReady {
  static constexpr MessageType kType = MessageType::kWorkerReady;
  int32_t max_context = 0;
  std::string architecture;
  std::string quantization;
  int64_t parameters = 0;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
  std::string isa;
  uint64_t kv_page_bytes = 0;  // of one page of KV, the unit of allocation; 0: not in pages
  uint64_t kv_slab_bytes = 0;  // in which KV takes memory from the system, and gives it back
  uint64_t work_bytes = 0;     // what computing takes at most, beside weights and KV
  auto Fields() {
    return std::tie(max_context, architecture, quantization, parameters, weight_bytes,
                    kv_bytes_per_token, isa, kv_page_bytes, kv_slab_bytes, work_bytes);
  }
};

// The model cannot be served as it lies there; the worker exits with kExitBadModel.
struct LoadFailed {
  static constexpr MessageType kType = MessageType::kLoadFailed;
  uint16_t error_code = 0;
  std::string message;
  auto Fields() { return std::tie(error_code, message); }
};

// A suspect was computed beyond the step in which it had seen a worker die.
struct Cleared {
  static constexpr MessageType kType = MessageType::kCleared;
  RequestId rid = 0;
  auto Fields() { return std::tie(rid); }
};

// --- S → F and W -------------------------------------------------------------------------------

// Comes with W's end of a channel to the new frontend.
struct NewChannel {
  static constexpr MessageType kType = MessageType::kNewChannel;
  uint8_t reserved = 0;
  auto Fields() { return std::tie(reserved); }
};

// Take nothing new; finish what runs within `timeout_s`, then Drained and exit.
struct Drain {
  static constexpr MessageType kType = MessageType::kDrain;
  int32_t timeout_s = 0;
  bool hand_over = false;  // to W: exit after this step; what runs goes on with the next worker
  // To W: what still comes is left to the next worker, without an answer.
  bool leave_new = false;
  auto Fields() { return std::tie(timeout_s, hand_over, leave_new); }
};

// --- S ↔ W -------------------------------------------------------------------------------------

// S → W: KV may take so many bytes of memory from now on. More than before is usable at once; where
// it is less, W gives back what it can. Answered by KvState.
struct KvLimit {
  static constexpr MessageType kType = MessageType::kKvLimit;
  uint32_t serial = 0;  // 1, 2, 3, … of a worker
  uint64_t bytes = 0;
  auto Fields() { return std::tie(serial, bytes); }
};

// S → W: compute with so many threads, at most those that it has.
struct Threads {
  static constexpr MessageType kType = MessageType::kThreads;
  int32_t count = 1;
  auto Fields() { return std::tie(count); }
};

// W → S: what KV may take, and how much it would like to.
struct KvState {
  static constexpr MessageType kType = MessageType::kKvState;
  uint32_t serial = 0;        // of the newest KvLimit that W knows
  uint64_t limit_bytes = 0;   // that W keeps to: that of KvLimit, or more where too much is in use
  uint64_t wanted_bytes = 0;  // in all; 0: it has enough
  auto Fields() { return std::tie(serial, limit_bytes, wanted_bytes); }
};

// --- S → W -------------------------------------------------------------------------------------

// Comes with a stream socket, whose other end has who makes a backup: what is stored goes there
// (snapshot/backup_stream.h).
struct BackUp {
  static constexpr MessageType kType = MessageType::kBackUp;
  bool kv = false;  // pages of KV, too
  auto Fields() { return std::tie(kv); }
};

}  // namespace perdure::protocol
