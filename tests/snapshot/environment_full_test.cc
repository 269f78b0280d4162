// Files and disks that are full, and disks that fail.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <cerrno>

#include "base/limits.h"
#include "snapshot/environment.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/failing_disk.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;
using Failure = Environment::Failure;

const std::string kLarge(60'000, 'l');

std::string Number(int i) { return fmt::format("{:06}", i); }

// Puts one after another until that fails; how many.
int Fill(Environment* environment, const std::string& value) {
  for (int i = 0;; ++i)
    if (!PutAll(environment, {{Number(i), value}})) return i;
}

Status Delete(Environment* environment, int from, int to) {
  return environment->Write([&](Transaction& transaction) -> Status {
    for (int i = from; i < to; ++i)
      RETURN_IF_ERROR(transaction.Delete(environment->database(0), Number(i)));
    return {};
  });
}

TEST(FullFile, IsToldAndGoesOn) {
  for (const size_t bytes : {kLarge.size(), size_t{3000}, size_t{1000}}) {
    SCOPED_TRACE(bytes);
    const TempFolder folder;
    EnvironmentOptions options = EnvironmentAt(folder.path() / "kv.mdb");
    options.bytes_max = 512 << 10;
    auto environment = OpenEnvironment(options);
    const std::string value(bytes, 'v');
    const int filled = Fill(environment.get(), value);
    EXPECT_EQ(environment->last_failure(), Failure::kFull);
    EXPECT_FALSE(environment->is_broken());
    EXPECT_GT(static_cast<size_t>(filled) * bytes, size_t{180} << 10);
    EXPECT_LE(environment->file_bytes(),
              options.bytes_max + limits::kSnapshotReserveBytes / 2 + (1 << 16));
    EXPECT_EQ(GetAll(environment.get())->size(), static_cast<size_t>(filled));
    // One out, one in, as often as one likes; the file grows no further.
    for (int i = 0; i < 40; ++i) {
      const Status deleted = Delete(environment.get(), i % filled, i % filled + 1);
      ASSERT_TRUE(deleted.has_value()) << i << deleted.error().message;
      const Status put = PutAll(environment.get(), {{Number(i % filled), value}});
      ASSERT_TRUE(put.has_value()) << i << put.error().message;
    }
    // In the place of what is there: always.
    for (int i = 0; i < 40; ++i)
      ASSERT_TRUE(PutAll(environment.get(), {{Number(i % filled), value}}).has_value());
    EXPECT_LE(environment->file_bytes(), options.bytes_max + limits::kSnapshotReserveBytes);
    ASSERT_TRUE(Delete(environment.get(), 0, filled).has_value());
    EXPECT_EQ(environment->last_failure(), Failure::kNone);
    EXPECT_GE(Fill(environment.get(), value), filled * 9 / 10);
    environment.reset();
    environment = OpenEnvironment(options);
    EXPECT_GE(GetAll(environment.get())->size(), static_cast<size_t>(filled) * 9 / 10);
  }
}

TEST(FullFile, MayHaveBecomeTooLarge) {
  const TempFolder folder;
  EnvironmentOptions options = EnvironmentAt(folder.path() / "kv.mdb");
  auto environment = OpenEnvironment(options);
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(PutAll(environment.get(), {{Number(i), kLarge}}).has_value());
  environment.reset();
  options.bytes_max = 1 << 20;
  environment = OpenEnvironment(options);
  ASSERT_NE(environment, nullptr);
  EXPECT_EQ(GetAll(environment.get())->size(), 100u);
  EXPECT_FALSE(PutAll(environment.get(), {{"more", kLarge}}).has_value());
  EXPECT_EQ(environment->last_failure(), Failure::kFull);
  ASSERT_TRUE(Delete(environment.get(), 0, 95).has_value());
  EXPECT_TRUE(PutAll(environment.get(), {{"more", kLarge}}).has_value());
  EXPECT_TRUE(environment->Compact().has_value());
  EXPECT_LE(environment->file_bytes(), options.bytes_max);
}

// --- At every write ------------------------------------------------------------------------------

class FailingDiskTest : public testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  int error() const { return std::get<0>(GetParam()); }
  const TempFolder folder_;
  const fs::path path_ = folder_.path() / "kv.mdb";
  const EnvironmentOptions options_ = EnvironmentAt(path_, std::get<1>(GetParam()));
};

// 0: a write is cut short.
INSTANTIATE_TEST_SUITE_P(Errors, FailingDiskTest,
                         testing::Combine(testing::Values(ENOSPC, EDQUOT, EIO, 0),
                                          testing::Bool()));

