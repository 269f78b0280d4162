#include "protocol/heritage.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "protocol/codec.h"

namespace perdure::protocol {
namespace {

int MemoryFile(const std::string& bytes) {
  const int fd = memfd_create("test", 0);
  EXPECT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  return fd;
}

Result<Heritage> Read(int fd) { return ReadHeritage(fmt::format("--heritage={}", fd).c_str()); }

TEST(Heritage, SurvivesTheMemoryFile) {
  const UniqueFd control(MemoryFile("")), status(MemoryFile("")), channel(MemoryFile(""));
  Heritage heritage;
  heritage.instance = "abc";
  heritage.supervisor_pid = getpid();
  heritage.control_fd = control.get();
  heritage.status_fd = status.get();
  heritage.worker = WorkerHeritage{};
  heritage.worker->model_dir = "/some/where";
  heritage.worker->channel_fd = channel.get();
  const auto fd = WriteHeritage(heritage);
  ASSERT_TRUE(fd.has_value());
  EXPECT_EQ(fcntl(*fd, F_GETFD) & FD_CLOEXEC, 0);
  const auto read = Read(*fd);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(Encode(*read), Encode(heritage));
  EXPECT_EQ(fcntl(*fd, F_GETFD), -1) << "ReadHeritage closes it";
  for (const int inherited : {control.get(), status.get(), channel.get()})
    EXPECT_NE(fcntl(inherited, F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Heritage, RefusesWhatIsNone) {
  for (const char* argument : {"", "--heritage", "--heritage=", "--heritage=x", "--heritage=3x",
                               "--heritage=-1", "--heritage=99999999999", "--help"})
    EXPECT_FALSE(ReadHeritage(argument).has_value()) << argument;
  EXPECT_FALSE(ReadHeritage(nullptr).has_value());
  EXPECT_FALSE(ReadHeritage("--heritage=1023").has_value());
  EXPECT_FALSE(Read(MemoryFile("")).has_value());
  EXPECT_FALSE(Read(MemoryFile("nonsense")).has_value());
  EXPECT_FALSE(Read(MemoryFile(std::string(limits::kHeritageBytesMax + 1, 'x'))).has_value());
}

TEST(Heritage, RefusesADescriptorThatIsNotOpen) {
  Heritage heritage;
  heritage.control_fd = 1023;
  const auto read = Read(*WriteHeritage(heritage));
  ASSERT_FALSE(read.has_value());
  EXPECT_NE(read.error().message.find("1023"), std::string::npos);
}

TEST(DieWithParent, ExitsWhereTheParentIsAnother) {
  const int child = fork();
  if (child == 0) {
    DieWithParent(1 << 30);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kExitSystem);
}

TEST(DieWithParent, EndsTheChildOfAParentThatDies) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const int parent = fork();
  if (parent == 0) {
    const int self = getpid();
    if (fork() == 0) {
      close(ends[0]);
      DieWithParent(self);
      if (write(ends[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(ends[1]);
    char byte;
    _exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);  // once the grandchild has asked for it
  }
  close(ends[1]);
  int status = 0;
  ASSERT_EQ(waitpid(parent, &status, 0), parent);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  // The pipe's last end closes when the grandchild is gone.
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
}

TEST(DieWithParent, IgnoresWhatIsSentToGroups) {
  const int self = getpid();
  const int child = fork();
  if (child == 0) {
    DieWithParent(self);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) raise(signal);
    _exit(7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

}  // namespace
}  // namespace perdure::protocol
