// Prepared files: whole or not there, whatever happens while they are written, and every damage is
// noticed.

#include "base/prepared_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

#include "base/file.h"
#include "base/hash.h"
#include "base/prepared_folder.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kFingerprint = 77;
const std::atomic<bool> kNeverStop{false};

// Sizes around the alignment.
const std::vector<std::pair<std::string, size_t>> kSections = {
    {"one", 1}, {"empty", 0}, {"page", 4096}, {"and more", 4097}, {"some", 300}};

std::string Content(const std::string& name, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) text += static_cast<char>(Hash64(name + std::to_string(i)));
  return text;
}

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Status WriteSections(PreparedWriter& writer) {
  for (const auto& [name, size] : kSections)
    RETURN_IF_ERROR(writer.Add(name, Bytes(Content(name, size))));
  return {};
}

void ExpectSections(const PreparedFile& file) {
  for (const auto& [name, size] : kSections) {
    const auto bytes = file.Find(name);
    ASSERT_TRUE(bytes) << name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes->data()) % kPreparedAlignment, 0u);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()),
              Content(name, size));
  }
  EXPECT_FALSE(file.Find("another"));
  EXPECT_TRUE(file.Verify(kNeverStop));
}

class PreparedFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "perdure-prepared-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  PreparedFolder Folder(uint64_t bytes_max = 0) const {
    return {.dir = dir_ / "prepared", .bytes_max = bytes_max, .weights_bytes_min = 0};
  }
  fs::path Path(const std::string& name) const { return Folder().dir / name; }
  Result<PreparedFile> Prepare(const std::string& name, const PreparedFolder& folder) const {
    return OpenOrPrepare(folder, name, kFingerprint, 0, WriteSections, [] {});
  }
  // Returns its bytes.
  std::string Make(const std::string& name) const {
    EXPECT_TRUE(Prepare(name, Folder()));
    return *ReadFile(Path(name), size_t{1} << 30);
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(Folder().dir))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  uint64_t BytesOnDisk(const std::string& name) const {
    const UniqueFd fd(open(Path(name).c_str(), O_RDONLY | O_CLOEXEC));
    struct stat st {};
    EXPECT_TRUE(fd && fsync(fd.get()) == 0 && fstat(fd.get(), &st) == 0) << name;
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  // When it was last used, in seconds.
  void SetLastUse(const std::string& name, time_t seconds) const {
    const timespec times[2] = {{seconds, 0}, {seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, Path(name).c_str(), times, 0), 0);
  }
  fs::path dir_;
};

