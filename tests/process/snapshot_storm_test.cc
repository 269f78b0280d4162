// Processes that store conversations die at any moment, or the power is cut: what was said to be
// stored is there, and both files open.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "service.h"
#include "tests/base/temp_folder.h"
#include "tests/power_cut/journal.h"
#include "tests/power_cut/storm.h"
#include "tests/snapshot/environments.h"

extern char** environ;

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;
using power_cut::Journal;
using power_cut::StormReport;
using power_cut::StormReportWire;

// More of them on demand: bench/snapshot_storm.sh.
int Rounds() {
  const char* text = std::getenv("PERDURE_SNAPSHOT_STORM_ROUNDS");
  return text == nullptr ? 200 : std::atoi(text);
}

// A folder is used for so many, by turns with and without waiting for the disk.
constexpr int kRoundsOfAFolder = 40;

enum class Death { kAtATime, kAtACall, kPowerCut, kTornPowerCut };
constexpr std::array<const char*, 4> kDeaths = {
    "kill -9 at a random time", "kill -9 within a write", "power cut", "power cut, torn writes"};

struct Tally {
  int rounds = 0, turns = 0, pages = 0, lost_turns = 0, lost_pages = 0;
  size_t taken_back = 0;
};

// What one folder must have.
struct Expected {
  std::map<uint32_t, uint32_t> turns;  // of each conversation, acknowledged
  std::map<uint32_t, uint32_t> found;  // the same, as they were when they were looked at last
  std::set<uint32_t> pages;            // stored, and nobody has asked to drop them
  std::set<uint32_t> last_pages;       // those of them that were stored last, together
  uint32_t next_page = 0;
  bool were_opened = false;  // both files
};

class Round {
 public:
  Round(const fs::path& folder, bool sync, Death death, uint32_t seed, Journal* journal,
        Expected* expected, Tally* tally)
      : folder_(folder),
        sync_(sync),
        death_(death),
        random_(seed),
        journal_(journal),
        expected_(expected),
        tally_(tally) {}

  void Run() {
    ++tally_->rounds;
    ASSERT_NO_FATAL_FAILURE(Start());
    ASSERT_NO_FATAL_FAILURE(Hear());
    journal_->Disarm();
    if (is_power_cut()) {
      const auto seed =
          death_ == Death::kTornPowerCut ? std::optional<uint64_t>(random_()) : std::nullopt;
      tally_->taken_back += journal_->CutPower(seed);
    }
    ASSERT_NO_FATAL_FAILURE(CheckTurns());
    ASSERT_NO_FATAL_FAILURE(CheckPages());
  }

 private:
  bool is_power_cut() const { return death_ == Death::kPowerCut || death_ == Death::kTornPowerCut; }

