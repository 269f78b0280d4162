#include "tests/power_cut/journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace perdure::power_cut {
namespace {

int OpenSame(const NoteShm& note) {
  const int fd = open(note.path, O_RDWR | O_CLOEXEC);
  struct stat st {};
  if (fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == note.inode) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

void Must(bool done) {
  if (!done) std::abort();
}

}  // namespace

Journal::Journal(std::filesystem::path file) : file_(std::move(file)) {
  const int fd = open(file_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  Must(fd >= 0 && ftruncate(fd, kJournalBytes) == 0);
  void* const map = mmap(nullptr, kJournalBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  Must(map != MAP_FAILED);
  close(fd);
  map_ = static_cast<char*>(map);
  header_ = new (map_) HeaderShm{};
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&header_->mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

Journal::~Journal() {
  munmap(map_, kJournalBytes);
  unlink(file_.c_str());
}

void Journal::KillAt(uint64_t call, bool power) {
  header_->is_power = power ? 1 : 0;
  header_->stop_at = header_->calls + call;
}

void Journal::Disarm() {
  header_->stop_at = 0;
  header_->is_cut = 0;
}

size_t Journal::CutPower(std::optional<uint64_t> seed) {
  std::mt19937_64 random(seed.value_or(0));
  const auto is_taken_back = [&] { return !seed || random() % 2 == 0; };
  std::vector<const NoteShm*> notes;
  for (uint64_t at = 0; at < header_->used;) {
    const auto* note = reinterpret_cast<const NoteShm*>(map_ + kNotesBegin + at);
    if (note->is_durable == 0) notes.push_back(note);
    at += note->size;
  }
  std::map<std::string, uint64_t> lengths;  // before the first write that is not durable
  for (auto it = notes.rbegin(); it != notes.rend(); ++it) {
    const NoteShm& note = **it;
    if (note.kind != NoteKind::kWrite) continue;
    const int fd = OpenSame(note);
    if (fd < 0) continue;
    const char* const old = reinterpret_cast<const char*>(&note + 1);
    // By sectors of the file, not of the write.
    for (uint64_t at = note.offset, end = note.offset + note.bytes; at < end;) {
      const uint64_t next = std::min(end, (at / kSectorBytes + 1) * kSectorBytes);
      if (is_taken_back())
        Must(pwrite(fd, old + (at - note.offset), next - at, static_cast<off_t>(at)) ==
             static_cast<ssize_t>(next - at));
      at = next;
    }
    close(fd);
    const auto [length, is_new] = lengths.emplace(note.path, note.old_file_bytes);
    if (!is_new) length->second = std::min(length->second, note.old_file_bytes);
  }
  for (const auto& [path, bytes] : lengths)
    if (is_taken_back()) Must(truncate(path.c_str(), static_cast<off_t>(bytes)) == 0);
  for (const NoteShm* note : notes)
    if (note->kind == NoteKind::kCreated && is_taken_back()) unlink(note->path);
  header_->used = 0;
  Disarm();
  return notes.size();
}

}  // namespace perdure::power_cut
