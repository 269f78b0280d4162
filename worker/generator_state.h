// What the generator keeps of each request and of each of its answers. For generator*.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/kv_view.h"
#include "engine/sampler.h"
#include "protocol/messages.h"
#include "text/chat/answer_fold.h"
#include "worker/admission.h"
#include "worker/generator.h"
#include "worker/said_answer.h"

namespace perdure::worker {

// What it costs a stream to go on with this worker, for the log.
struct Comeback {
  size_t known = 0;  // tokens of prompt and answer
  int cached = 0;    // of them: their KV was found
  int64_t readmit_us = 0, verify_us = 0, begin_us = 0;
};

// As stored pages have it.
inline uint32_t Seconds(int64_t unix_ms) { return static_cast<uint32_t>(unix_ms / 1000); }

// One answer to a request.
struct Generator::Choice {
  Choice(int index_, text::AnswerFold fold_) : index(index_), fold(std::move(fold_)) {}

  int index;
  text::AnswerFold fold;
  engine::SamplingParams sampling;
  std::vector<TokenId> ids;
  std::vector<float> logprobs;
  uint64_t next_seq = 1;
  uint64_t sent_seq = 0;  // events up to this one were sent by a worker that died
  bool suspect = false;   // a worker died in its step, and it has not been beyond that since
  std::deque<protocol::Event> unsent;  // wait for credit, in order
  std::optional<protocol::End> unsent_end;
  SequenceId sequence = 0;  // 0: not in the scheduler (any more)
  bool follows = false;     // waits until another choice has computed the prompt for all
  bool ended = false;       // End is sent
  // Of its pages in residence: these are in the cache, full and found by others.
  size_t sealed_pages = 0;
  SaidAnswer said;
  // Tokens of the prompt, where this or an earlier worker began.
  std::optional<int32_t> from_arena;
  int32_t from_snapshot = 0;
  std::optional<protocol::End> keeping;  // until its turn is stored
  int64_t first_step_us = 0;
  int64_t first_token_us = 0;
  std::optional<Comeback> comeback;  // until its next token
};

// Pages of a request's beginning that are being read from the disk.
struct Generator::PageLoad {
  std::map<uint64_t, PageIndex> missing;     // by chain hash
  std::deque<snapshot::StoredPage> waiting;  // of them: not asked for yet
  size_t asked_bytes = 0;                    // for and not there yet
  std::vector<PageIndex> held;               // read, with a reference
  PageIndex claimed = shm::kNoPage;          // the last of all
  bool suspect = false;
  int64_t begin_us = 0;
  size_t bytes = 0;
};

// A request whose conversation is being read from the disk.
struct Generator::Fetching {
  protocol::Submit submit;
  Prompt prompt;
  int64_t received_us = 0;
  snapshot::StoredConversation stored;
  bool is_deleted = false;  // meanwhile
};

// Conversations that are being deleted, or one that is rewound.
struct Generator::Deletion {
  struct Chain {
    uint64_t owner = 0;
    bool is_kept = false;  // of turns that stay
    snapshot::TurnChain chain;
  };
  protocol::RequestId rid = 0;  // of who is to be answered; 0: nobody
  std::deque<snapshot::StoredConversation> waiting;
  std::vector<snapshot::StoredConversation> batch;  // that is being done
  size_t read = 0;                                  // of the batch: its turns are read
  uint32_t next_turn = 1;                           // of the one that is read next
  std::deque<Chain> chains;                         // whose pages are to be forgotten
  std::vector<Chain> known;     // the same: what was in memory, which may not have been stored
  std::vector<uint64_t> pages;  // forgotten, to be erased
  // What has become of them.
  size_t removed = 0, kept = 0;
  std::vector<std::string> ids;  // of the first ones removed
  std::string why;               // some were not
  // A rewind:
  Persistence::Job then;                // instead of deleting
  uint32_t turns_kept = 0;              // turns up to this one stay
  bool reads_kept = false;              // and are read at the moment
  std::unordered_set<uint64_t> needed;  // pages of these
};

struct Generator::ChainHashes {
  std::vector<uint64_t> full;
  size_t shared = 0;           // the first ones, which are everybody's
  std::vector<uint64_t> ends;  // of pages that are not full
};

struct Generator::Request {
  protocol::RequestId rid = 0;
  std::vector<TokenId> prompt_ids;
  std::vector<bool> prompt_drawn;  // of prompt_ids: by the model, in an earlier turn
  uint64_t owner = 0;              // of its pages, but for the first ones that all share
  size_t shared_pages = 0;
  uint64_t client = 0;  // of GenerationRequest
  protocol::ConversationTicket ticket;
  std::vector<engine::KvRetention> retentions;  // of its schedule
  std::optional<int> optimization_interval;     // as the request or the configuration has it
  bool asks_to_optimize = false;                // the request has it
  bool named = false;                           // its conversation, by the client
  bool goes_on = false;                         // that is not forgotten meanwhile
  std::optional<int> top_logprobs;              // absent: no logprobs are wanted
  std::vector<Choice> choices;  // never grows beyond its reserve: places_ point into it
  size_t choices_wanted = 0;
  std::unique_ptr<PageLoad> load;    // its pages are being read
  std::optional<int> usable_before;  // tokens that were cached before that
  int usable_after = 0;              // and are with them
  protocol::RequestKind kind = protocol::RequestKind::kChat;
  std::vector<std::string> messages;  // as JSON, to be stored
  std::string user;
  bool stores = false;
  bool is_forgotten = false;  // its conversation was deleted: it leaves nothing
  int64_t credit_bytes = 0;
  int64_t received_us = 0;
  int64_t starved_since_us = 0;  // 0: nothing waits for credit
  bool live = true;
};

}  // namespace perdure::worker