  void Start() {
    // Most commits take three or four calls; a new file some more. Often the first ones.
    if (death_ != Death::kAtATime)
      journal_->KillAt(1 + random_() % (random_() % 2 == 0 ? 6 : 60), is_power_cut());
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    heard_.reset(ends[0]);
    const UniqueFd said(ends[1]);
    const std::string program = fs::path(PERDURE_BIN_DIR) / "snapshot_storm_child";
    std::vector<std::string> arguments = {program, folder_.string(), sync_ ? "sync" : "async",
                                          std::to_string(expected_->next_page),
                                          std::to_string(random_())};
    std::vector<std::string> variables = {
        std::string(power_cut::kFolderVariable) + "=" + folder_.string(),
        std::string(power_cut::kJournalVariable) + "=" + journal_->file().string()};
    std::vector<char*> argv, env;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    for (char** variable = environ; *variable != nullptr; ++variable) env.push_back(*variable);
    for (std::string& variable : variables) env.push_back(variable.data());
    argv.push_back(nullptr);
    env.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, said.get(), STDOUT_FILENO);
    ASSERT_EQ(posix_spawn(&child_, argv[0], &actions, nullptr, argv.data(), env.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
  }

  // What it says until it is dead.
  void Hear() {
    const bool is_timed = death_ == Death::kAtATime;
    const int64_t end_ms = MonotonicMs() + 60'000;
    std::optional<int64_t> kill_us;
    // Now and then while it opens its files.
    if (is_timed && random_() % 4 == 0) kill_us = MonotonicUs() + random_() % 30'000;
    for (bool is_killed = false;;) {
      pollfd heard{heard_.get(), POLLIN, 0};
      poll(&heard, 1, kill_us && !is_killed ? 0 : 1000);
      if (!is_killed && ((kill_us && MonotonicUs() >= *kill_us) || MonotonicMs() > end_ms)) {
        EXPECT_LE(MonotonicMs(), end_ms) << "nothing has killed it";
        kill(child_, SIGKILL);
        is_killed = true;
      }
      if ((heard.revents & (POLLIN | POLLHUP)) == 0) continue;
      StormReportWire report;
      if (read(heard_.get(), &report, sizeof report) != sizeof report) break;
      ASSERT_NO_FATAL_FAILURE(OnReport(report));
      if (is_timed && !kill_us) kill_us = MonotonicUs() + random_() % 40'000;
    }
    int status = 0;
    ASSERT_EQ(waitpid(child_, &status, 0), child_);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
  }

  void OnReport(const StormReportWire& report) {
    switch (report.kind) {
      case StormReport::kOpened:
        expected_->were_opened = true;
        break;
      case StormReport::kTurnStored:
        ++tally_->turns;
        // What was found to be stored may be acknowledged again.
        ASSERT_GE(report.more, std::max(1u, expected_->turns[report.number]));
        ASSERT_LE(report.more,
                  std::max(expected_->turns[report.number], expected_->found[report.number]) + 1);
        expected_->turns[report.number] = report.more;
        break;
      case StormReport::kPagesAsked:
        expected_->next_page = report.number + report.more;
        break;
      case StormReport::kPagesStored:
        tally_->pages += static_cast<int>(report.more);
        expected_->last_pages.clear();
        for (uint32_t i = 0; i < report.more; ++i) {
          if (dropped_.contains(report.number + i)) continue;
          expected_->pages.insert(report.number + i);
          expected_->last_pages.insert(report.number + i);
        }
        break;
      case StormReport::kDropAsked:
        dropped_.insert(report.number);
        expected_->pages.erase(report.number);
        break;
      case StormReport::kNotStored:
        FAIL() << "it could not store something";
    }
  }

  // Without waiting for the disk, a power cut may take back the last commit, and no more.
  bool may_lose() const { return !sync_ && is_power_cut(); }

  // Only what has never been a file, as whoever began it has died.
  void CheckPutAside(const fs::path& file) const {
    const auto aside = snapshot::PutAsideOf(file);
    EXPECT_TRUE(aside.empty() || !expected_->were_opened);
    for (const fs::path& each : aside) fs::remove(each);
  }

  void CheckTurns() {
    const fs::path file = folder_ / "turns.mdb";
    const auto turns = snapshot::OpenTurns(file);
    ASSERT_NE(turns, nullptr);
    EXPECT_EQ(turns->problems(), std::vector<std::string>{});
    CheckPutAside(file);
    std::map<uint32_t, uint32_t> found;
    for (const auto& conversation : turns->TakeConversations())
      found[static_cast<uint32_t>(std::stoul(conversation.id.substr(1)))] = conversation.turns;
    uint32_t lost = 0;
    for (const auto& [conversation, count] : expected_->turns)
      lost += count - std::min(count, found[conversation]);
    tally_->lost_turns += static_cast<int>(lost);
    ASSERT_LE(lost, may_lose() ? 1u : 0u);
    // A power cut may also take what was found, and not acknowledged.
    for (const auto& [conversation, count] : expected_->found) {
      if (!is_power_cut()) {
        ASSERT_GE(found[conversation], count) << conversation;
      }
    }
    std::erase_if(found, [](const auto& each) { return each.second == 0; });
    for (const auto& [conversation, count] : found) {
      // One may have been stored and not said.
      const uint32_t known =
          std::max(expected_->turns[conversation], expected_->found[conversation]);
      ASSERT_LE(count, known + 1) << conversation;
      expected_->turns[conversation] = std::min(expected_->turns[conversation], count);
      // Most folders' older conversations were looked at when they were new.
      const bool is_new = conversation + power_cut::kStormConversations * 2 > found.rbegin()->first;
      for (uint32_t turn = is_new ? 1 : count; turn <= count; ++turn) {
        const auto loaded =
            turns->Load(power_cut::kStormOwner, power_cut::StormConversation(conversation), turn);
        ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
        ASSERT_TRUE(snapshot::Same(*loaded, power_cut::StormTurn(conversation, turn)));
      }
    }
    std::erase_if(expected_->turns, [&](const auto& each) { return !found.contains(each.first); });
    expected_->found = std::move(found);
  }

  void CheckPages() {
    const fs::path file = folder_ / "kv.mdb";
    auto opened = snapshot::KvFile::Open(
        {.file = file, .model = "nano", .bytes_max = snapshot::kFileBytesMax, .sync = false});
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    EXPECT_EQ((*opened)->problems(), std::vector<std::string>{});
    CheckPutAside(file);
    std::map<uint64_t, snapshot::StoredPage> found;
    for (const snapshot::StoredPage& page : (*opened)->TakePages())
      found.emplace(page.chain_hash, page);
    std::set<uint32_t> there;
    for (uint32_t number = 0; number < expected_->next_page; ++number) {
      const snapshot::PageWithData page = power_cut::StormPage(number);
      const auto it = found.find(page.page.chain_hash);
      if (it == found.end()) {
        if (!expected_->pages.contains(number)) continue;
        ++tally_->lost_pages;
        ASSERT_TRUE(may_lose() && expected_->last_pages.contains(number)) << number;
        continue;
      }
      // When it was of use the child may have changed.
      it->second.used_unix_s = page.page.used_unix_s;
      ASSERT_TRUE(snapshot::Same(it->second, page.page)) << number;
      std::vector<std::byte> data(page.page.data_bytes);
      ASSERT_TRUE((*opened)->Read(it->second, data).has_value()) << number;
      ASSERT_TRUE(data == page.data) << number;
      found.erase(it);
      if (expected_->pages.contains(number)) there.insert(number);
    }
    EXPECT_TRUE(found.empty()) << "pages that nobody has stored";
    expected_->pages = std::move(there);
    std::erase_if(expected_->last_pages,
                  [this](uint32_t number) { return !expected_->pages.contains(number); });
  }

  const fs::path folder_;
  const bool sync_;
  const Death death_;
  std::mt19937 random_;
  Journal* const journal_;
  Expected* const expected_;
  Tally* const tally_;
  UniqueFd heard_;
  pid_t child_ = -1;
  std::set<uint32_t> dropped_;
};

TEST(SnapshotStorm, NothingThatWasAcknowledgedIsLost) {
  const char* const wanted = std::getenv("PERDURE_SNAPSHOT_STORM_SEED");
  const unsigned seed =
      wanted != nullptr ? static_cast<unsigned>(std::atoll(wanted)) : std::random_device{}();
  SCOPED_TRACE("PERDURE_SNAPSHOT_STORM_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  std::array<std::array<Tally, kDeaths.size()>, 2> tallies;
  std::unique_ptr<TempFolder> folder;
  std::unique_ptr<Journal> journal;
  Expected expected;
  const int rounds = Rounds();
  for (int round = 0; round < rounds && !testing::Test::HasFailure(); ++round) {
    const bool sync = round / kRoundsOfAFolder % 2 == 0;
    if (round % kRoundsOfAFolder == 0) {
      journal.reset();
      folder = std::make_unique<TempFolder>();
      journal = std::make_unique<Journal>(folder->path() / "journal");
      fs::create_directory(folder->path() / "nano");
      expected = {};
    }
    const auto death = static_cast<size_t>(random() % kDeaths.size());
    SCOPED_TRACE(fmt::format("round {}, {}, {}", round, sync ? "sync" : "async", kDeaths[death]));
    Round(folder->path() / "nano", sync, static_cast<Death>(death), random(), journal.get(),
          &expected, &tallies[sync ? 0 : 1][death])
        .Run();
  }
  journal.reset();
  fmt::print(
      "| durability | death | rounds | turns stored | pages stored | writes taken back | "
      "turns lost | pages lost |\n|---|---|--:|--:|--:|--:|--:|--:|\n");
  for (size_t mode = 0; mode < tallies.size(); ++mode) {
    for (size_t death = 0; death < kDeaths.size(); ++death) {
      const Tally& tally = tallies[mode][death];
      fmt::print("| {} | {} | {} | {} | {} | {} | {} | {} |\n", mode == 0 ? "sync" : "async",
                 kDeaths[death], tally.rounds, tally.turns, tally.pages, tally.taken_back,
                 tally.lost_turns, tally.lost_pages);
    }
  }
}

}  // namespace
}  // namespace perdure::process_tests
