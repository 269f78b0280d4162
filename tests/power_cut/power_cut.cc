// Preloaded into a program (or linked into one): notes what a power cut would take back of a
// folder's files, and kills its process in the middle of a write that a test names. journal.h tells
// the whole.
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tests/power_cut/journal.h"

namespace perdure::power_cut {
namespace {

template <class Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

[[noreturn]] void Die() {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

class Library {
 public:
  Library() {
    const char* const folder = std::getenv(kFolderVariable);
    const char* const journal = std::getenv(kJournalVariable);
    if (folder == nullptr || journal == nullptr) return;
    const int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, journal, O_RDWR | O_CLOEXEC));
    if (fd < 0) Fail("its journal cannot be opened");
    void* const map = mmap(nullptr, kJournalBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) Fail("its journal cannot be mapped");
    syscall(SYS_close, fd);
    folder_ = folder;
    map_ = static_cast<char*>(map);
    header_ = static_cast<HeaderShm*>(map);
  }

  bool is_on() const { return header_ != nullptr; }
  HeaderShm* header() const { return header_; }
  bool IsBelow(std::string_view path) const {
    return path.size() >= folder_.size() && path.starts_with(folder_) &&
           (path.size() == folder_.size() || path[folder_.size()] == '/');
  }
  char* note_at(uint64_t at) const { return map_ + kNotesBegin + at; }

  void Lock() {
    if (pthread_mutex_lock(&header_->mutex) == EOWNERDEAD)
      pthread_mutex_consistent(&header_->mutex);
  }
  void Unlock() { pthread_mutex_unlock(&header_->mutex); }

  [[noreturn]] static void Fail(const char* what) {
    std::fprintf(stderr, "power_cut: %s\n", what);
    std::abort();
  }

 private:
  std::string folder_;
  char* map_ = nullptr;
  HeaderShm* header_ = nullptr;
};

// Never destroyed: files are written until the very end.
Library& TheLibrary() {
  static Library& library = *new Library;
  return library;
}

// A descriptor of one of the folder's files; nothing of any other.
struct Target {
  bool is_watched = false;
  bool is_folder = false, is_durable = false;  // written through O_DSYNC
  uint64_t inode = 0, file_bytes = 0;
  char path[PATH_MAX] = {};
};

void Look(int fd, Target* target) {
  const int saved = errno;
  Library& library = TheLibrary();
  struct stat st {};
  if (library.is_on() && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
    char link[64];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, target->path, sizeof target->path - 1);
    if (length > 0 && library.IsBelow({target->path, static_cast<size_t>(length)})) {
      const int flags = fcntl(fd, F_GETFL);
      target->is_watched = true;
      target->is_folder = S_ISDIR(st.st_mode);
      target->is_durable = (flags & O_DSYNC) != 0;
      target->inode = st.st_ino;
      target->file_bytes = static_cast<uint64_t>(st.st_size);
    }
  }
  errno = saved;
}

// True: this is the call in which the process is to be killed.
bool Count() {
  HeaderShm* const header = TheLibrary().header();
  if (header->is_cut != 0) Die();
  const uint64_t call = header->calls.fetch_add(1) + 1;
  if (header->stop_at == 0 || call != header->stop_at) return false;
  if (header->is_power != 0) header->is_cut = 1;
  return true;
}

void ReadOld(int fd, NoteShm* note) {
  char* const old = reinterpret_cast<char*>(note + 1);
  std::memset(old, 0, note->bytes);
  // The descriptor may be for writing alone.
  char link[64];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const int reads = static_cast<int>(syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC));
  if (reads < 0) Library::Fail("a file cannot be read");
  for (uint64_t got = 0; got < note->bytes;) {
    const ssize_t n =
        pread(reads, old + got, note->bytes - got, static_cast<off_t>(note->offset + got));
    if (n <= 0) break;  // its end
    got += static_cast<uint64_t>(n);
  }
  syscall(SYS_close, reads);
}

