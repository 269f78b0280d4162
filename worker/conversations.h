// The conversations of a model: who is to be recognised, where its KV ends, how it is kept.
//
// A conversation is the tokens of its last turn, prompt and answer, and the claim on the page in
// which their KV ends. A request is recognised by its tokens: where it repeats an answer in other
// tokens than the model has drawn, the drawn ones are put in their place, so that its KV is found.
// Which pages are found is a matter of tokens alone; whose record a request goes on with is one of
// its id, or of how much of the record it repeats.
//
// Records outlive this process in shared memory, their tokens in the pages. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/cache_settings.h"
#include "base/token.h"
#include "shm/conversation_records.h"
#include "shm/page_store.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::worker {

struct Conversation {
  std::string id;
  uint64_t owner = 0;
  bool named = false;              // by the client
  bool stored = true;              // may be, on disk
  std::string user;                // whom the client said it is for; unknown to a successor
  std::vector<TokenId> ids;        // known ones, of prompt and answer
  std::vector<bool> drawn;         // of ids: by the model
  std::vector<uint64_t> messages;  // of the last messages, with the answer: hash of all up to it
  size_t message_count = 0;
  CacheSchedule schedule;
  shm::PageIndex tail = shm::kNoPage;  // the last page of ids; claimed
  std::vector<shm::PageIndex> pinned;  // with a reference to each
  uint32_t turns = 0;
  int64_t used_ms = 0;  // Unix time
  int running = 0;      // requests that go on with it
};

// What is asked for beside tokens.
struct RecognitionRequest {
  uint64_t owner = 0;
  std::string id;                  // the client's; may be empty
  bool exact = false;              // the tokens are the client's own: none is put in
  std::vector<uint64_t> messages;  // hashes of all up to each message; none for plain text
};

struct Recognition {
  std::string id;                         // of the conversation that goes on; empty: none does
  double similarity = 0;                  // part of it that is repeated
  size_t position = 0;                    // tokens that it and the prompt have in common
  size_t spliced = 0;                     // tokens that were put in the place of others
  std::vector<bool> drawn;                // of the prompt
  std::optional<CacheSchedule> schedule;  // of the conversation that goes on
};

// A choice that has ended.
struct Turn {
  uint64_t owner = 0;
  std::string id;      // of Recognition or the client; empty: a new one is made of new_id
  std::string new_id;  // unique
  bool named = false;
  bool stored = true;
  std::string user;
  std::vector<TokenId> ids;
  std::vector<bool> drawn;
  std::vector<uint64_t> messages;
  CacheSchedule schedule;
  shm::PageIndex tail = shm::kNoPage;  // of the cached ones of ids
};

class ConversationTable {
 public:
  // Takes over the records in the store's memory. All that is pointed to outlives the table.
  // `unix_ms` tells the time.
  ConversationTable(const ConversationSettings& settings, shm::PageStore* store,
                    const text::Tokenizer* tokenizer, std::function<int64_t()> unix_ms);
  ~ConversationTable();

  // Puts known tokens in the place of those of `ids` that spell the same.
  Recognition Recognize(const RecognitionRequest& request, std::vector<TokenId>* ids) const;

  // Which of these tokens are known to be drawn.
  std::vector<bool> DrawnOf(uint64_t owner, std::span<const TokenId> ids) const;
  const Conversation* Get(uint64_t owner, const std::string& id) const;

  // A request goes on with it until End: it is not forgotten meanwhile. False: there is none (yet),
  // and nothing to end.
  bool Begin(uint64_t owner, const std::string& id);
  void End(uint64_t owner, const std::string& id);

  // Takes over what was remembered elsewhere, without its pages, where there is none with that
  // owner and id.
  void Adopt(Conversation conversation);

  // Remembers the turn, and returns the conversation's id; empty where it is not to be remembered.
  std::string Commit(Turn turn);

  // Forgets one, whoever goes on with it, and its pages.
  void Remove(uint64_t owner, const std::string& id);
  // Forgets those that have been idle for too long, and their pages.
  void Expire();
  // The oldest that nobody goes on with; false where there is none.
  bool ForgetOldest();
  // All that nobody goes on with; how many.
  size_t Clear();
  // Unpins those that hold one of these pages.
  void Unpin(const std::function<bool(shm::PageIndex)>& is_it);

  // Of those that are pinned the one that was not used for the longest time; false: there is none.
  bool UnpinOldest();

  // So much more may be pinned.
  uint64_t pinned_bytes_left() const;
  uint64_t pinned_bytes() const { return pinned_bytes_; }
  const std::vector<std::unique_ptr<Conversation>>& all() const { return conversations_; }
  const ConversationSettings& settings() const { return settings_; }
  struct Totals {
    uint64_t begun = 0, continued = 0, expired = 0, displaced = 0;  // since the worker began
    uint64_t spliced_tokens = 0;
    size_t recovered = 0;
  };
  const Totals& totals() const { return totals_; }

 private:
  Conversation* Find(uint64_t owner, const std::string& id) const;
  bool Recover(const shm::ConversationRecord& record);
  void TakePages(Conversation* conversation, shm::PageIndex tail);
  void Pin(Conversation* conversation);
  void Discount(shm::PageIndex page);
  void ReleasePinned(const std::vector<shm::PageIndex>& pinned);
  void ReleasePages(Conversation* conversation);
  void Forget(Conversation* conversation, bool with_pages);
  void Store(const Conversation& conversation);
  bool IsRecognized(const Conversation& conversation, double similarity) const;
  double Similarity(const Conversation& conversation, const RecognitionRequest& request,
                    size_t agreed) const;

  const ConversationSettings settings_;
  shm::PageStore* const store_;
  const text::Tokenizer* const tokenizer_;
  const std::function<int64_t()> unix_ms_;
  shm::ConversationRecords records_;
  std::vector<std::unique_ptr<Conversation>> conversations_;
  std::unordered_map<shm::PageIndex, int> pins_;  // conversations that pin the page
  uint64_t pinned_bytes_ = 0;                     // of those pages
  mutable Totals totals_;
};

}  // namespace perdure::worker
