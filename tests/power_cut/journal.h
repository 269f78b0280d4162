// What a power cut takes back of a folder's files: the journal between the library that keeps it in
// the processes of a test (power_cut.cc) and the test that cuts.
//
// Before a write the library notes the bytes that were there. What makes writes durable (fdatasync,
// fsync, a write through an O_DSYNC descriptor) strikes the notes out. The journal is a mapped
// file, so that it is whole when a process was killed. When all processes are dead the test takes
// back what is still noted, or, as a real disk would, some of its sectors.
//
// A new file is noted until its folder is synced. Not looked at: renames, unlinks, new folders, and
// writes through mappings (LMDB makes none without MDB_WRITEMAP).
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace perdure::power_cut {

// The library is active in processes that have both of these variables.
inline constexpr char kFolderVariable[] = "PERDURE_POWER_CUT_FOLDER";
inline constexpr char kJournalVariable[] = "PERDURE_POWER_CUT_JOURNAL";

struct HeaderShm {
  pthread_mutex_t mutex;           // robust
  std::atomic<uint64_t> calls;     // writes and syncs so far
  std::atomic<uint64_t> stop_at;   // the call in which its process is killed; 0: none
  std::atomic<uint32_t> is_cut;    // whatever touches the folder's files from now on is killed
  std::atomic<uint32_t> is_power;  // stop_at cuts the power: sets is_cut
  std::atomic<uint64_t> used;      // bytes of notes
};

enum class NoteKind : uint32_t { kWrite, kCreated };

// Followed by `bytes` old bytes (kWrite).
struct NoteShm {
  uint64_t size;  // with what follows, to the next note
  NoteKind kind;
  uint32_t is_durable;  // struck out
  uint64_t inode;
  uint64_t offset, bytes;
  uint64_t old_file_bytes;
  char path[512];
};

inline constexpr uint64_t kNotesBegin = 4096;
inline constexpr uint64_t kJournalBytes = uint64_t{1} << 30;  // sparse
inline constexpr uint64_t kSectorBytes = 512;                 // a disk writes it wholly or not

// The test's side. One at a time for a journal; no process of the test writes while it works.
class Journal {
 public:
  // Makes the file anew. It does not lie in the folder that is watched.
  explicit Journal(std::filesystem::path file);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::filesystem::path& file() const { return file_; }
  uint64_t calls() const { return header_->calls; }

  // The process that makes the `call`th write or sync from now on is killed in it: half of a write
  // is done, a sync is not. `power`: so is every other one that goes on to write.
  void KillAt(uint64_t call, bool power);
  bool is_cut() const { return header_->is_cut != 0; }
  // Nothing is killed any more.
  void Disarm();

  // With the processes dead: takes back all that was not durable, or, with a seed, some of it.
  // Returns how many notes there were.
  size_t CutPower(std::optional<uint64_t> seed);

 private:
  const std::filesystem::path file_;
  char* map_ = nullptr;
  HeaderShm* header_ = nullptr;
};

}  // namespace perdure::power_cut