NoteShm* NewNote(NoteKind kind, const char* path, uint64_t bytes) {
  Library& library = TheLibrary();
  const uint64_t size = (sizeof(NoteShm) + bytes + 63) / 64 * 64;
  const uint64_t used = library.header()->used;
  if (kNotesBegin + used + size > kJournalBytes) Library::Fail("the journal is full");
  auto* note = reinterpret_cast<NoteShm*>(library.note_at(used));
  std::memset(static_cast<void*>(note), 0, sizeof *note);
  note->size = size;
  note->kind = kind;
  note->bytes = bytes;
  if (std::strlen(path) >= sizeof note->path) Library::Fail("a path is too long");
  std::strcpy(note->path, path);
  return note;
}

template <class Visit>
void ForEachNote(Visit visit) {
  Library& library = TheLibrary();
  bool is_all_durable = true;
  for (uint64_t at = 0; at < library.header()->used;) {
    auto* note = reinterpret_cast<NoteShm*>(library.note_at(at));
    if (note->is_durable == 0) visit(note);
    is_all_durable = is_all_durable && note->is_durable != 0;
    at += note->size;
  }
  if (is_all_durable) library.header()->used = 0;
}

NoteShm* NoteWrite(int fd, const Target& target, uint64_t offset, uint64_t bytes) {
  Library& library = TheLibrary();
  const int saved = errno;
  library.Lock();
  NoteShm* const note = NewNote(NoteKind::kWrite, target.path, bytes);
  note->inode = target.inode;
  note->offset = offset;
  note->old_file_bytes = target.file_bytes;
  ReadOld(fd, note);
  library.header()->used += note->size;
  library.Unlock();
  errno = saved;
  return note;
}

// What was written is durable: older notes must not take it back.
void StrikeOut(NoteShm* written, const char* bytes_now) {
  Library& library = TheLibrary();
  library.Lock();
  written->is_durable = 1;
  const uint64_t begin = written->offset, end = begin + written->bytes;
  const uint64_t inode = written->inode;
  ForEachNote([&](NoteShm* note) {
    if (note->kind != NoteKind::kWrite || note->inode != inode) return;
    const uint64_t from = std::max(begin, note->offset);
    const uint64_t to = std::min(end, note->offset + note->bytes);
    if (from < to)
      std::memcpy(reinterpret_cast<char*>(note + 1) + (from - note->offset),
                  bytes_now + (from - begin), to - from);
    note->old_file_bytes = std::max(note->old_file_bytes, end);
  });
  library.Unlock();
}

void StrikeOutFile(const Target& target) {
  Library& library = TheLibrary();
  const int saved = errno;
  library.Lock();
  const std::string_view folder(target.path);
  ForEachNote([&](NoteShm* note) {
    const std::string_view path(note->path);
    if (target.is_folder
            ? note->kind == NoteKind::kCreated && path.substr(0, path.rfind('/')) == folder
            : note->kind == NoteKind::kWrite && note->inode == target.inode)
      note->is_durable = 1;
  });
  library.Unlock();
  errno = saved;
}

// A write at a place, by whichever function: `write` does it.
template <class Write>
ssize_t Written(int fd, const struct iovec* parts, int count, off_t offset, Write write) {
  Target target;
  Look(fd, &target);
  if (!target.is_watched || target.is_folder) return write();
  const bool is_last = Count();
  if (offset < 0) {
    const bool appends = (fcntl(fd, F_GETFL) & O_APPEND) != 0;
    offset = appends ? static_cast<off_t>(target.file_bytes) : lseek(fd, 0, SEEK_CUR);
  }
  std::vector<char> bytes;
  for (int i = 0; i < count; ++i) {
    const char* const begin = static_cast<const char*>(parts[i].iov_base);
    bytes.insert(bytes.end(), begin, begin + parts[i].iov_len);
  }
  const auto at = static_cast<uint64_t>(offset);
  NoteShm* const note = NoteWrite(fd, target, at, bytes.size());
  if (is_last) {
    // A signal ends a write between two of the system's pages: half of it is done; what lies within
    // one page is done or not.
    uint64_t end = (at + bytes.size() / 2) / 4096 * 4096;
    const bool is_within_page = at / 4096 == (at + bytes.size() - 1) / 4096;
    if (is_within_page && TheLibrary().header()->stop_at % 2 == 0) end = at + bytes.size();
    static auto* const real = Real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
    if (end > at && real(fd, bytes.data(), end - at, offset) < 0) Library::Fail("half a write");
    Die();
  }
  const ssize_t written = write();
  if (target.is_durable && written > 0) StrikeOut(note, bytes.data());
  return written;
}