void Overwrite(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

TEST_F(PreparedFileTest, HoldsWhatWasWritten) {
  int made = 0;
  for (int i = 0; i < 3; ++i) {
    const auto file = OpenOrPrepare(
        Folder(), "a.weights", kFingerprint, 0,
        [&](PreparedWriter& writer) {
          ++made;
          return WriteSections(writer);
        },
        [] {});
    ASSERT_TRUE(file) << file.error().message;
    uint64_t populated = 0;
    EXPECT_TRUE(file->Populate([&](uint64_t bytes) { populated += bytes; }));
    EXPECT_EQ(populated, file->bytes());
    ExpectSections(*file);
  }
  EXPECT_EQ(made, 1);
  EXPECT_THAT(Names(), ElementsAre("a.weights"));
  EXPECT_EQ(fs::status(Folder().dir).permissions(), fs::perms::owner_all);
}

TEST_F(PreparedFileTest, LayoutIsThisOne) {
  const std::string bytes = Make("a.weights");
  // The header's fields, as docs/prepared_weights.md has them.
  const auto u32 = [&](size_t at) { return *reinterpret_cast<const uint32_t*>(&bytes[at]); };
  const auto u64 = [&](size_t at) { return *reinterpret_cast<const uint64_t*>(&bytes[at]); };
  EXPECT_EQ(bytes.substr(0, 8), "PRDPREP\n");
  EXPECT_EQ(u32(8), 1u);
  EXPECT_EQ(u32(12), kSections.size());
  EXPECT_EQ(u64(16), kFingerprint);
  EXPECT_EQ(u64(24), bytes.size());
  const size_t table = u64(32);
  EXPECT_EQ(table, 4096u * 6);  // the header's page, the empty section's none
  EXPECT_EQ(u64(40), Hash64(bytes.substr(table)));
  EXPECT_EQ(u64(48), 0u);
  EXPECT_EQ(u64(56), Hash64(bytes.substr(0, 56)));
  EXPECT_EQ(u64(table), 4096u);
  EXPECT_EQ(u64(table + 8), 1u);
  EXPECT_EQ(u64(table + 16), Hash64(Content("one", 1)));
  EXPECT_EQ(u32(table + 24), 3u);
  EXPECT_EQ(u32(table + 28), 0u);
  EXPECT_EQ(bytes.substr(table + 32, 3), "one");
  // XXH3's value of nothing, as its own tests have it.
  EXPECT_EQ(Hash64(std::string_view()), 0x2D06800538D394C2u);
}

TEST_F(PreparedFileTest, EveryFlippedByteIsNoticed) {
  const std::string good = Make("a.weights");
  const size_t table = 4096 * 6;
  const fs::path path = Path("a.weights");
  std::string bad = good;
  const auto flip = [&](size_t at) {
    bad[at] ^= 1;
    Overwrite(path, bad);
    bad[at] ^= 1;
  };
  std::vector<size_t> places;
  for (size_t at = 0; at < sizeof(PreparedHeaderDisk); ++at) places.push_back(at);
  for (size_t at = table; at < good.size(); ++at) places.push_back(at);
  for (const size_t at : places) {
    flip(at);
    const auto file = PreparedFile::Open(path, kFingerprint);
    ASSERT_FALSE(file) << at;
    EXPECT_EQ(file.error().code, ErrorCode::io_error) << at;
  }
  size_t offset = 4096;
  for (const auto& [name, size] : kSections) {
    for (size_t at = 0; at < size; at += std::max<size_t>(size / 5, 1)) {
      flip(offset + at);
      const auto file = PreparedFile::Open(path, kFingerprint);
      ASSERT_TRUE(file);
      const Status verified = file->Verify(kNeverStop);
      ASSERT_FALSE(verified) << name << " " << at;
      EXPECT_THAT(verified.error().message, HasSubstr("the section " + name + " is damaged"));
    }
    offset += (size + 4095) / 4096 * 4096;
  }
}

TEST_F(PreparedFileTest, WrongLengthsAreNoticedAndRepaired) {
  const std::string good = Make("a.weights");
  for (const size_t size : {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{4095},
                            size_t{4096}, size_t{9000}, good.size() - 1, good.size() + 1}) {
    Overwrite(Path("a.weights"), good.substr(0, size) + std::string(size > good.size(), 'x'));
    EXPECT_FALSE(PreparedFile::Open(Path("a.weights"), kFingerprint)) << size;
    const auto file = Prepare("a.weights", Folder());
    ASSERT_TRUE(file) << file.error().message;
    ExpectSections(*file);
  }
}

TEST_F(PreparedFileTest, OfOtherInputsIsMadeAgain) {
  Make("a.weights");
  const auto other = PreparedFile::Open(Path("a.weights"), kFingerprint + 1);
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("have changed"));
  // The old one stays as it is for those who have it open.
  const auto old = PreparedFile::Open(Path("a.weights"), kFingerprint);
  const auto made = OpenOrPrepare(
      Folder(), "a.weights", kFingerprint + 1, 0,
      [](PreparedWriter& writer) { return writer.Add("x", Bytes("new")); }, [] {});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->Find("x")->size(), 3u);
  ExpectSections(*old);
}

TEST_F(PreparedFileTest, LinksAndFoldersAreNotOpened) {
  Make("a.weights");
  fs::create_symlink(Path("a.weights"), Path("b.weights"));
  EXPECT_FALSE(PreparedFile::Open(Path("b.weights"), kFingerprint));
  EXPECT_FALSE(PreparedFile::Open(Folder().dir, kFingerprint));
}

