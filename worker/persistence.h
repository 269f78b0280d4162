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
  std::vector<std::byte> data;  // empty: it could not be read, and is stored no more
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
  std::optional<snapshot::StoredConversation> stored;                // as it is now
  std::vector<snapshot::StoredConversation> kept;                    // that could not be removed
  std::vector<std::pair<uint64_t, std::string>> removed;             // owners and ids
  std::vector<std::pair<uint64_t, snapshot::StoredTurn>> forgotten;  // of owners: their pages go
  std::optional<snapshot::StoredTurn> loaded;                        // for a file
};
// A job of WithPages is done.
struct FileStepDone {
  uint64_t ticket = 0;
};
using PersistenceAnswer =
    std::variant<TurnKept, TurnFetched, PageFetched, PagesKept, Managed, FileStepDone>;

struct PageToKeep {
  snapshot::StoredPage page;
  std::vector<std::byte> data;
};

class Persistence {
 public:
  virtual ~Persistence() = default;

  virtual void KeepTurn(snapshot::TurnOwner owner, snapshot::StoredTurn turn) = 0;
  using Job = std::function<Managed(snapshot::TurnFile&)>;
  virtual void Manage(uint64_t rid, Job job) = 0;
  virtual void FetchTurn(uint64_t ticket, uint64_t owner, const std::string& id) = 0;
  // One answer each, in this order.
  virtual void FetchPages(uint64_t ticket, std::vector<snapshot::StoredPage> pages) = 0;
  // `superseded` are dropped with it: shorter pages with the same beginning.
  virtual void KeepPages(std::vector<PageToKeep> pages, std::vector<uint64_t> superseded) = 0;
  virtual void TouchPages(std::vector<std::pair<uint64_t, uint32_t>> used_unix_s) = 0;
  virtual void DropPages(std::vector<uint64_t> chain_hashes) = 0;
  // On the pages' thread, with their file, null where that cannot be used. Again, after what else
  // waits, until it returns true.
  using PageJob = std::function<bool(snapshot::KvFile*)>;
  virtual void WithPages(uint64_t ticket, PageJob job) = 0;
  // Soon no trace of what was deleted is left in the files.
  virtual void Scrub() = 0;

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
  // Those that were not used since.
  std::vector<std::pair<uint64_t, std::string>> Before(int64_t unix_ms) const;

 private:
  static std::string KeyOf(uint64_t owner, const std::string& id);
  void Unlink(const snapshot::StoredConversation& conversation);

  std::unordered_map<std::string, snapshot::StoredConversation> conversations_;
  std::unordered_multimap<uint64_t, const snapshot::StoredConversation*> by_messages_;
};

}  // namespace perdure::worker
