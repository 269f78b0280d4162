// Servers with conversations on real disks, and files that go from one to another.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/private_file.h"
#include "tests/base/temp_folder.h"
#include "tests/worker/snapshot_fixture.h"
#include "worker/disk_persistence.h"

namespace perdure::worker {

class FilesTest : public SnapshotTest {
 protected:
  ~FilesTest() override { generator_.reset(); }

  // --- Machines ---

  // Of a name; what its disk has is there again, its memory is not.
  void BootServer(const std::string& name, PageIndex pages = 256) {
    generator_.reset();
    files_.reset();
    const std::filesystem::path folder = folder_.path() / name;
    auto opened = DiskPersistence::Open({.dir = folder / "conversations",
                                         .model = "fake",
                                         .sync = false,
                                         .turns_bytes_max = uint64_t{64} << 20,
                                         .kv_bytes_max = uint64_t{64} << 20});
    ASSERT_TRUE(opened) << opened.error().message;
    files_ = std::move(opened->persistence);
    options_.persistence = files_.get();
    options_.stored_conversations = std::move(opened->conversations);
    options_.stored_pages = std::move(opened->pages);
    options_.transfer_dir = folder / "conversations";
    options_.saved_dir = folder / "saved";
    options_.saved_bytes_max = saved_bytes_max_;
    root_ = shm::RootHash(options_.fingerprint, options_.numerics);
    StartWith(pages);
    computed_ = 0;
  }

  // --- Time ---

  // Until nothing is left to be done, of requests, upkeep and disk.
  void RunFiles() {
    for (int i = 0; i < 100'000; ++i) {
      clock_us += 1000;
      if (generator_->HasWork()) {
        generator_->Step();
        continue;
      }
      files_->Wait(60'000);
      pollfd fd{files_->fd(), POLLIN, 0};
      if (poll(&fd, 1, 0) > 0)
        generator_->TakeAnswers();
      else if (generator_->HasUpkeep())
        generator_->Upkeep();
      else
        return;
    }
    ADD_FAILURE() << "it does not come to an end";
  }
  protocol::RequestId SayHere(const protocol::Submit& submit) {
    EXPECT_TRUE(generator_->Submit(submit));
    RunFiles();
    EXPECT_TRUE(HasEnded(submit.rid)) << "no answer to " << submit.rid;
    return submit.rid;
  }

  // --- Files ---

  protocol::ConversationFileCommand FileCommand(protocol::ConversationFileOperation operation,
                                                const std::string& id,
                                                const std::string& name = "") {
    protocol::ConversationFileCommand command;
    command.rid = ++last_rid_;
    command.operation = operation;
    command.tenant = tenant_;
    command.id = id;
    command.name = name;
    return command;
  }
  // What was answered last; an error has "error", a number, beside "message".
  Json AnswerOf(protocol::RequestId rid) {
    for (const protocol::ConversationAnswer& answer : sink_.conversation_answers) {
      if (answer.rid != rid) continue;
      if (answer.error_code != 0)
        return {{"error", answer.error_code}, {"message", answer.text}, {"param", answer.param}};
      return Json::parse(answer.text);
    }
    return nullptr;
  }
  Json Do(const protocol::ConversationFileCommand& command) {
    generator_->Command(command);
    RunFiles();
    return AnswerOf(command.rid);
  }
  static bool IsError(const Json& answer, ErrorCode code) {
    return answer.is_object() && answer.value("error", 0) == static_cast<int>(code);
  }
  UniqueFd Export(const std::string& id, bool kv = true) {
    auto command = FileCommand(protocol::ConversationFileOperation::kExport, id);
    command.kv = kv;
    const Json refusal = Do(command);
    EXPECT_TRUE(refusal.is_null()) << refusal;
    auto file = sink_.files.extract(command.rid);
    if (!file) return UniqueFd();
    auto& [message, fd] = file.mapped();
    EXPECT_EQ(message.id, id);
    EXPECT_EQ(message.bytes, BytesOfFile(fd->get(), "the file").value_or(0));
    return std::move(*fd);
  }
  Json Import(const UniqueFd& file, const std::string& id = "") {
    protocol::ConversationUpload upload;
    upload.rid = ++last_rid_;
    upload.tenant = tenant_;
    upload.id = id;
    generator_->Command(upload, UniqueFd(dup(file.get())));
    RunFiles();
    return AnswerOf(upload.rid);
  }
  static std::string BytesIn(const UniqueFd& file) {
    std::string bytes(BytesOfFile(file.get(), "the file").value_or(0), '\0');
    EXPECT_TRUE(ReadAt(file.get(), 0, std::as_writable_bytes(std::span(bytes)), "the file"));
    return bytes;
  }
  UniqueFd FileOf(const std::string& bytes) const {
    UniqueFd fd = OpenUnlinkedFile(folder_.path()).value();
    EXPECT_TRUE(WriteAll(fd.get(), bytes, "the file"));
    return fd;
  }

  protocol::Submit InTenant(protocol::Submit submit) const {
    submit.request.tenant = tenant_;
    return submit;
  }

  TempFolder folder_;
  std::string tenant_;
  uint64_t saved_bytes_max_ = uint64_t{1} << 30;
  std::unique_ptr<DiskPersistence> files_;
};

}  // namespace perdure::worker
