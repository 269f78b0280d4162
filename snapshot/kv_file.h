// The environment of pages of KV, in chunks. For one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/result.h"
#include "snapshot/environment.h"
#include "snapshot/kv_index.h"
#include "snapshot/page_codec.h"

namespace perdure::snapshot {

struct PageToWrite {
  StoredPage page;
  std::span<const std::byte> data;  // page.data_bytes of them, with page.data_checksum (Hash64)
};

class KvFile {
 public:
  struct Options {
    std::filesystem::path file;
    std::string model;
    uint64_t bytes_max = 0;
    bool sync = true;
    KvCompression compression = KvCompression::kNone;  // of what is written; all is read
    int lock_wait_ms = 0;
    bool read_only = false;  // see EnvironmentOptions; nobody else has it
  };
  // Reads what is stored of each page but its numbers. Damaged records, and chunks of no record,
  // are dropped. A file that cannot be read as a whole is put aside, and a new one begun: pages can
  // be computed again. With read_only nothing is dropped, only named.
  static Result<std::unique_ptr<KvFile>> Open(const Options& options);
  std::vector<StoredPage> TakePages() { return std::move(found_); }
  const std::vector<std::string>& problems() const { return problems_; }

  // All of them or none; those that are stored already are written again. `stored` gets them as
  // they are then.
  Status Write(std::span<const PageToWrite> pages, std::vector<StoredPage>* stored = nullptr);
  // The numbers of a page, data_bytes of them, which have its data_checksum: their chunks have
  // theirs. io_error where they are not as they were written, and then the page is dropped, and
  // `data` may have been changed.
  Status Read(const StoredPage& page, std::span<std::byte> data);
  Status Delete(std::span<const uint64_t> chain_hashes);
  // The same of what is to leave no trace (Environment::needs_scrub), which older states of the
  // file may have, whether these pages are still there or not.
  Status Erase(std::span<const uint64_t> chain_hashes);
  // Pages that were of use, and when; those that are not stored are none.
  Status Touch(std::span<const std::pair<uint64_t, uint32_t>> used_unix_s);

  // As Environment::Compact.
  Status Compact() { return environment_->Compact(); }
  Environment& environment() { return *environment_; }

 private:
  struct Doomed;
  KvFile() = default;
  Status Load();
  Status LoadPages();
  Status CheckChunks();
  Status PutChunks(Transaction& transaction, uint64_t chain_hash, std::span<const std::byte> bytes);
  Result<bool> IsAsWritten(Transaction& transaction, const StoredPage& page);
  // *problem: of the page, not of the file.
  Status GetChunks(Transaction& transaction, uint64_t chain_hash, std::span<std::byte> bytes,
                   std::string* problem);
  Status Drop(const Doomed& doomed);
  Status DropPage(Transaction& transaction, uint64_t chain_hash, uint16_t chunks_from);
  void Problem(std::string text);

  std::unique_ptr<Environment> environment_;
  Database pages_ = 0, chunks_ = 0;
  std::vector<StoredPage> found_;
  std::vector<uint16_t> chunks_found_;  // how many each of them has to have
  std::vector<std::string> problems_;
  size_t problems_found_ = 0;
  bool is_read_only_ = false;
  KvCompression compression_ = KvCompression::kNone;
  PageCodec codec_;
  Hasher64 hasher_;
  std::string buffer_;  // a chunk's
  std::string compressed_;
};

}  // namespace perdure::snapshot