TEST_F(PreparedFileTest, FailedWritersLeaveNothing) {
  const auto failed = OpenOrPrepare(
      Folder(), "a.weights", kFingerprint, 0,
      [](PreparedWriter& writer) -> Status {
        RETURN_IF_ERROR(writer.Add("x", Bytes("1")));
        return Err(ErrorCode::bad_model, "no model");
      },
      [] {});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "no model");
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(PreparedFileTest, LongestUnusedFilesMakeRoom) {
  for (const char* name : {"a.weights", "b.weights", "c.tokenizer", "d.weights"}) Make(name);
  SetLastUse("a.weights", 400);
  SetLastUse("b.weights", 100);
  SetLastUse("c.tokenizer", 200);
  SetLastUse("d.weights", 300);
  Overwrite(Path("somebody's own"), std::string(100'000, 'x'));
  // What a file takes changes until it is on the disk.
  uint64_t each = 0;
  for (const char* name : {"a.weights", "b.weights", "c.tokenizer", "d.weights"})
    each = std::max(each, BytesOnDisk(name));
  auto used = PreparedFile::Open(Path("b.weights"), kFingerprint);
  SetLastUse("b.weights", 100);
  TrimPreparedFolder(Folder(3 * each), 0, "e.weights");
  EXPECT_THAT(Names(), ElementsAre("a.weights", "b.weights", "d.weights", "somebody's own"));
  TrimPreparedFolder(Folder(3 * each), 2 * each, "a.weights");
  EXPECT_THAT(Names(), ElementsAre("a.weights", "b.weights", "somebody's own"));
  TrimPreparedFolder(Folder(1), 0, "e.weights");
  EXPECT_THAT(Names(), ElementsAre("b.weights", "somebody's own"));
  used = Err(ErrorCode::internal, "");
  TrimPreparedFolder(Folder(1), 0, "e.weights");
  EXPECT_THAT(Names(), ElementsAre("somebody's own"));
}

TEST_F(PreparedFileTest, OnlyLeftTemporaryFilesAreRemoved) {
  fs::create_directory(Folder().dir);
  const auto writer = PreparedWriter::TryCreate(Path("a.weights"), 1 << 20);
  ASSERT_TRUE(writer && *writer);
  Overwrite(Path("b.weights.tmp"), "left by somebody who was killed");
  TrimPreparedFolder(Folder(1), 0, "");
  EXPECT_THAT(Names(), ElementsAre("a.weights.tmp"));
  const auto second = PreparedWriter::TryCreate(Path("a.weights"), 1 << 20);
  ASSERT_TRUE(second);
  EXPECT_FALSE(*second);  // it is being written
}

TEST_F(PreparedFileTest, MoreThanTheBoundIsRefused) {
  const auto file = Prepare("a.weights", Folder(5000));
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::io_error);
  EXPECT_THAT(file.error().message, HasSubstr("prepared_weights_max"));
  EXPECT_THAT(Names(), IsEmpty());
}

template <class Fn>
pid_t Fork(Fn&& fn) {
  const pid_t pid = fork();
  if (pid == 0) _exit(fn());
  return pid;
}
int ExitOf(pid_t pid) {
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

TEST_F(PreparedFileTest, FullDiskIsAnError) {
  for (const rlim_t limit : {0, 100, 4096, 9000, 20'000}) {
    EXPECT_EQ(ExitOf(Fork([&] {
                signal(SIGXFSZ, SIG_IGN);
                const rlimit most{limit, limit};
                if (setrlimit(RLIMIT_FSIZE, &most) != 0) return 1;
                const auto file = Prepare("a.weights", Folder());
                return !file && file.error().code == ErrorCode::io_error ? 0 : 2;
              })),
              0)
        << limit;
    EXPECT_THAT(Names(), IsEmpty());
  }
}

TEST_F(PreparedFileTest, OneOfManyProcessesWrites) {
  int made[2];
  ASSERT_EQ(pipe(made), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 8; ++i)
    children.push_back(Fork([&] {
      const auto file = OpenOrPrepare(
          Folder(), "a.weights", kFingerprint, 0,
          [&](PreparedWriter& writer) {
            if (write(made[1], "x", 1) != 1) abort();
            return WriteSections(writer);
          },
          [] {});
      if (!file) ADD_FAILURE() << file.error().message;
      return file && file->Verify(kNeverStop) ? 0 : 1;
    }));
  for (const pid_t pid : children) EXPECT_EQ(ExitOf(pid), 0);
  close(made[1]);
  char notes[16];
  EXPECT_EQ(read(made[0], notes, sizeof notes), 1);
  close(made[0]);
  EXPECT_THAT(Names(), ElementsAre("a.weights"));
}

TEST_F(PreparedFileTest, WriterThatStandsStillIsNotWaitedForForever) {
  fs::create_directory(Folder().dir);
  const auto writer = PreparedWriter::TryCreate(Path("a.weights"), 1 << 20);
  ASSERT_TRUE(writer && *writer);
  PreparedFolder folder = Folder();
  folder.wait_ms = 50;
  const auto file = Prepare("a.weights", folder);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, HasSubstr("without getting on"));
}

// Killed at every stage: before, between and after the sections, and anywhere in what follows.
TEST_F(PreparedFileTest, KilledWritersLeaveAWholeFileOrNone) {
  for (size_t round = 0; round < 4 * kSections.size(); ++round) {
    fs::remove_all(Folder().dir);
    const size_t stage = round % (kSections.size() + 1);
    int notes[2];
    ASSERT_EQ(pipe(notes), 0);
    const pid_t child = Fork([&] {
      close(notes[0]);
      const auto file = OpenOrPrepare(
          Folder(), "a.weights", kFingerprint, 0,
          [&](PreparedWriter& writer) -> Status {
            for (const auto& [name, size] : kSections) {
              if (write(notes[1], "x", 1) != 1) abort();
              RETURN_IF_ERROR(writer.Add(name, Bytes(Content(name, size))));
            }
            if (write(notes[1], "x", 1) != 1) abort();
            return {};
          },
          [] {});
      return file ? 0 : 1;
    });
    close(notes[1]);
    char note;
    for (size_t i = 0; i <= stage; ++i) ASSERT_EQ(read(notes[0], &note, 1), 1);
    kill(child, SIGKILL);
    const int ended = ExitOf(child);
    EXPECT_TRUE(ended == -SIGKILL || ended == 0) << ended;
    close(notes[0]);
    if (const auto left = PreparedFile::Open(Path("a.weights"), kFingerprint)) {
      ExpectSections(*left);
    } else {
      EXPECT_EQ(left.error().code, ErrorCode::not_found);
    }
    const auto file = Prepare("a.weights", Folder());
    ASSERT_TRUE(file) << file.error().message;
    ExpectSections(*file);
    EXPECT_THAT(Names(), ElementsAre("a.weights"));
  }
}

TEST_F(PreparedFileTest, FingerprintsFollowTheFile) {
  Overwrite(dir_ / "x", "1");
  const uint64_t first = FileFingerprint(dir_ / "x");
  EXPECT_EQ(FileFingerprint(dir_ / "x"), first);
  EXPECT_NE(first, 0u);
  Overwrite(dir_ / "x", "12");
  EXPECT_NE(FileFingerprint(dir_ / "x"), first);
  EXPECT_EQ(FileFingerprint(dir_ / "missing"), 0u);
  // However the folder is reached.
  fs::create_directory(dir_ / "model");
  fs::create_directory_symlink(dir_ / "model", dir_ / "link");
  EXPECT_EQ(PreparedName(dir_ / "model", "weights"), PreparedName(dir_ / "link", "weights"));
  EXPECT_EQ(PreparedName(dir_ / "model", "weights"), PreparedName(dir_ / "./model/", "weights"));
  EXPECT_THAT(PreparedName(dir_ / ".a b\n", "weights"), testing::StartsWith("_a_b_-"));
}

}  // namespace
}  // namespace perdure
