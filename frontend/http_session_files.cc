// Files that a session receives and sends. Disks are waited for on a thread of their own.
#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/private_file.h"
#include "frontend/http_response.h"
#include "frontend/http_session.h"
#include "frontend/response_writer.h"

namespace perdure::frontend {
namespace {

Error TooManyFiles() {
  return {ErrorCode::overloaded,
          fmt::format("{} files are being sent or received, as many as there may be.",
                      limits::kFileTransfersMax),
          {},
          1};
}

}  // namespace

// --- Received ----------------------------------------------------------------------------------

std::optional<Error> HttpSession::BeginUpload() {
  auto fd = OpenUnlinkedFile(host_->settings().upload_dir);
  if (!fd) return fd.error();
  if (!host_->files().Begin()) return TooManyFiles();
  upload_ = std::make_shared<Upload>();
  upload_->file = std::make_shared<UploadedFile>();
  upload_->file->fd = std::move(*fd);
  return std::nullopt;
}

// What the parser has read of the body goes to the file.
void HttpSession::TakeUploaded() {
  Upload& upload = *upload_;
  std::string& body = parser_->request().body;
  upload.pending += body;
  body.clear();
  if (upload.is_busy || upload.pending.empty()) return;
  upload.is_busy = true;
  struct Job {
    std::shared_ptr<UploadedFile> file;
    std::string bytes;
    uint64_t offset = 0;
    Status written;
  };
  auto job = std::make_shared<Job>();
  job->file = upload.file;
  job->bytes = std::exchange(upload.pending, {});
  job->offset = upload.file->bytes;
  upload.file->bytes += job->bytes.size();
  host_->files().Run(
      [job] { job->written = WriteAt(job->file->fd.get(), job->offset, job->bytes, "the upload"); },
      [job, self = shared_from_this(), of_it = upload_] {
        of_it->is_busy = false;
        if (self->upload_ == of_it) self->OnUploadWritten(job->written);
      });
}

void HttpSession::OnUploadWritten(const Status& written) {
  if (!written) {
    LogWarning("{}: {}", RequestIdText(rid_), written.error().message);
    keep_alive_ = false;
    const bool is_full = written.error().code == ErrorCode::insufficient_storage;
    return Respond(ErrorResponse({written.error().code,
                                  is_full ? "The disk has no room for the file that is uploaded."
                                          : "The disk does not take the file that is uploaded.",
                                  {},
                                  0}));
  }
  // A body of gigabytes takes long; one that trickles is given up.
  if (upload_->file->bytes - upload_->bytes_at_deadline >= limits::kHttpReadBytes) {
    upload_->bytes_at_deadline = upload_->file->bytes;
    deadline_ms_ = MonotonicMs() + int64_t{host_->settings().header_timeout_s} * 1000;
  }
  TakeUploaded();
  Advance();
  WaitRead();
}

void HttpSession::DropUpload() {
  if (!upload_) return;
  upload_.reset();
  host_->files().End();
}

// --- Sent --------------------------------------------------------------------------------------

void HttpSession::RespondWithFile(HttpResponse head, UniqueFd file) {
  if (!host_->files().Begin()) return Respond(ErrorResponse(TooManyFiles()));
  generating_ = false;
  download_ = std::make_shared<Download>();
  download_->fd = std::move(file);
  download_->bytes = head.content_length.value_or(0);
  head = Completed(std::move(head));
  keep_alive_ = !head.close;
  answered_ = download_->bytes == 0;
  Enqueue(SerializeHead(head, BodyFraming::kLength, UnixSeconds()), 0);
}

// Once the client has taken what there is of it.
void HttpSession::SendMoreOfFile() {
  if (!download_ || download_->is_busy || outbox_.size() > 1) return;
  if (download_->offset == download_->bytes) return DropDownload();
  download_->is_busy = true;
  struct Job {
    std::shared_ptr<Download> download;
    std::string piece;
    Status read;
  };
  auto job = std::make_shared<Job>();
  job->download = download_;
  job->piece.resize(
      std::min<uint64_t>(limits::kFilePieceBytes, download_->bytes - download_->offset));
  host_->files().Run(
      [job] {
        const auto got = ReadAt(job->download->fd.get(), job->download->offset,
                                std::as_writable_bytes(std::span(job->piece)), "the file");
        if (!got)
          job->read = Err(got.error());
        else if (*got < job->piece.size())
          job->read = Err(ErrorCode::io_error, "the file is shorter than it was");
      },
      [job, self = shared_from_this()] {
        job->download->is_busy = false;
        if (self->download_ == job->download) self->OnPieceRead(std::move(job->piece), job->read);
      });
}

void HttpSession::OnPieceRead(std::string piece, const Status& read) {
  if (!read) {
    // The client sees that it is cut short: its length was told.
    LogError("{}: cannot be sent to its end: {}", RequestIdText(rid_), read.error().message);
    return Close();
  }
  download_->offset += piece.size();
  answered_ = download_->offset == download_->bytes;
  Enqueue(std::move(piece), 0);
  if (state_ != State::kClosed) SendMoreOfFile();
}

void HttpSession::DropDownload() {
  if (!download_) return;
  download_.reset();
  host_->files().End();
}

}  // namespace perdure::frontend
