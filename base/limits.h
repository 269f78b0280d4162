// Every bound in Perdure, with its reason. A bound that a person may want to change is a default
// here and a key in the config.
#pragma once

#include <cstddef>
#include <cstdint>

namespace perdure::limits {

// --- Model files -------------------------------------------------------------------------------

// config.json, generation_config.json and their like: real ones are below 100 KB.
inline constexpr size_t kModelJsonBytesMax = size_t{16} << 20;
// tokenizer.json: the largest in use (262,144 tokens) is 33 MB.
inline constexpr size_t kTokenizerJsonBytesMax = size_t{128} << 20;
// A safetensors header: the format's own reference implementation stops at 100 MB.
inline constexpr size_t kSafetensorsHeaderBytesMax = 100'000'000;
// Shapes in config.json: an order of magnitude above the largest published model; they keep every
// product of them within 64 bits.
inline constexpr int kLayersMax = 1024;
inline constexpr int kHiddenMax = 1 << 17;
inline constexpr int kHeadsMax = 1024;
inline constexpr int kHeadDimMax = 512;
inline constexpr int kFeedForwardMax = 1 << 20;
inline constexpr int kVocabMax = 1 << 21;
inline constexpr int kContextMax = 1 << 24;
// Experts of a layer: an order of magnitude above the largest published model.
inline constexpr int kExpertsMax = 4096;
// Shards of one checkpoint: the largest published ones have below 300.
inline constexpr size_t kShardsMax = 4096;

// --- Engine ------------------------------------------------------------------------------------

// Rows (tokens) that go through the layers at once; a longer step is cut, which changes no bit.
// Activations of 512 rows stay near the caches, and weights are read once for all of them.
inline constexpr int kEngineRowsMax = 512;
// Pairs of (token, expert) that go through a layer of experts at once: kEngineRowsMax tokens of
// eight experts each. More of them are cut, which changes no bit and bounds the activations.
inline constexpr int kExpertSlotsMax = 4096;
// Threads of one engine: above any machine's core count, it keeps a typing error harmless.
inline constexpr int kEngineThreadsMax = 1024;

// --- What `perdure doctor` warns of ------------------------------------------------------------

// Below, the smallest useful models do not fit beside the system.
inline constexpr uint64_t kDoctorMemoryLow = uint64_t{1} << 30;
// Prepared weights of a small model, and what conversations and logs leave.
inline constexpr uint64_t kDoctorDiskLow = uint64_t{2} << 30;
// Files open in the frontend beside its connections: sockets of workers, logs, libraries.
inline constexpr unsigned kDoctorFilesBeside = 64;

// --- Chat templates ----------------------------------------------------------------------------

// Real templates are below 30 KB.
inline constexpr size_t kTemplateBytesMax = size_t{1} << 20;
// Nested expressions, blocks, macro calls; the recursive parser's stack stays below 1 MiB.
inline constexpr int kTemplateDepthMax = 200;
// Evaluated nodes: a 1,000-message conversation with tools takes about 200,000.
inline constexpr int64_t kTemplateStepsMax = 20'000'000;
// Bytes that one rendering may produce, intermediate strings included.
inline constexpr size_t kTemplateOutputBytesMax = size_t{64} << 20;
// Elements of one range(): longer loops would end at the step limit anyway.
inline constexpr int64_t kTemplateRangeMax = 100'000;
// Lists in lists, dicts in dicts: requests nest 64 levels, templates add a few.
inline constexpr int kTemplateValueDepthMax = 200;
// Nested evaluation at run time, macro calls multiplied by what stands inside them: a macro that
// walks a JSON schema takes about 12 a level, and requests nest 64 levels, which is 32 of schemas.
// The stack stays below 1 MiB (below 8 with sanitizers).
inline constexpr int kTemplateEvalDepthMax = 400;
// Width and precision in format strings: nobody pads further.
inline constexpr int64_t kTemplateFormatWidthMax = 10'000;
// Templates of one model: published ones have at most four (default, tool_use, rag, …).
inline constexpr size_t kTemplatesMax = 32;

// --- Configuration -----------------------------------------------------------------------------

// A config of 64 models is below 20 KB.
inline constexpr size_t kConfigBytesMax = size_t{1} << 20;
// Names of [keys.NAME], which stand in error messages.
inline constexpr size_t kKeyNameBytesMax = 64;
// How long a conversation may be kept that nobody goes on with: a hundred years, which is for ever.
inline constexpr int kRetentionDaysMax = 36'500;

// --- JSON --------------------------------------------------------------------------------------

// What an error repeats of a text that is not valid JSON: the place is told by line and column.
inline constexpr size_t kJsonProblemBytesMax = 300;

// --- Hugging Face cache ------------------------------------------------------------------------

// The Hub's own bound for names of repositories.
inline constexpr size_t kRepoNameBytesMax = 96;
// refs/<revision> holds 40 hex digits; an editor may have added a newline.
inline constexpr size_t kRefBytesMax = 64;

// --- Processes and channels --------------------------------------------------------------------

// A frame carries one message; the largest is a Submit with a whole request body.
inline constexpr size_t kFrameBytesMax = size_t{48} << 20;
// A child's heritage: names, paths, API keys.
inline constexpr size_t kHeritageBytesMax = size_t{1} << 20;
// Bytes of events that a worker may have under way for one request: a client that reads slower than
// the model writes pauses its own sequence, nobody else's.
inline constexpr uint32_t kCreditBytes = 256 * 1024;
// How long a sequence may wait for credit before its client is given up.
inline constexpr int kSlowClientTimeoutS = 60;
// Sequences in one step, as the manifest in shared memory has room for them.
inline constexpr int kSequencesMax = 256;
// Panic text in shared memory: a sentence and a place in the source.
inline constexpr size_t kPanicTextBytes = 1024;
// One answer of the control socket: 64 models with their last deaths take about 100 KB.
inline constexpr size_t kControlAnswerBytesMax = size_t{16} << 20;
// After a drain's time is over: what is left to write has so long before the process exits.
inline constexpr int kDrainFlushMs = 2000;
// Models in one config: each is a process.
inline constexpr int kModelsMax = 64;
// A model's name stands in paths, shared-memory names and logs.
inline constexpr size_t kModelNameBytesMax = 200;

// --- Tokenizers and output ---------------------------------------------------------------------

// Text of one Encode call. The longest contexts (about 2^20 tokens) hold 5 MB of English; the
// merging of one word this long takes 0.5 GiB for a moment.
inline constexpr size_t kEncodeBytesMax = size_t{16} << 20;
// One added token's content: real ones are below 100 bytes. Searching is at most text × this.
inline constexpr size_t kAddedTokenBytesMax = 256;
// What a decoder's Replace steps may make of one token: real tokens are below 1 KB.
inline constexpr size_t kTokenBytesMax = size_t{64} << 10;
// A regular expression or a literal pattern: real ones are below 500 bytes.
inline constexpr size_t kTokenizerPatternBytesMax = size_t{16} << 10;
// A normalizer's, pre-tokenizer's or decoder's steps in all: real ones have at most 6.
inline constexpr size_t kTokenizerStepsMax = 64;
// What normalizing or pre-tokenizing may make of a text: so many times its bytes and a bit. NFKC
// makes 33 bytes of three (U+FDFA), other steps at most three of one.
inline constexpr size_t kNormalizedGrowthMax = 16;
inline constexpr size_t kNormalizedSlackBytes = size_t{64} << 10;
// Regular expressions of one Encode call: steps that PCRE2 may take beyond the first 512 of each
// match. Runs of white space take two to four steps a byte and are retried at 16 times the limit.
inline constexpr int64_t kRegexStepsBase = int64_t{1} << 24;
inline constexpr int64_t kRegexStepsPerByte = 256;
// Vocabularies that merge by rank (tekken.json, tokenizer.model) have no list of merges: each way
// to cut a token into two others is one. Real ones have 310,000 of them and tokens of 156 bytes, as
// the byte-level alphabet writes them.
inline constexpr size_t kRankedMergesMax = size_t{1} << 22;
inline constexpr size_t kRankedTokenBytesMax = 512;
// Tokens that a post-processor puts around a text: real ones add one or two.
inline constexpr size_t kAroundTextTokensMax = 64;
// Special tokens of a tekken.json, which are made even where the file does not list them: real ones
// have 1,000.
inline constexpr int kTekkenSpecialTokensMax = 1 << 16;
// WordPiece: a word of more characters is unknown. Real models say 100; the work is quadratic.
inline constexpr int kWordPieceCharsMax = 1024;
// PCRE2's memory for backtracking; its own defaults are 20 MB and 32 KiB.
inline constexpr uint32_t kRegexHeapBytesMax = uint32_t{64} << 20;
inline constexpr size_t kRegexJitStackBytesMax = size_t{4} << 20;

// --- Calls of tools in answers -----------------------------------------------------------------

// Containers in containers in a call's arguments: what a request's JSON may nest, so that a client
// can send back what it got.
inline constexpr int kCallJsonDepthMax = 64;
// A parameter's name in a call that is written as markup: real ones are below 64 bytes.
inline constexpr size_t kCallParameterNameBytesMax = 256;

// --- Worker ------------------------------------------------------------------------------------

// Requests that one worker holds, waiting or running: kQueueTimes of kQueueMax. It guards the
// worker against a frontend that lost count.
inline constexpr size_t kWorkerRequestsMax = 8192;
// Prompt tokens of all of them: 64 MiB of ids.
inline constexpr size_t kWorkerPromptTokensMax = size_t{16} << 20;
// Ended requests that wait for their Release; the oldest is forgotten first.
inline constexpr size_t kWorkerEndedMax = 256;
// Answers to one request, as OpenAI's API bounds n.
inline constexpr int kChoicesMax = 128;
// Tokens of several answers to one request, together: a Resume carries their ids, 16 MiB of them,
// in one frame.
inline constexpr int64_t kChoicesTokensMax = int64_t{1} << 22;
// Alternatives told of one token, as OpenAI's API bounds them for chats and for plain completions.
inline constexpr int kTopLogprobsMax = 20;
inline constexpr int kCompletionLogprobsMax = 5;
// Bytes told of a token beside its logprob: real tokens are below 1 KB. With all alternatives an
// event stays within a client's credit.
inline constexpr size_t kLogprobBytesMax = 4096;
// Text of one event: an echoed prompt is cut, so that each piece fits a client's credit.
inline constexpr size_t kEchoEventBytesMax = 16 * 1024;
// Sequences decoded together and tokens of prompts in one step, where the config does not say.
inline constexpr int kSequencesDefault = 8;
inline constexpr int kPrefillTokensPerStepDefault = 256;
// Prompt tokens of a step are fitted to this time: between steps a worker sees who has left, so
// that a cancelled request ends within a second, and others get their next token.
inline constexpr int kStepTargetMs = 400;
// Fewer prompt tokens a step would read all weights for too little work.
inline constexpr int kPrefillTokensPerStepMin = 16;
// Positions for which a sequence that rotates has pages beyond those that are computed: what a step
// computes of it at most.
inline constexpr int kRotatingAheadTokens = 512;
// Positions that it sees beside those kept from the start: the page before is always among them.
inline constexpr int kRotatingWindowMin = 64;
// Positions of a segment that lies in a row: a large prompt's worth.
inline constexpr int kCacheChunkMax = 8192;
// Tokens of a stretch of an answer that is tokenized otherwise than it was drawn: both ways meet
// again at the next word.
inline constexpr size_t kSpliceTokensMax = 64;
// Pinned conversations may hold one of so many parts of a model's memory for KV: others need some.
inline constexpr uint64_t kPinnedPart = 2;
// Answers to one request that are remembered as conversations: its client goes on with one of them.
inline constexpr int kChoicesRemembered = 8;
// How often idle conversations are looked for.
inline constexpr int kExpiryIntervalMs = 1000;
// A system prompt that tenants share: real ones are below 100 KB.
inline constexpr size_t kSharedPromptBytesMax = size_t{1} << 20;
// Tokens of a conversation on which quantized KV is compared: enough past for it to matter, and no
// more than a few seconds' work.
inline constexpr size_t kDivergenceTokensMin = 64;
inline constexpr size_t kDivergenceTokensMax = 512;
// Of them at a time, between which a worker looks for requests.
inline constexpr size_t kDivergenceTokensPerStep = 32;
// What an optimization moves at a time, beside the requests: some milliseconds.
inline constexpr uint64_t kCompactBytes = uint64_t{8} << 20;
// How long a recommendation waits for a worker to be idle, so that quantization can be measured.
inline constexpr int kAdviceWaitMs = 20'000;
// How long a cache may be monitored, and of how many requests the times are kept.
inline constexpr int kMonitorSecondsMax = 3600;
inline constexpr size_t kMonitorRequestsMax = 100'000;
// Monitors of a model at once: as many calls as a frontend lets wait, and as many again of clients
// that have left.
inline constexpr size_t kMonitorsMax = 64;
// From one optimization that a cache begins by itself to the next: it looks at all pages, and any
// request can ask for it.
inline constexpr int kOptimizationPauseMs = 10'000;
// Longest sleep of an idle worker: it shows that it lives this often.
inline constexpr int kHeartbeatMs = 500;

// --- The arena (KV in shared memory) -----------------------------------------------------------

// Pages of one arena in its largest format: eight of the longest contexts.
inline constexpr uint32_t kArenaPagesMax = uint32_t{1} << 22;
// The largest page that the bounds on models' shapes allow; keeps every product within 64 bits.
inline constexpr uint64_t kArenaPageBytesMax = uint64_t{1} << 36;
// Memory is asked of the system in portions of about this size, and given back in them.
inline constexpr size_t kArenaSlabBytes = size_t{32} << 20;
// A reader copies a descriptor that a running writer changes so many times before it calls it
// damaged: two in a row are already rare.
inline constexpr int kArenaReadTries = 8;
// A new service may be started before the workers of a killed one have given their memory back: so
// long its workers wait for the lock of an arena.
inline constexpr int kArenaLockWaitMs = 5000;
// What an idle worker verifies of its predecessor's pages at a time, one page at least: about 1 ms
// of one core, which a request may have to wait.
inline constexpr size_t kScrubBytes = size_t{4} << 20;
// Between two such portions: a tenth of a core, and 400 MB/s.
inline constexpr int kScrubPauseMs = 10;
// Slabs are no larger than this part of the arena, so that pages of several formats find room
// beside each other.
inline constexpr uint32_t kArenaSlabsMin = 16;
// Descriptors for each slot: pages whose numbers were dropped keep theirs, so that a conversation
// that rotates through ten times its size is still found.
inline constexpr uint32_t kArenaDescriptorsPerSlot = 2;
// All of an arena's: those of kArenaPagesMax pages with 4 bits, four of which take the place of one
// with 16. 8 GiB of addresses; memory is asked for as they are needed.
inline constexpr uint32_t kArenaDescriptorsMax = 4 * kArenaDescriptorsPerSlot * kArenaPagesMax;
// Parts of a cache schedule: a rule has two or three, calls may append more.
inline constexpr int kCacheSegmentsMax = 16;
// Newest messages of a conversation whose hashes outlive its worker: enough to see that nine tenths
// of a long one are repeated.
inline constexpr int kMessageHashesKept = 32;
// Ids of conversations: OpenAI's have 50 bytes.
inline constexpr size_t kConversationIdBytesMax = 128;
// Names of cache types in the config.
inline constexpr size_t kCacheTypeNameBytesMax = 64;
// Conversations of one model that are remembered in memory; their records take 840 bytes each.
inline constexpr int kConversationsMax = 16'384;
// Pages that are looked at for one that begins as a sequence goes on: nearly always the first.
inline constexpr int kNeighboursMax = 64;
// Problems that a report on an arena lists, and damaged pages that the log names; the rest is
// counted.
inline constexpr size_t kArenaProblemsShown = 20;

// --- HTTP --------------------------------------------------------------------------------------

// A request's line and headers together: browsers and SDKs send below 4 KiB; cookies are not used.
inline constexpr size_t kHttpHeaderBytesMax = size_t{16} << 10;
// Headers and trailers of a request: SDKs send about 20.
inline constexpr size_t kHttpHeadersMax = 100;
inline constexpr size_t kHttpMethodBytesMax = 16;
// Room for the longest model name, every byte percent-encoded.
inline constexpr size_t kHttpTargetBytesMax = 2048;
// Chunk extensions carry nothing that is understood; all of a body's together.
inline constexpr size_t kHttpChunkExtensionBytesMax = 4096;
// Bytes of following (pipelined) requests kept while an answer is under way.
inline constexpr size_t kHttpPipelineBytesMax = size_t{16} << 10;
// One read of a socket or a channel's share of the loop's turn.
inline constexpr size_t kHttpReadBytes = size_t{64} << 10;
// The kernel's part of what a client has not read yet. Small, so that a slow client is noticed by
// its credit instead of hiding in megabytes of socket buffers.
inline constexpr int kHttpSendBufferBytes = 128 * 1024;
// Bodies being received, of all connections together: connections_max times body_bytes_max would
// be more than most machines have.
inline constexpr size_t kHttpBodiesBytesMax = size_t{512} << 20;
// Requests kept until their answers end (so that they can be submitted again), together.
inline constexpr size_t kRequestsHeldBytesMax = size_t{1} << 30;
// Connections beyond connections_max that are told so, at once; more are closed without a word.
inline constexpr size_t kHttpRefusedConnectionsMax = 64;
// How long a closing connection is still read (and ignored), so that the response arrives before
// the reset that unread bytes would cause.
inline constexpr int kHttpLingerMs = 2000;
// An idle connection must have idled so long before it is closed to make room for a new one.
inline constexpr int kHttpEvictIdleMs = 5000;
// Connections accepted in one turn of the loop.
inline constexpr int kHttpAcceptsPerTurn = 64;
// How often deadlines are looked at, and the status heartbeat's interval.
inline constexpr int kFrontendTickMs = 200;
// Without connections: its heartbeats are due every second.
inline constexpr int kFrontendIdleTickMs = 1'000;

// --- API requests ------------------------------------------------------------------------------

// An agent's longest conversations have some thousand messages.
inline constexpr size_t kMessagesMax = 20'000;
inline constexpr size_t kToolsMax = 1024;
// Names of tools and their calls' ids: OpenAI allows 64 and sends ids of 29.
inline constexpr size_t kToolNameBytesMax = 256;
inline constexpr size_t kToolCallIdBytesMax = 256;
// Stop strings are compared with every token's text.
inline constexpr size_t kStopStringsMax = 4;
inline constexpr size_t kStopStringBytesMax = 1024;
// Each entry is applied at every step.
inline constexpr size_t kLogitBiasMax = 4096;
// Client strings repeated in error messages are cut to so many bytes.
inline constexpr size_t kEchoBytesMax = 100;
// What is kept of an unstreamed answer, text and logprobs of all choices: four bytes for each token
// of the longest context would be more than any client takes.
inline constexpr size_t kAnswerBytesMax = size_t{64} << 20;
// What a worker takes beside weights, KV and what computing takes, until it has been measured: its
// program and libraries, tables of a small tokenizer.
inline constexpr uint64_t kWorkerBytes = uint64_t{12} << 20;
// And for what comes and goes with requests: their texts, what templates make of them, pages on
// their way to the disk. More counts once the kernel counts it.
inline constexpr uint64_t kWorkerRequestBytes = uint64_t{16} << 20;
// What computing takes of a model whose shapes are not known.
inline constexpr uint64_t kWorkBytesUnknown = uint64_t{48} << 20;
// Supervisor and frontend, to begin with.
inline constexpr uint64_t kServiceBytes = uint64_t{16} << 20;
// A process that maps more than this is not asked which of its pages others have, too: the kernel
// looks at every page for that, and what is shared with others would be a small part.
inline constexpr uint64_t kSharesAskedBytesMax = uint64_t{1} << 30;
// Requests of /admin/memory under way, and how long one waits for the supervisor.
inline constexpr size_t kMemoryCallsMax = 32;
inline constexpr int kMemoryCallWaitMs = 10'000;
// What all models together leave of the memory: the larger one of a part, and of so many bytes.
inline constexpr uint64_t kMemoryReservePart = 10;
inline constexpr uint64_t kMemoryReserveBytesMin = uint64_t{512} << 20;
// KV that a worker may begin with at most; it asks for more, in parts of what it has.
inline constexpr uint64_t kKvGrantBytes = uint64_t{64} << 20;
// After a refusal it does not ask for so long; a request that cannot go on without waits so long
// for an answer, and looks so often.
inline constexpr int64_t kKvAskPauseMs = 5'000;
inline constexpr int64_t kKvGrowWaitMs = 10'000;
inline constexpr int kKvGrowPollMs = 100;
// A worker that gives memory back stores what it drops, as far as the disk takes it in this time:
// the model that waits for it has a client.
inline constexpr int64_t kKvStoreWaitMs = 5'000;
// A worker that has given back what it could is not asked again for so long.
inline constexpr int64_t kKvShrinkPauseMs = 10'000;
// What is running has so long to end when its model is unloaded: nothing should be.
inline constexpr int kUnloadDrainMs = 10'000;
// How long a request waits for a model that is being started or loaded. SDKs give up after 600 s.
inline constexpr int kModelWaitS = 300;
// The longest deadline that a request, or the configuration for all of them, may have: a day. Who
// wants more wants none.
inline constexpr int kRequestTimeoutMaxS = 86'400;
// How long a service may announce its end before it begins to drain: load balancers look every few
// seconds, and forget what they knew of a name after some minutes.
inline constexpr int kDrainDelayMaxS = 3'600;
// What a model's queue_max may be: more would wait for hours.
inline constexpr int kQueueMax = 4096;
// A model never has more than so many times its queue_max of requests: the second half is for
// clients with less than their share, whom others' requests must not keep out.
inline constexpr size_t kQueueTimes = 2;
// Requests of a model that are remembered as suspects of a death, and as given up, each: more than
// can be in one step several times over. The oldest are forgotten.
inline constexpr size_t kSuspectsMax = 4 * kSequencesMax;
// A pause between two workers that new requests wait for; longer ones are answered with 503.
inline constexpr int kBackoffWaitS = 5;
// Frames that a worker does not read: beyond, its model takes no new requests.
inline constexpr size_t kChannelOutboxBytesMax = size_t{128} << 20;
// Requests of /admin/cache at a time: people and scripts, seldom more than one.
inline constexpr size_t kCacheCallsMax = 32;
// How long one may take, beside what it asks to be watched: a check of a large cache beside a full
// load, a recommendation's measurement.
inline constexpr int kCacheCallWaitMs = 300'000;
// Credit goes back in portions of at least this size, or each tick: not a frame for every token.
inline constexpr uint32_t kCreditPortionBytes = kCreditBytes / 8;

// --- Snapshots ---------------------------------------------------------------------------------

// Records that one turn is put together of: each tells what differs from the turn before. One read
// of each is some microseconds; a turn that stands for itself takes all of its tokens and messages.
inline constexpr uint32_t kTurnChainMax = 64;
// Messages of a turn: those of a request, and its answer.
inline constexpr size_t kTurnMessagesMax = kMessagesMax + 1;
// Bytes of all of them: a request has come in one frame.
inline constexpr size_t kTurnMessagesBytesMax = kFrameBytesMax + kAnswerBytesMax;
// Whom a client says a conversation is for: OpenAI allows 64 characters.
inline constexpr size_t kConversationUserBytesMax = 256;
// What a report on a file of conversations lists of damage; the rest is counted.
inline constexpr size_t kSnapshotProblemsShown = 20;
// A record: a turn of the longest context (64 MiB of ids) and all its messages. A damaged length
// beyond is not believed.
inline constexpr size_t kSnapshotValueBytesMax = size_t{256} << 20;
// Beyond a full file, in halves: for what fits but for the way that free pages lie, and for what
// deletes: LMDB writes changed pages anew before the old ones come free, and lists those.
inline constexpr uint64_t kSnapshotReserveBytes = uint64_t{8} << 20;
// What compaction commits at a time: so much memory it takes.
inline constexpr uint64_t kSnapshotCopyBytes = uint64_t{16} << 20;
// Files put aside as damaged: for a person who looks; more would fill the disk.
inline constexpr size_t kSnapshotDamagedKept = 3;
// Pages of KV in a file: some TB of them; each takes about 300 bytes of memory.
inline constexpr size_t kSnapshotPagesMax = size_t{1} << 20;
// One of them: the largest published models take 150 MB for 32 tokens.
inline constexpr uint32_t kSnapshotPageBytesMax = uint32_t{256} << 20;
// When a page was of use is told to the file this seldom: each time costs a commit.
inline constexpr uint32_t kSnapshotUsedGranularityS = 600;
// The smallest file of conversations or pages: room for some of them.
inline constexpr int64_t kSnapshotBytesMin = int64_t{16} << 20;
// The largest: address space of a model's files, which a 64-bit process has 128 TiB of.
inline constexpr int64_t kSnapshotBytesMax = int64_t{8} << 40;
// Turns that could not be stored and wait in memory for the disk.
inline constexpr size_t kUnsavedTurnsBytesMax = size_t{64} << 20;
// How long to wait before the next attempt after the disk has refused something.
inline constexpr int kPersistenceRetryMs = 5'000;
// How often a thread of the disk looks for what is due while nothing is asked of it.
inline constexpr int kPersistencePeriodMs = 1'000;
// Pages that are written in one transaction: a commit of them takes some ten milliseconds, and what
// reads waits no longer.
inline constexpr size_t kKeepPagesBytes = size_t{8} << 20;
// Pages of a request that are read from the disk and wait for their places in memory.
inline constexpr size_t kFetchBytes = size_t{16} << 20;
// Pages that are copied for the disk and wait for it: part of kWorkerRequestBytes.
inline constexpr size_t kKeepingBytesMax = size_t{16} << 20;
// What a worker that stops has left for storing pages when its time to drain is over: part of
// kDrainGraceMs.
inline constexpr int kKeepAllMs = 4'000;
// Requests of /v1/conversations under way; each is one small job of a worker's.
inline constexpr size_t kConversationCallsMax = 64;
// And how long a frontend waits for one: a disk may be slow.
inline constexpr int kConversationCallWaitMs = 60'000;
// From the last deletion to the scrubbing of the files, which copies them: several are done
// together.
inline constexpr int kScrubFilesDelayMs = 5'000;
// And no longer after the first of them, however many follow.
inline constexpr int kScrubFilesDelayMaxMs = 60'000;
// Until a scrubbing that has failed, for lack of room say, is tried again.
inline constexpr int kScrubRetryMs = 60'000;
// Conversations that a list shows at a time, and where nobody says how many.
inline constexpr int kConversationsListedMax = 100;
inline constexpr int kConversationsListed = 20;
// Tenants that an error names which all have what was asked for: some of them are hint enough.
inline constexpr size_t kTenantsNamed = 16;
// Conversations that are deleted in one transaction: some ten milliseconds, for which turns wait.
inline constexpr size_t kDeletionsAtOnce = 256;
// Tokens of turns that are read to find the pages of what is deleted, before others have their
// turn: 4 MiB of them, or one turn.
inline constexpr size_t kChainTokensRead = size_t{1} << 20;
// Of those a step looks for so many in the cache: a millisecond or two, or one turn's.
inline constexpr size_t kChainTokensForgotten = size_t{1} << 16;
// Ids that the answer to a deletion lists; it counts the others.
inline constexpr size_t kDeletedIdsTold = 10'000;
// How often conversations past their retention are looked for.
inline constexpr int kRetentionIntervalMs = 600'000;
// Damaged records and orphaned chunks that one transaction drops: bounds what is kept in memory.
inline constexpr size_t kSnapshotDropsAtOnce = 1024;
// A worker waits so long for the lock of its files: who has it is a worker that is about to end, or
// a backup, which gives way after the portion at hand.
inline constexpr int kSnapshotLockWaitMs = 15'000;
// What a backup takes of a file at a time, whichever is reached first; a turn that is to be stored
// waits for no more than that, or one record.
inline constexpr size_t kCopyPortionBytes = size_t{1} << 20;
inline constexpr int kCopyPortionMs = 5;
// Portions of what was written again while a file was copied: beyond, whoever takes them is too
// slow ever to have all.
inline constexpr int kCopyPortionsAgainMax = 4096;
// One portion as it is sent: the largest record, and what came before it.
inline constexpr size_t kCopyPartBytesMax = kSnapshotValueBytesMax + 2 * kCopyPortionBytes;

// --- Backups -----------------------------------------------------------------------------------

// Neither side of a backup waits longer for the other: a disk that does nothing for so long fails.
inline constexpr int kBackupSilenceMs = 120'000;
// How long a model is waited for whose worker starts, ends or is replaced meanwhile.
inline constexpr int kBackupModelWaitMs = 20'000;
// How often one model is begun again, when its worker has died in the middle.
inline constexpr int kBackupTriesMax = 5;
// Files of a backup: two a model, and what people have saved under names.
inline constexpr size_t kBackupFilesMax = 100'000;
// backup.json: some 200 bytes a file.
inline constexpr size_t kBackupManifestBytesMax = size_t{64} << 20;

// --- Conversations as files --------------------------------------------------------------------

// The first line: a word, a version and a newline.
inline constexpr size_t kConversationFileLineBytesMax = 32;
// A record beside what follows it: names, sizes and the tokens of a page.
inline constexpr size_t kConversationFileRecordBytesMax = 4096;
// The document: token ids of the longest context take 130 MB as JSON.
inline constexpr size_t kConversationDocumentBytesMax = size_t{256} << 20;
// What is copied of pages at a time for a file, between two steps: some milliseconds.
inline constexpr size_t kTransferCopyBytes = size_t{16} << 20;
// What a thread of the disk does of a file before others have their turn: some ten milliseconds.
inline constexpr size_t kTransferStepBytes = size_t{32} << 20;
// Files of conversations that a worker writes or reads at a time: each takes the memory above.
inline constexpr size_t kTransfersMax = 4;
// And those that a frontend sends or receives: each takes room on the disk as long as its client
// takes.
inline constexpr size_t kFileTransfersMax = 8;
// How long a frontend waits for a worker that writes or reads one: gigabytes on a slow disk.
inline constexpr int kFileCallWaitMs = 600'000;
// What is sent of a file at a time.
inline constexpr size_t kFilePieceBytes = size_t{256} << 10;
// What the configuration may say of an upload's bytes: no less than a conversation without KV, no
// more than a file of pages may have.
inline constexpr int64_t kUploadBytesMin = int64_t{1} << 20;
inline constexpr int64_t kUploadBytesMax = int64_t{8} << 40;
// Names of saved conversations: percent-encoded they are names of files, which may have 255 bytes.
inline constexpr size_t kSavedNameBytesMax = 80;
// Of one tenant and model: a list of them is one answer, and a folder is read for it.
inline constexpr size_t kSavedMax = 1000;

// --- The supervisor ----------------------------------------------------------------------------

// A child's log line is passed on in one write that a pipe takes whole (PIPE_BUF).
inline constexpr size_t kLogLineBytesMax = 4095;
// What an obituary quotes of the child's log.
inline constexpr size_t kObituaryLines = 12;
inline constexpr size_t kObituaryLineBytesMax = 400;
// Obituaries kept per model for `perdure ps`.
inline constexpr size_t kObituariesKept = 5;
// The control socket: people and scripts of one user, seldom more than one at a time.
inline constexpr size_t kControlConnectionsMax = 32;
inline constexpr size_t kControlLineBytesMax = 4096;
inline constexpr int kControlTimeoutMs = 10'000;
// Connections that the kernel queues while a frontend restarts.
inline constexpr int kListenBacklog = 1024;
// How often the supervisor looks at the children's counters.
inline constexpr int kHealthSampleMs = 1'000;
// Between the end of a child's control channel and its death: then it is killed.
inline constexpr int kChannelEndGraceMs = 2'000;
// From Drain to SIGKILL for a process that has nothing left to answer.
inline constexpr int kStopGraceMs = 5'000;
// What a draining process gets beyond drain_timeout_s: kKeepAllMs, kDrainFlushMs and room for a
// busy machine.
inline constexpr int kDrainGraceMs = 9'000;
// A frontend that served so long has not died of its start.
inline constexpr int kFrontendProvenMs = 10'000;

// --- Prepared files ----------------------------------------------------------------------------

// A section takes about 100 bytes of the table; the largest models have some 100,000 tensors.
inline constexpr size_t kPreparedTableBytesMax = size_t{64} << 20;
// Smaller checkpoints are packed at each start: that takes some 50 ms a worker at most, and a file
// would save little.
inline constexpr uint64_t kPreparedWeightsBytesMin = uint64_t{64} << 20;
// Smaller tokenizer files are parsed at each start, in some 10 ms at most.
inline constexpr uint64_t kPreparedTokenizerBytesMin = uint64_t{1} << 20;
// How long the file of another process that prepares the same may stand still before this process
// goes on without one.
inline constexpr int kPreparedWaitMs = 10'000;

// --- Grammars ----------------------------------------------------------------------------------

// Keywords that stand inside each other without a value between them (anyOf in anyOf); the
// compiler's stack stays below 1 MiB. Real schemas have three.
inline constexpr int kGrammarUnionDepthMax = 64;
// A constant's nested lists and objects: as deep as a request nests.
inline constexpr int kGrammarConstDepthMax = 64;
// Combinations of subschemas that one schema may come to; real ones have below 1,000.
inline constexpr size_t kGrammarRulesMax = 8192;
// Parts of one grammar: some ten for each property; about 32 bytes each.
inline constexpr size_t kGrammarNodesMax = size_t{1} << 17;
// Subschemas looked at, references followed: bounds allOf of references to allOf.
inline constexpr int64_t kGrammarSchemaStepsMax = 400'000;
// Properties of one object: real ones have below 200.
inline constexpr size_t kGrammarPropertiesMax = 2000;
// Values of one enum; a prefix tree has a state for each of their bytes.
inline constexpr size_t kGrammarEnumMax = 20'000;
// Nested groups of a pattern: the recursive parser's stack stays below 1 MiB.
inline constexpr int kPatternDepthMax = 100;
// x{n,m} in a pattern is written out m times. Repeated items and lengths of texts are counted
// instead and have no such bound.
inline constexpr uint32_t kPatternRepeatMax = 1000;
inline constexpr size_t kPatternBytesMax = 16 * 1024;
// What a pattern is written out to before it becomes an automaton.
inline constexpr size_t kAutomatonTreeNodesMax = 100'000;
inline constexpr size_t kAutomatonNfaStatesMax = 100'000;
// States of one automaton (512 bytes each while it is made) and of one grammar's together.
inline constexpr size_t kAutomatonStatesMax = 10'000;
inline constexpr size_t kGrammarAutomatonStatesMax = size_t{1} << 16;
// Steps of making the automata of one grammar, of 20 to 40 ns: some 80 ms.
inline constexpr int64_t kAutomatonWorkMax = 2'600'000;
// minItems, minLength, minProperties: nobody waits for a longer answer.
inline constexpr uint64_t kGrammarCountMinMax = 1'000'000;
// Digits of a number before and behind its point, and of an exponent: a model cannot write digits
// for ever, and the values stay within what a double tells apart or holds.
inline constexpr int kGrammarIntegerDigits = 18;
inline constexpr int kGrammarDecimalDigits = 15;
inline constexpr int kGrammarFractionDigits = 17;
inline constexpr int kGrammarExponentDigits = 2;
// White space between parts of a JSON text: a blank, or a newline and this much indentation.
inline constexpr int kGrammarIndentMax = 32;
// Divisors of multipleOf: an automaton has a state for each remainder, for each digit where they do
// not end with zeros.
inline constexpr int64_t kGrammarDivisorMax = 2000;
// Readings of a text that are possible at once. A schema has one for each property that may come
// next; a grammar that needs more refuses what would lead there.
inline constexpr size_t kGrammarReadingsMax = 4096;
// Of them, what one part of a grammar may begin with: all properties of the largest object.
inline constexpr uint32_t kGrammarBeginningsMax = 2048;
// What may have to be looked through to find what follows one byte; it bounds the same.
inline constexpr size_t kGrammarExpandMax = 65'536;
// States and masks that a worker keeps for all its grammars: then it starts anew, which costs a few
// milliseconds. A mask of the largest vocabularies is 32 KB.
inline constexpr size_t kGrammarCacheBytesMax = size_t{48} << 20;
// Bytes that must come next and are told at once.
inline constexpr size_t kGrammarForcedBytesMax = 4096;
// Longer tokens are never allowed: real ones are below 1 KB, and masks reach as far as tokens.
inline constexpr size_t kGrammarTokenBytesMax = 1024;
// Strings that end a free text, and the bytes of one.
inline constexpr size_t kGrammarTriggersMax = 256;
inline constexpr size_t kGrammarTriggerBytesMax = 1024;

}  // namespace perdure::limits
