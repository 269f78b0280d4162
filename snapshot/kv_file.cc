#include "snapshot/kv_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/hash.h"
#include "base/limits.h"
#include "base/stream_copy.h"
#include "shm/hashes.h"
#include "shm/layout.h"
#include "snapshot/format.h"
#include "snapshot/page_check.h"

namespace perdure::snapshot {
namespace {

constexpr uint32_t kPositionsMax = limits::kContextMax / shm::kArenaPageTokens;
constexpr size_t kChunkKeyBytes = sizeof(uint64_t) + sizeof(uint16_t);
constexpr size_t kChecksumBytes = sizeof(uint64_t);

// A chunk as it is hashed and as it is stored overlap: the checksum takes the place of the key's
// end, once that is hashed.
constexpr size_t kBufferData = 16;
constexpr size_t kBufferValue = kBufferData - kChecksumBytes;
constexpr size_t kBufferKey = kBufferData - kChunkKeyBytes;

uint16_t ChunksOf(uint32_t stored_bytes) {
  return static_cast<uint16_t>((stored_bytes + kChunkBytes - 1) / kChunkBytes);
}
static_assert(limits::kSnapshotPageBytesMax / kChunkBytes < UINT16_MAX);

// What is wrong with a page as it is written or was read; empty: nothing.
std::string_view WrongWith(const StoredPage& page) {
  if (static_cast<uint32_t>(page.key.format) >= shm::kPageFormats) return "an unknown format";
  if (page.tokens.empty() || page.tokens.size() > shm::kArenaPageTokens)
    return "a wrong number of tokens";
  if (page.position >= kPositionsMax) return "a position beyond every context";
  if (page.data_bytes == 0 || page.data_bytes > limits::kSnapshotPageBytesMax)
    return "a wrong number of bytes";
  if (page.chain_hash != shm::ChainHash(page.parent, page.key, shm::TokensHash(page.tokens)))
    return "another hash than its tokens have";
  return {};
}

PageRecord RecordOf(const StoredPage& page) {
  PageRecord record;
  record.parent = page.parent;
  record.position = page.position;
  record.format = static_cast<uint8_t>(page.key.format);
  record.owner = page.key.owner;
  record.mask = page.key.mask;
  record.tokens = page.tokens;
  record.drawn = page.drawn;
  record.data_checksum = page.data_checksum;
  record.data_bytes = page.data_bytes;
  record.chunks = ChunksOf(page.stored_bytes());
  record.codec = static_cast<uint8_t>(page.compression);
  record.used_unix_s = page.used_unix_s;
  return record;
}

// Of a compressed page *chunks tells how many there have to be; how long they are is not known yet.
Result<StoredPage> PageOf(std::string_view key, std::string_view value, uint16_t* chunks) {
  const auto wrong = [](std::string_view what) {
    return Err(ErrorCode::io_error, fmt::format("a page record has {}", what));
  };
  const auto chain_hash = ParsePageKey(key);
  if (!chain_hash) return wrong("a key that is none");
  ASSIGN_OR_RETURN(PageRecord record, Unseal<PageRecord>(key, value));
  StoredPage page;
  page.chain_hash = *chain_hash;
  page.parent = record.parent;
  page.position = record.position;
  page.key = {static_cast<shm::PageFormat>(record.format), record.owner, record.mask};
  page.tokens = std::move(record.tokens);
  page.drawn = record.drawn;
  page.data_checksum = record.data_checksum;
  page.data_bytes = record.data_bytes;
  page.used_unix_s = record.used_unix_s;
  if (const std::string_view what = WrongWith(page); !what.empty()) return wrong(what);
  if (record.codec > static_cast<uint8_t>(KvCompression::kZstd))
    return wrong("chunks that this program cannot read");
  page.compression = static_cast<KvCompression>(record.codec);
  const uint16_t most = ChunksOf(page.data_bytes);
  const bool is_compressed = page.compression != KvCompression::kNone;
  if (record.chunks > most || record.chunks < (is_compressed ? 1 : most))
    return wrong("a wrong number of chunks");
  *chunks = record.chunks;
  return page;
}

// The length of a page's next chunk; false where it cannot be that.
bool TakeChunk(StoredPage* page, size_t value_bytes, bool is_last) {
  if (page->compression == KvCompression::kNone) return true;  // compared when it is read
  const size_t bytes = value_bytes - kChecksumBytes;
  if (value_bytes <= kChecksumBytes || bytes > kChunkBytes || (!is_last && bytes < kChunkBytes))
    return false;
  page->compressed_bytes += static_cast<uint32_t>(bytes);
  return page->compressed_bytes < page->data_bytes;
}

tl::unexpected<Error> WrongPage(uint64_t chain_hash, std::string_view what) {
  return Err(ErrorCode::io_error, fmt::format("page {:016x} {}", chain_hash, what));
}

}  // namespace

// --- Opening -------------------------------------------------------------------------------------

// Keys that are to go, of both databases.
struct KvFile::Doomed {
  std::vector<std::string> pages, chunks;
  bool is_full() const { return pages.size() + chunks.size() >= limits::kSnapshotDropsAtOnce; }
};

Result<std::unique_ptr<KvFile>> KvFile::Open(const Options& options) {
  std::unique_ptr<KvFile> file(new KvFile);
  file->is_read_only_ = options.read_only;
  file->compression_ = options.compression;
  ASSIGN_OR_RETURN(file->environment_, Environment::Open({.file = options.file,
                                                          .name = "kv",
                                                          .model = options.model,
                                                          .bytes_max = options.bytes_max,
                                                          .sync = options.sync,
                                                          .lock_wait_ms = options.lock_wait_ms,
                                                          .read_only = options.read_only,
                                                          .lock = !options.read_only},
                                                         {"pages", "chunks"}));
  bool is_damaged = false;
  Status status = CheckPages(options.file, &is_damaged);
  if (status) {
    status = file->Load();
    is_damaged = file->environment_->is_broken() ||
                 file->environment_->last_failure() == Environment::Failure::kDamaged;
  }
  if (!status && is_damaged && !options.read_only) {
    file->Problem(status.error().message);
    RETURN_IF_ERROR(file->environment_->BeginAnew(status.error().message));
    status = file->Load();
  }
  if (!status) return Err(std::move(status).error());
  if (file->problems_found_ > file->problems_.size())
    file->problems_.push_back(
        fmt::format("and {} more", file->problems_found_ - file->problems_.size()));
  return file;
}

Status KvFile::Load() {
  pages_ = environment_->database(0);
  chunks_ = environment_->database(1);
  found_.clear();
  chunks_found_.clear();
  RETURN_IF_ERROR(LoadPages());
  return CheckChunks();
}

void KvFile::Problem(std::string text) {
  if (++problems_found_ <= limits::kSnapshotProblemsShown) problems_.push_back(std::move(text));
}

// What cannot be dropped because the disk is full stays until the next time.
Status KvFile::Drop(const Doomed& doomed) {
  if (is_read_only_ || (doomed.pages.empty() && doomed.chunks.empty())) return {};
  Status status = environment_->Write([&](Transaction& transaction) -> Status {
    for (const std::string& key : doomed.pages) RETURN_IF_ERROR(transaction.Delete(pages_, key));
    for (const std::string& key : doomed.chunks) RETURN_IF_ERROR(transaction.Delete(chunks_, key));
    return {};
  });
  if (!status && environment_->last_failure() == Environment::Failure::kFull) {
    Problem(status.error().message);
    return {};
  }
  return status;
}

Status KvFile::LoadPages() {
  std::string from;
  for (bool is_done = false; !is_done;) {
    Doomed doomed;
    is_done = true;
    RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) {
      return transaction.Scan(pages_, from, [&](std::string_view key, std::string_view value) {
        if (doomed.is_full()) {
          from = key;
          is_done = false;
          return false;
        }
        uint16_t chunks = 0;
        auto page = PageOf(key, value, &chunks);
        if (page && found_.size() < limits::kSnapshotPagesMax) {
          found_.push_back(std::move(*page));
          chunks_found_.push_back(chunks);
          return true;
        }
        Problem(page ? std::string("there are more pages than are possible")
                     : page.error().message);
        doomed.pages.emplace_back(key);
        return true;
      });
    }));
    RETURN_IF_ERROR(Drop(doomed));
  }
  return {};
}

