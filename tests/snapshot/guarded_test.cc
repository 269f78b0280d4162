#include "snapshot/guarded.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "base/unique_fd.h"

namespace perdure::snapshot {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

// A page of a file that is too short for it.
class Unreadable {
 public:
  Unreadable() : fd_(memfd_create("unreadable", MFD_CLOEXEC)) {
    page_ = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd_.get(), 0);
  }
  ~Unreadable() { munmap(page_, 4096); }
  char Read() const { return *static_cast<const volatile char*>(page_); }

 private:
  const UniqueFd fd_;
  void* page_;
};

// Not null: of that compilers know what it does.
char ReadNowhere() { return *reinterpret_cast<const volatile char*>(uintptr_t{0x1000}); }

TEST(Guarded, GivesBackWhatHappened) {
  InstallGuard();
  InstallGuard();
  const Unreadable unreadable;
  for (int i = 0; i < 3; ++i) {
    bool is_done = false;
    auto good = [&] { is_done = true; };
    EXPECT_EQ(Guarded(good), GuardEnd::kReturned);
    EXPECT_TRUE(is_done);
    auto reads = [&] { (void)unreadable.Read(); };
    EXPECT_EQ(Guarded(reads), GuardEnd::kUnreadable);
    auto strays = [&] { (void)ReadNowhere(); };
    EXPECT_EQ(Guarded(strays), GuardEnd::kAstray);
    auto leaves = [&] {
      LeaveGuard();
      ADD_FAILURE();
    };
    EXPECT_EQ(Guarded(leaves), GuardEnd::kLeft);
    LeaveGuard();
  }
  // The signals are not blocked afterwards.
  sigset_t blocked;
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, nullptr, &blocked), 0);
  EXPECT_FALSE(sigismember(&blocked, SIGBUS));
  EXPECT_FALSE(sigismember(&blocked, SIGSEGV));
}

TEST(Guarded, EachThreadHasItsOwn) {
  InstallGuard();
  const Unreadable unreadable;
  auto outer = [&] {
    std::thread([&] {
      auto reads = [&] { (void)unreadable.Read(); };
      EXPECT_EQ(Guarded(reads), GuardEnd::kUnreadable);
    }).join();
  };
  EXPECT_EQ(Guarded(outer), GuardEnd::kReturned);
}

// Each in a process of its own that has not installed the guard yet.
class GuardedDeathTest : public testing::Test {
 protected:
  GuardedDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

template <class Run>
void ExpectDeath(const Run& run, int signal) {
  if (kIsSanitized)
    EXPECT_DEATH(run(), "Sanitizer");
  else
    EXPECT_EXIT(run(), testing::KilledBySignal(signal), "");
}

TEST_F(GuardedDeathTest, OutsideOfItTheProcessDiesAsBefore) {
  ExpectDeath(
      [] {
        InstallGuard();
        const Unreadable unreadable;
        auto reads = [&] { (void)unreadable.Read(); };
        if (Guarded(reads) == GuardEnd::kUnreadable) (void)unreadable.Read();
      },
      SIGBUS);
  ExpectDeath(
      [] {
        InstallGuard();
        (void)ReadNowhere();
      },
      SIGSEGV);
}

TEST_F(GuardedDeathTest, SignalsThatSomebodySendsAreNoFaults) {
  ExpectDeath(
      [] {
        InstallGuard();
        raise(SIGBUS);
      },
      SIGBUS);
  ExpectDeath(
      [] {
        InstallGuard();
        auto sends = [] { raise(SIGSEGV); };
        (void)Guarded(sends);
      },
      SIGSEGV);
}

TEST_F(GuardedDeathTest, AnEarlierHandlerIsAsked) {
  EXPECT_EXIT(
      {
        signal(SIGBUS, [](int) { _exit(7); });
        InstallGuard();
        (void)Unreadable().Read();
      },
      testing::ExitedWithCode(7), "");
  EXPECT_EXIT(
      {
        struct sigaction action {};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t* info, void*) {
          _exit(info->si_code == SEGV_MAPERR ? 8 : 9);
        };
        sigaction(SIGSEGV, &action, nullptr);
        InstallGuard();
        (void)ReadNowhere();
      },
      testing::ExitedWithCode(8), "");
  EXPECT_EXIT(
      {
        signal(SIGBUS, SIG_IGN);
        InstallGuard();
        raise(SIGBUS);
        _exit(6);
      },
      testing::ExitedWithCode(6), "");
}

}  // namespace
}  // namespace perdure::snapshot