template <class Sync>
int Synced(int fd, Sync sync) {
  Target target;
  Look(fd, &target);
  if (!target.is_watched) return sync();
  if (Count()) Die();
  const int result = sync();
  if (result == 0) StrikeOutFile(target);
  return result;
}

template <class Truncate>
int Truncated(int fd, off_t length, Truncate truncate) {
  Target target;
  Look(fd, &target);
  if (!target.is_watched) return truncate();
  if (Count()) Die();
  const auto to = static_cast<uint64_t>(length);
  NoteWrite(fd, target, to, to < target.file_bytes ? target.file_bytes - to : 0);
  return truncate();
}

template <class Open>
int Opened(const char* path, int flags, Open open) {
  Library& library = TheLibrary();
  if (!library.is_on() || !library.IsBelow(path)) return open();
  if (library.header()->is_cut != 0) Die();
  struct stat st {};
  const int saved = errno;
  const bool is_new = (flags & O_CREAT) != 0 && lstat(path, &st) != 0;
  errno = saved;
  const int fd = open();
  if (!is_new || fd < 0) return fd;
  library.Lock();
  NoteShm* const note = NewNote(NoteKind::kCreated, path, 0);
  library.header()->used += note->size;
  library.Unlock();
  errno = saved;
  return fd;
}

}  // namespace
}  // namespace perdure::power_cut

// Before the program's own and the system's.
extern "C" {

using perdure::power_cut::Opened;
using perdure::power_cut::Real;
using perdure::power_cut::Synced;
using perdure::power_cut::Truncated;
using perdure::power_cut::Written;

ssize_t write(int fd, const void* data, size_t bytes) {
  static auto* const real = Real<ssize_t(int, const void*, size_t)>("write");
  const struct iovec part { const_cast<void*>(data), bytes };
  return Written(fd, &part, 1, -1, [&] { return real(fd, data, bytes); });
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  static auto* const real = Real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  const struct iovec part { const_cast<void*>(data), bytes };
  return Written(fd, &part, 1, offset, [&] { return real(fd, data, bytes, offset); });
}
ssize_t pwrite64(int fd, const void* data, size_t bytes, off_t offset) {
  return pwrite(fd, data, bytes, offset);
}

ssize_t writev(int fd, const struct iovec* parts, int count) {
  static auto* const real = Real<ssize_t(int, const struct iovec*, int)>("writev");
  return Written(fd, parts, count, -1, [&] { return real(fd, parts, count); });
}

ssize_t pwritev(int fd, const struct iovec* parts, int count, off_t offset) {
  static auto* const real = Real<ssize_t(int, const struct iovec*, int, off_t)>("pwritev");
  return Written(fd, parts, count, offset, [&] { return real(fd, parts, count, offset); });
}
ssize_t pwritev64(int fd, const struct iovec* parts, int count, off_t offset) {
  return pwritev(fd, parts, count, offset);
}

int fdatasync(int fd) {
  static auto* const real = Real<int(int)>("fdatasync");
  return Synced(fd, [&] { return real(fd); });
}

int fsync(int fd) {
  static auto* const real = Real<int(int)>("fsync");
  return Synced(fd, [&] { return real(fd); });
}

int ftruncate(int fd, off_t length) noexcept {
  static auto* const real = Real<int(int, off_t)>("ftruncate");
  return Truncated(fd, length, [&] { return real(fd, length); });
}
int ftruncate64(int fd, off_t length) noexcept { return ftruncate(fd, length); }

int open(const char* path, int flags, ...) {
  static auto* const real = Real<int(const char*, int, ...)>("open");
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return Opened(path, flags, [&] { return real(path, flags, mode); });
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}

}  // extern "C"
