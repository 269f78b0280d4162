// kill -9 at any moment: the file opens, and what was said to be stored is there.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>

#include "base/unique_fd.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

constexpr int kRounds = 30;
constexpr uint64_t kConversations = 3;

StoredTurn TurnOf(uint64_t conversation, uint32_t turn) {
  StoredTurn whole = FirstTurn(conversation * 1'000'000 + 1);
  for (uint32_t i = 2; i <= turn; ++i) whole = NextTurn(whole, conversation * 1'000'000 + i);
  return whole;
}

std::string IdOf(uint64_t conversation) { return "c" + std::to_string(conversation); }

// Goes on with each conversation in turn, and says so with its number, until it is killed.
[[noreturn]] void Commit(const std::filesystem::path& path, int said) {
  auto file = OpenTurns(path, true);
  if (file == nullptr) _exit(1);
  StoredTurn last[kConversations];
  uint32_t turns[kConversations] = {};
  for (const StoredConversation& found : file->TakeConversations()) {
    const uint64_t conversation = static_cast<uint64_t>(found.id[1] - '0');
    turns[conversation] = found.turns;
    last[conversation] = *file->Load(1, found.id);
  }
  for (uint64_t i = 0;; ++i) {
    const uint64_t c = i % kConversations;
    const uint64_t rid = c * 1'000'000 + ++turns[c];
    last[c] = turns[c] == 1 ? FirstTurn(rid) : NextTurn(last[c], rid);
    if (!file->Commit({1, IdOf(c), true, ""}, last[c])) _exit(2);
    const char number = static_cast<char>(c);
    if (write(said, &number, 1) != 1) _exit(3);
  }
}

TEST(TurnFileCrash, WhatWasAcknowledgedIsThere) {
  TempFolder folder;
  const std::filesystem::path path = folder.path() / "turns.mdb";
  std::mt19937 random(1);
  uint32_t acknowledged[kConversations] = {};
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) Commit(path, ends[1]);
    close(ends[1]);
    const UniqueFd heard(ends[0]);
    // It is killed while it does what comes after so many, wherever that is.
    for (uint32_t left = 1 + random() % 8; left > 0; --left) {
      char number = 0;
      ASSERT_EQ(read(heard.get(), &number, 1), 1) << "the child has ended";
      ++acknowledged[static_cast<size_t>(number)];
    }
    usleep(random() % 2000);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
    for (char number = 0; read(heard.get(), &number, 1) == 1;)
      ++acknowledged[static_cast<size_t>(number)];

    auto file = OpenTurns(path);
    ASSERT_NE(file, nullptr);
    EXPECT_EQ(file->problems(), std::vector<std::string>{});
    for (const StoredConversation& found : file->TakeConversations()) {
      const uint64_t c = static_cast<uint64_t>(found.id[1] - '0');
      // The last one may have been stored and not said.
      ASSERT_GE(found.turns, acknowledged[c]);
      ASSERT_LE(found.turns, acknowledged[c] + 1);
      acknowledged[c] = found.turns;
      const auto last = file->Load(1, found.id);
      ASSERT_TRUE(last.has_value()) << last.error().message;
      ASSERT_TRUE(Same(*last, TurnOf(c, found.turns)));
    }
    for (uint64_t c = 0; c < kConversations; ++c)
      ASSERT_EQ(file->Load(1, IdOf(c)).has_value(), acknowledged[c] > 0);
  }
}

}  // namespace
}  // namespace perdure::snapshot