// Both are in the order of the chain hashes.
Status KvFile::CheckChunks() {
  std::vector<bool> is_whole(found_.size());
  size_t at = 0;
  uint32_t chunks = 0;  // of found_[at], one after another
  std::string from;
  uint64_t orphans = 0;
  for (bool is_done = false; !is_done;) {
    Doomed doomed;
    is_done = true;
    RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) {
      return transaction.ScanSizes(chunks_, from, [&](std::string_view key, size_t bytes) {
        if (doomed.is_full()) {
          from = key;
          is_done = false;
          return false;
        }
        const auto hash = ParsePageKey(key.substr(0, sizeof(uint64_t)));
        for (; hash && at < found_.size() && found_[at].chain_hash < *hash; ++at) chunks = 0;
        const bool is_next = hash && at < found_.size() && found_[at].chain_hash == *hash &&
                             key == ChunkKey(*hash, static_cast<uint16_t>(chunks)) &&
                             chunks < chunks_found_[at] &&
                             TakeChunk(&found_[at], bytes, chunks + 1 == chunks_found_[at]);
        if (is_next) {
          is_whole[at] = ++chunks == chunks_found_[at];
        } else {
          ++orphans;
          doomed.chunks.emplace_back(key);
        }
        return true;
      });
    }));
    RETURN_IF_ERROR(Drop(doomed));
  }
  if (orphans > 0) Problem(fmt::format("{} chunks belonged to no page", orphans));
  std::vector<uint64_t> lost;
  for (size_t i = 0; i < found_.size(); ++i) {
    if (is_whole[i]) continue;
    lost.push_back(found_[i].chain_hash);
    Problem(fmt::format("page {:016x} has not all of its chunks", found_[i].chain_hash));
  }
  size_t i = 0;
  std::erase_if(found_, [&](const StoredPage&) { return !is_whole[i++]; });
  for (size_t begin = 0; !is_read_only_ && begin < lost.size();
       begin += limits::kSnapshotDropsAtOnce) {
    const auto part = std::span(lost).subspan(begin);
    Status status = Delete(part.first(std::min(part.size(), limits::kSnapshotDropsAtOnce)));
    if (!status && environment_->last_failure() != Environment::Failure::kFull) return status;
  }
  return {};
}