TEST_P(FailingDiskTest, ACommitIsDoneOrUndone) {
  auto environment = OpenEnvironment(options_);
  Content content;
  for (int i = 0; i < 50; ++i) content[Number(i)] = std::string(1000, 'o');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  Content changes;
  for (int i = 0; i < 50; i += 3) changes[Number(i)] = std::string(9000, 'n');
  bool has_failed = true;
  for (size_t at = 0; has_failed; ++at) {
    ASSERT_LT(at, 100u);
    {
      const FailingDisk disk(at, error());
      const Status status = PutAll(environment.get(), changes);
      has_failed = !status.has_value();
      if (has_failed) {
        EXPECT_EQ(environment->last_failure(),
                  error() == ENOSPC || error() == EDQUOT ? Failure::kFull : Failure::kDisk)
            << status.error().message;
        EXPECT_EQ(status.error().code, ErrorCode::io_error);
      } else {
        for (const auto& [key, value] : changes) content[key] = value;
      }
    }
    ASSERT_FALSE(environment->is_broken());
    auto now = GetAll(environment.get());
    ASSERT_TRUE(now.has_value()) << now.error().message;
    EXPECT_EQ(*now, content);
    // And the next one succeeds.
    const Content next = {{"next", Number(static_cast<int>(at))}};
    const Status written = PutAll(environment.get(), next);
    ASSERT_TRUE(written.has_value()) << at << written.error().message;
    content["next"] = next.at("next");
    environment.reset();
    environment = OpenEnvironment(options_);
    EXPECT_EQ(*GetAll(environment.get()), content);
  }
  EXPECT_TRUE(PutAsideOf(path_).empty());
}

TEST_P(FailingDiskTest, ANewFileIsBegunOrNot) {
  bool has_failed = true;
  for (size_t at = 0; has_failed; ++at) {
    ASSERT_LT(at, 100u);
    {
      const FailingDisk disk(at, error());
      has_failed = !Environment::Open(options_, {"a", "b"}).has_value();
    }
    const auto environment = OpenEnvironment(options_);
    EXPECT_TRUE(PutAll(environment.get(), {{"one", "1"}}).has_value());
    EXPECT_TRUE(PutAsideOf(path_).empty());
    fs::remove(path_);
  }
}

TEST_P(FailingDiskTest, ACompactionIsDoneOrUndone) {
  auto environment = OpenEnvironment(options_);
  Content content;
  for (int i = 0; i < 200; ++i) content[Number(i)] = std::string(3000, 'o');
  ASSERT_TRUE(PutAll(environment.get(), content).has_value());
  bool has_failed = true;
  for (size_t at = 0; has_failed; ++at) {
    ASSERT_LT(at, 100u);
    {
      const FailingDisk disk(at, error());
      has_failed = !environment->Compact().has_value();
    }
    EXPECT_FALSE(fs::exists(path_.string() + ".compact"));
    ASSERT_FALSE(environment->is_broken());
    EXPECT_EQ(*GetAll(environment.get()), content);
    EXPECT_TRUE(PutAll(environment.get(), {{"next", "1"}}).has_value());
    content["next"] = "1";
  }
}

// --- Full disks that are none of a test's making -------------------------------------------------

void ExpectToFillAndGoOn(const fs::path& path) {
  auto environment = OpenEnvironment(EnvironmentAt(path));
  ASSERT_NE(environment, nullptr);
  const int filled = Fill(environment.get(), kLarge);
  EXPECT_GT(filled, 5);
  EXPECT_EQ(environment->last_failure(), Failure::kFull);
  auto content = GetAll(environment.get());
  ASSERT_TRUE(content.has_value());
  EXPECT_EQ(content->size(), static_cast<size_t>(filled));
  EXPECT_FALSE(environment->Compact().has_value());
  EXPECT_EQ(environment->last_failure(), Failure::kFull);
  EXPECT_TRUE(Delete(environment.get(), 0, 3).has_value());
  EXPECT_TRUE(Delete(environment.get(), 3, 4).has_value());
  EXPECT_TRUE(Delete(environment.get(), 4, 5).has_value());
  EXPECT_TRUE(PutAll(environment.get(), {{"next", kLarge}}).has_value());
  environment.reset();
  environment = OpenEnvironment(EnvironmentAt(path));
  ASSERT_NE(environment, nullptr);
  EXPECT_EQ(GetAll(environment.get())->size(), static_cast<size_t>(filled) - 4);
  EXPECT_TRUE(PutAsideOf(path).empty());
}

TEST(FullDisk, IsToldAndGoesOn) {
  const TempFolder folder;
  if (mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=2m") != 0)
    GTEST_SKIP() << "no file system can be mounted here";
  ExpectToFillAndGoOn(folder.path() / "kv.mdb");
  EXPECT_EQ(umount2(folder.path().c_str(), MNT_DETACH), 0);
}

TEST(FullDisk, LimitsOfFilesAreAsGood) {
  const TempFolder folder;
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 2 << 20;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    auto environment = OpenEnvironment(EnvironmentAt(folder.path() / "kv.mdb"));
    EXPECT_GT(Fill(environment.get(), kLarge), 5);
    EXPECT_EQ(environment->last_failure(), Failure::kFull);
    EXPECT_TRUE(Delete(environment.get(), 0, 3).has_value());
    EXPECT_TRUE(Delete(environment.get(), 3, 6).has_value());
    EXPECT_TRUE(PutAll(environment.get(), {{"next", "1"}}).has_value());
  }
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
}

}  // namespace
}  // namespace perdure::snapshot
