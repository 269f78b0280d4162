// The small parts: log lines, figures of /proc, the lock, the event loop, starting
// programs.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <random>

#include "base/folder_lock.h"
#include "base/limits.h"
#include "supervisor/event_loop.h"
#include "supervisor/log_tail.h"
#include "supervisor/proc.h"
#include "supervisor/report.h"
#include "supervisor/spawn.h"

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-parts-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~FolderTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  fs::path folder_;
};

TEST(LogTail, CutsLinesAndKeepsTheLast) {
  LogTail tail;
  EXPECT_THAT(tail.Append("one\ntwo\nthr"), ElementsAre("one\n", "two\n"));
  EXPECT_THAT(tail.Append("ee\n\n"), ElementsAre("three\n"));
  EXPECT_THAT(tail.Append("rest"), ElementsAre());
  EXPECT_EQ(tail.Finish(), "rest\n");
  EXPECT_EQ(tail.Finish(), "");
  EXPECT_THAT(tail.lines(), ElementsAre("one", "two", "three", "rest"));
}

TEST(LogTail, IsBoundedWhateverComes) {
  LogTail tail;
  std::mt19937_64 random(3);
  size_t in = 0, out = 0;
  for (int i = 0; i < 300; ++i) {
    std::string bytes(random() % 20'000, 'x');
    for (size_t n = random() % 3; n > 0 && !bytes.empty(); --n)
      bytes[random() % bytes.size()] = '\n';
    for (const char c : bytes) in += c != '\n';
    for (const std::string& line : tail.Append(bytes)) {
      EXPECT_LE(line.size(), limits::kLogLineBytesMax + 1);
      EXPECT_EQ(line.back(), '\n');
      out += line.size() - 1;
    }
  }
  const std::string rest = tail.Finish();
  if (!rest.empty()) out += rest.size() - 1;
  EXPECT_EQ(in, out) << "nothing is lost";
  EXPECT_LE(tail.lines().size(), limits::kObituaryLines);
  for (const std::string& line : tail.lines())
    EXPECT_LE(line.size(), limits::kObituaryLineBytesMax);
}

TEST(Proc, ReadsItsOwnFigures) {
  const auto memory = ReadMemoryUse(getpid());
  ASSERT_TRUE(memory.has_value());
  EXPECT_GT(memory->rss_bytes, 100'000u);
  EXPECT_LE(memory->shared_bytes, memory->rss_bytes);
  EXPECT_TRUE(ReadMajorFaults(getpid()).has_value());
  EXPECT_FALSE(ReadMemoryUse(1 << 30).has_value());
  EXPECT_FALSE(ReadMajorFaults(1 << 30).has_value());
}

TEST(Proc, StatWithAnyName) {
  EXPECT_EQ(MajorFaultsFromStat("12 (a) R 1 2 3 4 5 6 7 8 99 10"), 99u);
  EXPECT_EQ(MajorFaultsFromStat("12 (a) b (c)) S 1 2 3 4 5 6 7 8 99 10"), 99u);
  for (const char* text : {"", "12", "12 (a", "12 (a) R 1 2 3", "12 (a) R 1 2 3 4 5 6 7 8 x 1"})
    EXPECT_FALSE(MajorFaultsFromStat(text).has_value()) << text;
}

TEST_F(FolderTest, TheLockNamesItsHolder) {
  auto lock = LockFolder(folder_, "--runtime-dir");
  ASSERT_TRUE(lock.has_value());
  const auto second = LockFolder(folder_, "--runtime-dir");
  ASSERT_FALSE(second.has_value());
  EXPECT_THAT(second.error().message, HasSubstr("process " + std::to_string(getpid())));
  lock->reset();
  EXPECT_TRUE(LockFolder(folder_, "--runtime-dir").has_value());
}

TEST(EventLoop, AHandlerMayRemoveAnyWatch) {
  auto loop = EventLoop::Create();
  ASSERT_TRUE(loop.has_value());
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  const UniqueFd a(fds[0]), b(fds[1]);
  // Both are writable at once: whichever comes first ends both.
  EventLoop::Token first = 0, second = 0;
  int calls = 0;
  const auto handler = [&](uint32_t) {
    ++calls;
    loop->Remove(first);
    loop->Remove(second);
  };
  first = *loop->Add(a.get(), EPOLLOUT, handler);
  second = *loop->Add(b.get(), EPOLLOUT, handler);
  loop->Wait(1000);
  EXPECT_EQ(calls, 1);
  loop->Wait(0);
  EXPECT_EQ(calls, 1);
  loop->Remove(first);  // again: no effect
}

struct Ran {
  std::string output;
  int status = 0;
};

Ran RunProgram(SpawnRequest request) {
  int fds[2];
  EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd out(fds[0]);
  UniqueFd in(fds[1]);
  request.output_fd = in.get();
  auto process = Spawn(request);
  EXPECT_TRUE(process.has_value());
  in.reset();
  Ran ran;
  char buffer[4096];
  for (ssize_t n; (n = read(out.get(), buffer, sizeof buffer)) > 0;)
    ran.output.append(buffer, static_cast<size_t>(n));
  waitpid(process->pid, &ran.status, 0);
  return ran;
}

TEST(Spawn, PassesOnWhatIsNamedAndNothingElse) {
  const UniqueFd leak(open("/dev/null", O_RDONLY));  // not close-on-exec
  const UniqueFd kept(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  SpawnRequest request;
  request.program = "/bin/sh";
  request.arguments = {"sh", "-c", "for f in /proc/$$/fd/*; do echo ${f##*/}=$(readlink $f); done"};
  request.inherited_fds = {kept.get()};
  const Ran ran = RunProgram(request);
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_THAT(ran.output, HasSubstr("0=/dev/null"));
  EXPECT_THAT(ran.output, HasSubstr(std::to_string(kept.get()) + "=/dev/zero"));
  EXPECT_THAT(ran.output, testing::Not(HasSubstr(std::to_string(leak.get()) + "=/dev/null\n")));
}

TEST(Spawn, SignalsAreAsInANewProgram) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_BLOCK, &blocked, &before);
  signal(SIGPIPE, SIG_IGN);
  SpawnRequest request;
  request.program = "/bin/grep";
  request.arguments = {"grep", "-E", "SigBlk|SigIgn", "/proc/self/status"};
  const Ran ran = RunProgram(request);
  signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(ran.output, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(ran.output, HasSubstr("SigIgn:\t0000000000000000"));
}

TEST(Spawn, AProgramThatCannotBeStartedSaysSo) {
  SpawnRequest request;
  request.program = "/nonexistent/program";
  request.arguments = {"program"};
  const Ran ran = RunProgram(request);
  EXPECT_EQ(WEXITSTATUS(ran.status), 111);
  EXPECT_EQ(ran.output, "cannot start /nonexistent/program: No such file or directory\n");
}

TEST(Spawn, AdoptedProcessesDoNotStayAsZombies) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const auto child = [] {
    const pid_t pid = fork();
    if (pid == 0) _exit(7);
    return pid;
  };
  const pid_t parent = fork();
  if (parent == 0) {
    child();
    child();
    _exit(0);
  }
  ASSERT_EQ(waitpid(parent, nullptr, 0), parent);
  const pid_t own = child();
  const int known[] = {0, own};
  int found = 0;
  for (int i = 0; i < 500 && found < 2; ++i, usleep(10'000)) found += ReapAdopted(known);
  int status = 0;
  EXPECT_EQ(waitpid(own, &status, 0), own) << "its owner learns how it ended";
  EXPECT_EQ(WEXITSTATUS(status), 7);
  found += ReapAdopted(known);
  EXPECT_EQ(found, 2);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "nobody is left";
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

TEST(ControlLine, IsAnObjectWithAnOp) {
  EXPECT_EQ(ParseControlLine("{\"op\":\"ps\"}")->op, "ps");
  EXPECT_EQ(ParseControlLine("{\"op\":\"ps\",\"more\":[1]}")->op, "ps");
  EXPECT_FALSE(ParseControlLine("{\"op\":\"ps\"}")->model);
  EXPECT_EQ(ParseControlLine("{\"op\":\"reload\",\"model\":\"m\"}")->model, "m");
  EXPECT_FALSE(ParseControlLine("{\"op\":\"reload\",\"model\":7}"));
  for (const char* line : {"", "{}", "[]", "{\"op\":1}", "{\"op\":\"ps\"} x"})
    EXPECT_FALSE(ParseControlLine(line).has_value()) << line;
}

TEST(AdminReport, NamesAnAddressThatCanBeReached) {
  struct Row {
    const char* address;
    const char* url;
  };
  for (const Row& row :
       {Row{"127.0.0.1", "http://127.0.0.1:80"}, Row{"0.0.0.0", "http://127.0.0.1:80"},
        Row{"::", "http://[::1]:80"}, Row{"10.0.0.7", "http://10.0.0.7:80"}}) {
    Listener listener;
    listener.address = row.address;
    listener.port = 80;
    EXPECT_EQ(AdminReport(listener, "t"),
              std::string("{\"url\":\"") + row.url + "\",\"admin_token\":\"t\"}");
  }
}

}  // namespace
}  // namespace perdure::supervisor