// --- Pages ---------------------------------------------------------------------------------------

Status KvFile::Write(std::span<const PageToWrite> pages, std::vector<StoredPage>* stored) {
  for (const auto& [page, data] : pages) {
    if (const std::string_view what = WrongWith(page); !what.empty())
      return WrongPage(page.chain_hash, fmt::format("cannot be stored: it has {}", what));
    if (data.size() != page.data_bytes || Hash64(data) != page.data_checksum)
      return WrongPage(page.chain_hash, "cannot be stored: its checksum is another one");
  }
  // Outside of the transaction, which may be tried several times.
  std::vector<StoredPage> as_stored;
  std::vector<std::string> compressed(pages.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    StoredPage& page = as_stored.emplace_back(pages[i].page);
    const bool is_smaller =
        compression_ != KvCompression::kNone && codec_.Compress(pages[i].data, &compressed[i]) &&
        PageFileBytes(static_cast<uint32_t>(compressed[i].size())) < PageFileBytes(page.data_bytes);
    page.compression = is_smaller ? compression_ : KvCompression::kNone;
    page.compressed_bytes = is_smaller ? static_cast<uint32_t>(compressed[i].size()) : 0;
  }
  RETURN_IF_ERROR(environment_->Write([&](Transaction& transaction) -> Status {
    for (size_t i = 0; i < pages.size(); ++i) {
      const StoredPage& page = as_stored[i];
      const auto bytes = page.compression == KvCompression::kNone
                             ? pages[i].data
                             : std::as_bytes(std::span<const char>(compressed[i]));
      RETURN_IF_ERROR(DropPage(transaction, page.chain_hash, ChunksOf(page.stored_bytes())));
      RETURN_IF_ERROR(PutChunks(transaction, page.chain_hash, bytes));
      const std::string key = PageKeyBytes(page.chain_hash);
      RETURN_IF_ERROR(transaction.Put(pages_, key, Seal(key, RecordOf(page))));
    }
    return {};
  }));
  if (stored != nullptr) std::ranges::move(as_stored, std::back_inserter(*stored));
  return {};
}

Status KvFile::PutChunks(Transaction& transaction, uint64_t chain_hash,
                         std::span<const std::byte> bytes) {
  for (uint16_t chunk = 0; !bytes.empty(); ++chunk) {
    const auto part = bytes.first(std::min(bytes.size(), kChunkBytes));
    bytes = bytes.subspan(part.size());
    const std::string key = ChunkKey(chain_hash, chunk);
    buffer_.resize(kBufferData + part.size());
    std::memcpy(buffer_.data() + kBufferKey, key.data(), key.size());
    std::memcpy(buffer_.data() + kBufferData, part.data(), part.size());
    const uint64_t checksum = Hash64(std::string_view(buffer_).substr(kBufferKey));
    std::memcpy(buffer_.data() + kBufferValue, &checksum, sizeof checksum);
    RETURN_IF_ERROR(transaction.Put(chunks_, key, std::string_view(buffer_).substr(kBufferValue)));
  }
  return {};
}

