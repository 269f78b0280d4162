#include "worker/disk_backup.h"

#include <pthread.h>

#include <future>
#include <memory>
#include <utility>

#include "base/log.h"
#include "snapshot/backup_stream.h"

namespace perdure::worker {

using snapshot::BackupPart;
using snapshot::PartKind;
using snapshot::Portion;
using snapshot::SendPart;

DiskBackup::DiskBackup(std::vector<File> files, UniqueFd to)
    : files_(std::move(files)), to_(std::move(to)), thread_([this] { Run(); }) {}

DiskBackup::~DiskBackup() {
  ends_ = true;
  thread_.join();
}

void DiskBackup::Run() {
  pthread_setname_np(pthread_self(), "backup");
  if (const Status sent = SendAll(); !sent) LogWarning("no backup: {}", sent.error().message);
  // The environments are written without being looked at again.
  for (const File& file : files_)
    file.thread->Post([environment = file.environment] {
      if (const auto open = environment()) (*open)->EndCopy();
    });
  is_done_ = true;
}

Status DiskBackup::SendAll() {
  for (const File& file : files_) {
    Status sent = SendFile(file);
    if (sent) continue;
    (void)SendPart(to_.get(), {.kind = PartKind::kFailed, .text = sent.error().message}, ends_);
    return sent;
  }
  return SendPart(to_.get(), {.kind = PartKind::kDone}, ends_);
}

Status DiskBackup::SendFile(const File& file) {
  RETURN_IF_ERROR(SendPart(
      to_.get(), {.kind = PartKind::kFile, .text = file.name, .bytes_max = file.bytes_max}, ends_));
  for (bool is_first = true, is_last = false; !is_last; is_first = false) {
    auto portion = NextPortion(file, is_first);
    if (!portion && file.may_be_skipped)
      return SendPart(to_.get(), {.kind = PartKind::kSkipped, .text = portion.error().message},
                      ends_);
    if (!portion) return Err(std::move(portion).error());
    is_last = portion->is_last;
    RETURN_IF_ERROR(SendPart(
        to_.get(), {.kind = PartKind::kPortion, .records = std::move(portion->records)}, ends_));
  }
  return SendPart(to_.get(), {.kind = PartKind::kFileEnd}, ends_);
}

Result<Portion> DiskBackup::NextPortion(const File& file, bool is_first) const {
  using Answer = std::promise<Result<Portion>>;
  const auto answer = std::make_shared<Answer>();
  auto portion = answer->get_future();
  file.thread->Post([environment = file.environment, answer, is_first] {
    const auto open = environment();
    if (!open) return answer->set_value(Err(open.error()));
    if (is_first) (*open)->BeginCopy();
    answer->set_value((*open)->NextPortion());
  });
  return portion.get();
}

void RefuseBackup(const UniqueFd& to, const std::string& why) {
  const std::atomic<bool> ends = false;
  // It fits in the socket's buffer.
  (void)SendPart(to.get(), {.kind = PartKind::kFailed, .text = why}, ends);
}

}  // namespace perdure::worker
