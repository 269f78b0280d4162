#include "shm/status.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace perdure::shm {
namespace {

std::atomic<StatusShm*> panic_target{nullptr};

void PanicToStatus(std::string_view text) {
  StatusShm* status = panic_target.load(std::memory_order_acquire);
  if (status == nullptr) return;
  const size_t bytes = std::min(text.size(), limits::kPanicTextBytes);
  std::memcpy(status->panic_text, text.data(), bytes);
  status->panic_bytes.store(static_cast<uint32_t>(bytes), std::memory_order_release);
}

}  // namespace

Result<StatusBlock> StatusBlock::Map(UniqueFd fd) {
  StatusBlock block;
  auto mapping = MappedFile::Map(fd.get(), sizeof(StatusShm));
  if (!mapping) return ErrWithContext("a status block", std::move(mapping).error());
  block.mapping_ = std::move(*mapping);
  block.fd_ = std::move(fd);
  block.shm_ = reinterpret_cast<StatusShm*>(block.mapping_.data());
  return block;
}

Result<StatusBlock> StatusBlock::Create() {
  UniqueFd fd(memfd_create("perdure-status", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return ErrFromErrno("cannot make a memory file for a status block");
  if (ftruncate(fd.get(), sizeof(StatusShm)) != 0)
    return ErrFromErrno("cannot size a status block");
  // A child that cut the file short would end the supervisor with SIGBUS.
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return ErrFromErrno("cannot seal a status block");
  ASSIGN_OR_RETURN(StatusBlock block, Map(std::move(fd)));
  // A new memory file is all zeros, which is what every field starts with.
  block->magic = kStatusMagic;
  block->version = kStatusVersion;
  block->struct_bytes = sizeof(StatusShm);
  return block;
}

Result<StatusBlock> StatusBlock::Attach(int fd) {
  UniqueFd owned(fd);
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrFromErrno("cannot use the inherited status block");
  if (!S_ISREG(st.st_mode) || st.st_size != static_cast<off_t>(sizeof(StatusShm)))
    return Err(ErrorCode::protocol_error,
               fmt::format("the inherited status block has {} bytes, not {}", st.st_size,
                           sizeof(StatusShm)));
  ASSIGN_OR_RETURN(StatusBlock block, Map(std::move(owned)));
  if (block->magic != kStatusMagic)
    return Err(ErrorCode::protocol_error, "the inherited memory file is no status block");
  if (block->version != kStatusVersion || block->struct_bytes != sizeof(StatusShm))
    return Err(ErrorCode::protocol_error,
               fmt::format("the status block has version {} and {} bytes, this program knows {} "
                           "and {}: install all of Perdure's programs from one build",
                           block->version, block->struct_bytes, kStatusVersion, sizeof(StatusShm)));
  return block;
}

void BeginStep(StatusShm& status, uint64_t step, std::span<const uint64_t> rids) {
  const size_t count = std::min(rids.size(), static_cast<size_t>(limits::kSequencesMax));
  for (size_t i = 0; i < count; ++i)
    status.manifest_rids[i].store(rids[i], std::memory_order_relaxed);
  status.manifest_count.store(static_cast<uint32_t>(count), std::memory_order_relaxed);
  status.manifest_step.store(step, std::memory_order_release);
}

void EndStep(StatusShm& status) {
  status.manifest_step.store(0, std::memory_order_release);
  status.steps_completed.fetch_add(1, std::memory_order_relaxed);
  status.progress.fetch_add(1, std::memory_order_relaxed);
}

void InstallPanicSink(StatusShm& status) {
  panic_target.store(&status, std::memory_order_release);
  SetPanicSink(&PanicToStatus);
}

LastWords ReadLastWords(const StatusShm& status) {
  LastWords words;
  const uint32_t phase = status.phase.load(std::memory_order_relaxed);
  if (phase <= static_cast<uint32_t>(Phase::kDraining)) words.phase = static_cast<Phase>(phase);
  words.step = status.manifest_step.load(std::memory_order_acquire);
  if (words.step != 0) {
    const size_t count = std::min<size_t>(status.manifest_count.load(std::memory_order_relaxed),
                                          limits::kSequencesMax);
    for (size_t i = 0; i < count; ++i)
      words.step_rids.push_back(status.manifest_rids[i].load(std::memory_order_relaxed));
  }
  const size_t bytes =
      std::min<size_t>(status.panic_bytes.load(std::memory_order_acquire), limits::kPanicTextBytes);
  words.panic_text.assign(status.panic_text, bytes);
  return words;
}

}  // namespace perdure::shm
