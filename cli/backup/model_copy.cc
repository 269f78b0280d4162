#include "cli/backup/model_copy.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/unique_fd.h"
#include "cli/backup/files.h"
#include "cli/control_client.h"
#include "snapshot/backup_stream.h"
#include "snapshot/copy_file.h"
#include "snapshot/environment.h"
#include "snapshot/page_check.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;
using snapshot::BackupPart;
using snapshot::CopyFile;
using snapshot::Environment;
using snapshot::PartKind;

constexpr int kAskEveryMs = 100;

// overloaded: a worker has the file, or wants it. *is_unreadable: the file itself is at fault.
Status CopyHere(const fs::path& from, const fs::path& to, const char* name,
                const std::string& model, bool* is_unreadable) {
  *is_unreadable = true;
  ASSIGN_OR_RETURN(
      const auto environment,
      Environment::Open({.file = from, .name = name, .model = model, .read_only = true}, {}));
  bool is_damaged = false;
  RETURN_IF_ERROR(snapshot::CheckPages(from, &is_damaged));
  *is_unreadable = false;
  ASSIGN_OR_RETURN(const auto copy, CopyFile::Begin(to, environment->file_bytes()));
  environment->BeginCopy();
  for (bool is_last = false; !is_last;) {
    const auto portion = environment->NextPortion();
    *is_unreadable = !portion;
    if (!portion) return Err(portion.error());
    is_last = portion->is_last;
    RETURN_IF_ERROR(copy->Apply(*portion));
    if (!is_last && environment->IsWanted())
      return Err(ErrorCode::overloaded, "the model's process wants its files");
  }
  return copy->Finish();
}

Result<std::string> CopyAllHere(const ModelCopyOptions& options) {
  bool is_unreadable = false;
  if (fs::exists(options.from / "turns.mdb"))
    RETURN_IF_ERROR(CopyHere(options.from / "turns.mdb", options.to / "turns.mdb", "turns",
                             options.model, &is_unreadable));
  if (!options.kv || !fs::exists(options.from / "kv.mdb")) return std::string();
  const Status copied =
      CopyHere(options.from / "kv.mdb", options.to / "kv.mdb", "kv", options.model, &is_unreadable);
  if (copied) return std::string();
  if (copied.error().code == ErrorCode::overloaded || !is_unreadable) return Err(copied.error());
  // They can be computed again.
  fs::remove(options.to / "kv.mdb");
  return copied.error().message;
}

// What the service sends. worker_lost: it has ended in the middle.
Result<std::string> Receive(int socket, const ModelCopyOptions& options) {
  std::unique_ptr<CopyFile> copy;
  std::string skipped;
  fs::path file;
  const auto out_of_order = [] {
    return Err(ErrorCode::protocol_error, "the service's answer makes no sense");
  };
  for (;;) {
    ASSIGN_OR_RETURN(BackupPart part, snapshot::ReceivePart(socket));
    if (copy == nullptr && part.kind != PartKind::kFile && part.kind != PartKind::kDone &&
        part.kind != PartKind::kFailed)
      return out_of_order();
    switch (part.kind) {
      case PartKind::kFile: {
        if (copy != nullptr || (part.text != "turns.mdb" && part.text != "kv.mdb"))
          return out_of_order();
        file = options.to / part.text;
        ASSIGN_OR_RETURN(copy, CopyFile::Begin(file, part.bytes_max));
        break;
      }
      case PartKind::kPortion:
        RETURN_IF_ERROR(copy->Apply({std::move(part.records), false}));
        break;
      case PartKind::kFileEnd:
        RETURN_IF_ERROR(copy->Finish());
        copy.reset();
        break;
      case PartKind::kSkipped:
        copy.reset();
        fs::remove(file);
        skipped = part.text;
        break;
      case PartKind::kDone:
        if (copy != nullptr) return out_of_order();
        return skipped;
      case PartKind::kFailed:
        return Err(ErrorCode::io_error, part.text);
      default:
        return out_of_order();
    }
  }
}

// model_loading: the service does not have this model, or not yet.
Result<std::string> AskService(const ModelCopyOptions& options) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    return ErrFromErrno("cannot make a socket");
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const Json line = {{"op", "backup"}, {"model", options.model}, {"kv", options.kv}};
  const auto begun = AskSupervisorWith(options.runtime_dir, line, theirs.get());
  theirs.reset();
  if (!begun) return Err(ErrorCode::model_loading, begun.error().message);
  return Receive(ours.get(), options);
}

}  // namespace

Result<std::string> CopyModel(const ModelCopyOptions& options) {
  int64_t deadline_ms = MonotonicMs() + options.wait_ms;
  int tries = 0;
  for (;;) {
    RemoveAll(options.to);
    RETURN_IF_ERROR(MakeFolder(options.to));
    auto copied = CopyAllHere(options);
    if (copied || copied.error().code != ErrorCode::overloaded) return copied;
    RemoveAll(options.to);
    RETURN_IF_ERROR(MakeFolder(options.to));
    copied = AskService(options);
    if (copied) return copied;
    const bool is_lost = copied.error().code == ErrorCode::worker_lost;
    if (!is_lost && copied.error().code != ErrorCode::model_loading) return copied;
    // Its process may just start, or end, or be replaced by the next one.
    if (is_lost && ++tries < limits::kBackupTriesMax)
      deadline_ms = MonotonicMs() + options.wait_ms;
    else if (is_lost || MonotonicMs() >= deadline_ms)
      return Err(ErrorCode::overloaded,
                 fmt::format("the conversations of {} are in use by another process, and the "
                             "service in {} does not hand them out: {}",
                             options.model, options.runtime_dir.string(), copied.error().message));
    poll(nullptr, 0, kAskEveryMs);
  }
}

}  // namespace perdure::cli
