// What the generator has on disk, and how it asks for it: jobs go out, answers come back between
// two steps, and nothing waits for a disk.
//
// Which pages and conversations are stored is known here at any time without asking; the indexes
// are the generator's thread's alone. worker/disk_persistence.h is the real one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/messages.h"
#include "snapshot/kv_file.h"
#include "snapshot/kv_index.h"
#include "snapshot/turn_file.h"

namespace perdure::worker {

// A turn's commit has ended.
struct TurnKept {
  uint64_t rid = 0;
  uint32_t choice = 0;
  std::optional<snapshot::StoredConversation> conversation;  // none: it is not stored
};
struct TurnFetched {
  uint64_t ticket = 0;
  std::optional<snapshot::StoredTurn> turn;  // none: it could not be read
  bool is_gone = false;                      // there is none
};
struct PageFetched {
  uint64_t ticket = 0;
  uint64_t chain_hash = 0;
  uint32_t place = 0;          // as it was asked for
  uint64_t data_checksum = 0;  // which its bytes have
  bool is_read = false;        // false: it could not be, and is stored no more
};
struct PagesKept {
  std::vector<snapshot::StoredPage> pages;  // empty: they are not stored
  std::vector<uint64_t> superseded;         // stored no more
  std::vector<uint64_t> chain_hashes;       // of all pages of the job
  std::vector<uint64_t> refused;            // but those that never will be
  size_t bytes = 0;                         // that the job held
};
// What Manage has done; beside the answer what the generator is to know.
struct Managed {
  protocol::ConversationAnswer answer;
  std::optional<snapshot::StoredConversation> stored;  // as it is now
  std::optional<snapshot::StoredTurn> loaded;          // for a file
};
// A job of WithPages is done.
struct FileStepDone {
  uint64_t ticket = 0;
};
// Of the first of the conversations that were asked for; of the last of them perhaps a part.
struct ChainsFetched {
  struct OfOne {
    std::vector<snapshot::TurnChain> chains;  // none: it has none that can be read
    uint32_t next = 0;                        // the turn with which it goes on; 0: that is all
  };
  uint64_t ticket = 0;
  std::vector<OfOne> conversations;
};
struct PagesErased {
  uint64_t ticket = 0;
};
struct ConversationsDeleted {
  uint64_t ticket = 0;
  std::vector<std::pair<uint64_t, std::string>> removed;  // owners and ids
  std::vector<std::pair<uint64_t, std::string>> kept;     // that could not be removed
  std::string why;                                        // the first of them could not
};
// The file of pages had become unusable, and is open again: this is what it has now.
struct PagesReopened {
  std::vector<snapshot::StoredPage> pages;
};
using PersistenceAnswer =
    std::variant<TurnKept, TurnFetched, PageFetched, PagesKept, Managed, ChainsFetched, PagesErased,
                 ConversationsDeleted, PagesReopened, FileStepDone>;

// Turns of a conversation, from `from` up to and with `to`; 0: the last one.
struct TurnsOf {
  uint64_t owner = 0;
  std::string id;
  uint32_t from = 1, to = 0;
};

struct PageToKeep {
  snapshot::StoredPage page;
  std::vector<std::byte> data;
};

// A page that is read, and where its numbers go: to memory that nobody else looks at, and that
// stays where it is, until the answer has been taken or the worker ends.
struct PageToFetch {
  snapshot::StoredPage page;
  std::span<std::byte> to;  // page.data_bytes of them
  uint32_t place = 0;       // what the asker calls it
};

class Persistence {
 public:
  virtual ~Persistence() = default;

  virtual void KeepTurn(snapshot::TurnOwner owner, snapshot::StoredTurn turn) = 0;
  using Job = std::function<Managed(snapshot::TurnFile&)>;
  virtual void Manage(uint64_t rid, Job job) = 0;
  virtual void FetchTurn(uint64_t ticket, uint64_t owner, const std::string& id) = 0;
  // One answer each, in this order.
  virtual void FetchPages(uint64_t ticket, std::vector<PageToFetch> pages) = 0;
  // `superseded` are dropped with it: shorter pages with the same beginning.
  virtual void KeepPages(std::vector<PageToKeep> pages, std::vector<uint64_t> superseded) = 0;
  virtual void TouchPages(std::vector<std::pair<uint64_t, uint32_t>> used_unix_s) = 0;
  virtual void DropPages(std::vector<uint64_t> chain_hashes) = 0;
  // On the pages' thread, with their file, null where that cannot be used. Again, after what else
  // waits, until it returns true.
  using PageJob = std::function<bool(snapshot::KvFile*)>;
  virtual void WithPages(uint64_t ticket, PageJob job) = 0;

  // What a deletion takes, one after another; nothing else waits for all of it. Each is answered,
  // and what the disk refuses of pages is done later. Soon no trace of what was erased and deleted
  // is left in the files; if the process ends before, its successor sees to it.
  virtual void FetchChains(uint64_t ticket, std::vector<TurnsOf> turns) = 0;
  virtual void ErasePages(uint64_t ticket, std::vector<uint64_t> chain_hashes) = 0;
  // With what waits for the disk of them. One that cannot be deleted keeps no other from it.
  virtual void Delete(uint64_t ticket,
                      std::vector<std::pair<uint64_t, std::string>> conversations) = 0;

  // Sends all of it (snapshot/backup_stream.h); `kv`: pages, too. Has no answer.
  virtual void BackUp(UniqueFd /*to*/, bool /*kv*/) {}

  virtual std::vector<PersistenceAnswer> TakeAnswers() = 0;
  // Readable while there are answers; -1: there never are any.
  virtual int fd() const = 0;
  // Waits until all jobs are done or the time is over; their answers can be taken then.
  virtual void Wait(int64_t timeout_ms) = 0;
};

// Conversations that are stored, by name and by what was said in them.
class StoredConversations {
 public:
  void Put(const snapshot::StoredConversation& conversation);
  void Remove(uint64_t owner, const std::string& id);
  const snapshot::StoredConversation* Find(uint64_t owner, const std::string& id) const;
  // The one that ends with the most of these messages; the one used last where several do.
  const snapshot::StoredConversation* FindBehind(uint64_t owner,
                                                 const std::vector<uint64_t>& hashes) const;
  size_t size() const { return conversations_.size(); }
  // An owner's, or all; newest first; of one user, if any is named.
  std::vector<const snapshot::StoredConversation*> Of(std::optional<uint64_t> owner,
                                                      const std::string& user) const;
  // Those that were not used since a time that depends on whose they are.
  std::vector<snapshot::StoredConversation> Before(
      const std::function<int64_t(uint64_t owner)>& unix_ms) const;

 private:
  static std::string KeyOf(uint64_t owner, const std::string& id);
  void Unlink(const snapshot::StoredConversation& conversation);

  std::unordered_map<std::string, snapshot::StoredConversation> conversations_;
  std::unordered_multimap<uint64_t, const snapshot::StoredConversation*> by_messages_;
};

}  // namespace perdure::worker