Status KvFile::Read(const StoredPage& page, std::span<std::byte> data) {
  if (data.size() != page.data_bytes)
    return WrongPage(page.chain_hash, "has another number of bytes");
  std::string problem;
  const bool is_compressed = page.compression != KvCompression::kNone;
  if (is_compressed) compressed_.resize(page.compressed_bytes);
  RETURN_IF_ERROR(environment_->Read([&](Transaction& transaction) -> Status {
    ASSIGN_OR_RETURN(const bool is_same, IsAsWritten(transaction, page));
    if (!is_same) {
      problem = "has numbers of another checksum";
      return {};
    }
    return GetChunks(transaction, page.chain_hash,
                     is_compressed ? std::as_writable_bytes(std::span<char>(compressed_)) : data,
                     &problem);
  }));
  // What is not compressed has been compared chunk by chunk.
  if (problem.empty() && is_compressed) {
    if (!codec_.Decompress(compressed_, data))
      problem = "cannot be decompressed";
    else if (Hash64(data) != page.data_checksum)
      problem = "has numbers of another checksum";
  }
  if (problem.empty()) return {};
  // Whether that succeeds changes nothing for the caller.
  if (!is_read_only_) (void)Delete(std::span(&page.chain_hash, 1));
  return WrongPage(page.chain_hash, problem);
}

// Its chunks were written with its record: whole ones are the numbers that it tells of.
Result<bool> KvFile::IsAsWritten(Transaction& transaction, const StoredPage& page) {
  const std::string key = PageKeyBytes(page.chain_hash);
  ASSIGN_OR_RETURN(const bool found, transaction.GetTo(pages_, key, &buffer_));
  if (!found) return false;
  const auto record = Unseal<PageRecord>(key, buffer_);
  return record && record->data_checksum == page.data_checksum;
}

Status KvFile::GetChunks(Transaction& transaction, uint64_t chain_hash, std::span<std::byte> bytes,
                         std::string* problem) {
  const std::string page = PageKeyBytes(chain_hash);
  char key[kChunkKeyBytes];
  std::memcpy(key, page.data(), page.size());
  uint16_t chunk = 0;
  bool is_there = false;
  // What is seen is hashed first: that brings it into the caches, and it is copied from there.
  const auto take = [&](std::string_view found, std::span<const std::byte> value) {
    key[kChunkKeyBytes - 2] = static_cast<char>(chunk >> 8);
    key[kChunkKeyBytes - 1] = static_cast<char>(chunk);
    const size_t count = std::min(bytes.size(), kChunkBytes);
    is_there = found == std::string_view(key, sizeof key);
    if (!is_there || value.size() != kChecksumBytes + count) return false;
    const std::span<const std::byte> part = value.subspan(kChecksumBytes);
    hasher_.Reset();
    hasher_.Add(std::as_bytes(std::span(key)));
    hasher_.Add(part);
    const uint64_t checksum = hasher_.value();
    if (std::memcmp(&checksum, value.data(), sizeof checksum) != 0) return false;
    StreamCopy(part, bytes.data());
    bytes = bytes.subspan(count);
    ++chunk;
    is_there = false;
    return !bytes.empty();
  };
  RETURN_IF_ERROR(transaction.Look(chunks_, page, take));
  if (!bytes.empty())
    *problem = fmt::format("has {} chunk {}", is_there ? "a damaged" : "no", chunk);
  return {};
}

// Its record, and its chunks from this one on.
Status KvFile::DropPage(Transaction& transaction, uint64_t chain_hash, uint16_t chunks_from) {
  const std::string page = PageKeyBytes(chain_hash);
  std::vector<std::string> keys;
  RETURN_IF_ERROR(
      transaction.ScanKeys(chunks_, ChunkKey(chain_hash, chunks_from), [&](std::string_view key) {
        if (!key.starts_with(page)) return false;
        keys.emplace_back(key);
        return true;
      }));
  for (const std::string& key : keys) RETURN_IF_ERROR(transaction.Delete(chunks_, key));
  return transaction.Delete(pages_, page);
}

Status KvFile::Delete(std::span<const uint64_t> chain_hashes) {
  return environment_->Write([&](Transaction& transaction) -> Status {
    for (const uint64_t hash : chain_hashes) RETURN_IF_ERROR(DropPage(transaction, hash, 0));
    return {};
  });
}

Status KvFile::Erase(std::span<const uint64_t> chain_hashes) {
  return environment_->Write([&](Transaction& transaction) -> Status {
    RETURN_IF_ERROR(transaction.NoteDeletion());
    for (const uint64_t hash : chain_hashes) RETURN_IF_ERROR(DropPage(transaction, hash, 0));
    return {};
  });
}

Status KvFile::Touch(std::span<const std::pair<uint64_t, uint32_t>> used_unix_s) {
  std::string value;
  return environment_->Write([&](Transaction& transaction) -> Status {
    for (const auto& [hash, unix_s] : used_unix_s) {
      const std::string key = PageKeyBytes(hash);
      ASSIGN_OR_RETURN(const bool found, transaction.GetTo(pages_, key, &value));
      if (!found) continue;
      auto record = Unseal<PageRecord>(key, value);
      if (!record) continue;  // the next Open drops it
      record->used_unix_s = unix_s;
      RETURN_IF_ERROR(transaction.Put(pages_, key, Seal(key, *record)));
    }
    return {};
  });
}

}  // namespace perdure::snapshot
