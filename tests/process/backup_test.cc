// `perdure backup` beside a service that works, and `perdure restore` when all is lost.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "client.h"
#include "conversation_files.h"
#include "service.h"
#include "shm/layout.h"
#include "tests/cli/run_perdure.h"

extern char** environ;

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kPage = shm::kArenaPageTokens;

// What a client has of a conversation.
struct Talk {
  Json more = Json::object();
  Json messages = Json::array();

  Answer Ask(const Service& service, const std::string& question) {
    Json body = more;
    body["messages"] = messages;
    body["messages"].push_back({{"role", "user"}, {"content", question}});
    body["temperature"] = 0;
    body["max_tokens"] = 40;
    body["logprobs"] = true;
    Answer answer = Chat(service.url(), body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    messages = body["messages"];
    messages.push_back({{"role", "assistant"}, {"content", answer.content()}});
    return answer;
  }
};

Json CacheOf(const Answer& answer) {
  return answer.body.value("/timings/cache"_json_pointer, Json::object());
}
int Number(const Answer& answer, const char* pointer) {
  return answer.body.value(Json::json_pointer(pointer), -1);
}
// To the last bit.
Json LogprobsOf(const Answer& answer) {
  return answer.body.value("/choices/0/logprobs"_json_pointer, Json());
}

class BackupProcessTest : public testing::Test {
 protected:
  cli::Output Run(const std::string& arguments) const {
    return cli::RunPerdure(service_.folder(), arguments,
                           fmt::format("PERDURE_STATE_DIR='{}' PERDURE_RUNTIME_DIR='{}'",
                                       state_.string(), (service_.folder() / "run").string()));
  }
  cli::Output Backup(const std::string& more = "") const {
    return Run(fmt::format("backup '{}' {}", backup_.string(), more));
  }
  cli::Output Restore(const std::string& more = "") const {
    return Run(fmt::format("restore '{}' {}", backup_.string(), more));
  }
  // Dead, and nothing of its state is left.
  void LoseAll() {
    service_.KillAll();
    service_.RemoveSharedMemory();
    fs::remove_all(state_);
  }

  Service service_;
  const fs::path state_ = service_.folder() / "state", backup_ = service_.folder() / "backup";
};

// Clients that chat all the time.
class Chatters {
 public:
  Chatters(const Service& service, int count) {
    for (int i = 0; i < count; ++i)
      threads_.emplace_back([this, &service, i] {
        Talk talk{{{"conversation_id", fmt::format("chatter {}", i)}}};
        while (!ends_) {
          const Answer answer = talk.Ask(service, "what is 17 + 25?");
          EXPECT_EQ(CacheOf(answer).value("stored", false), true);
          if (talk.messages.size() > 20) talk.messages = Json::array();
          ++answers_;
        }
      });
  }
  ~Chatters() {
    ends_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  int answers() const { return answers_; }

 private:
  std::atomic<bool> ends_ = false;
  std::atomic<int> answers_ = 0;
  std::vector<std::thread> threads_;
};

enum class Kv { kWithout, kWith, kCompressed };
constexpr const char* kKvNames[] = {"Without", "With", "Compressed"};

class BackupOf : public BackupProcessTest, public testing::WithParamInterface<Kv> {};

TEST_P(BackupOf, AServiceThatWorksGoesOnBitForBit) {
  const bool kv = GetParam() != Kv::kWithout;
  if (GetParam() == Kv::kCompressed)
    service_.WriteConfig("[snapshots]\nkv_compression = \"zstd\"\n");
  service_.StartReady();
  Talk talk{{{"conversation_id", "mine"}}};
  talk.Ask(service_, "my name is Zorbit and i live in Zurich");
  talk.Ask(service_, "what is 17 + 25?");
  const int tokens = Number(talk.Ask(service_, "my dog is called Rex"), "/usage/total_tokens");
  ASSERT_TRUE(AwaitPages(service_, tokens));
  const auto pages = PagesOf(KvFile(service_));
  EXPECT_EQ(std::ranges::count(pages, KvCompression::kZstd, &snapshot::StoredPage::compression) > 0,
            GetParam() == Kv::kCompressed);
  const Talk as_backed_up = talk;
  {
    const Chatters chatters(service_, 3);
    ASSERT_TRUE(Eventually([&] { return chatters.answers() > 3; }));
    const cli::Output made = Backup(kv ? "--kv --json" : "--json");
    ASSERT_EQ(made.code, 0) << made.text;
    const Json json = Json::parse(made.text);
    EXPECT_GE(json["files"][0]["conversations"], 4);
    EXPECT_EQ(json["files"].size(), kv ? 2u : 1u);
    EXPECT_THAT(json["warnings"], testing::IsEmpty());
  }
  const Answer expected = talk.Ask(service_, "what's my name?");
  EXPECT_THAT(expected.content(), HasSubstr("Zorbit"));
  // Nothing is restored beneath a service that runs.
  const cli::Output refused = Restore("--force");
  EXPECT_EQ(refused.code, 111);
  EXPECT_THAT(refused.text, HasSubstr("a service runs already in"));
  EXPECT_EQ(Restore("--verify").code, 0);

  LoseAll();
  const cli::Output restored = Restore();
  ASSERT_EQ(restored.code, 0) << restored.text;
  EXPECT_THAT(restored.text, HasSubstr("restored to " + state_.string()));
  service_.StartReady();
  EXPECT_EQ(Get(service_.url() + "/v1/conversations/mine").body["turns"], 3);
  Talk again = as_backed_up;
  const Answer answer = again.Ask(service_, "what's my name?");
  EXPECT_EQ(answer.content(), expected.content());
  EXPECT_EQ(LogprobsOf(answer), LogprobsOf(expected));
  EXPECT_EQ(CacheOf(answer)["conversation_id"], "mine");
  const int computed = CacheOf(answer).value("computed", -1),
            prompt = Number(answer, "/usage/prompt_tokens");
  if (kv) {
    EXPECT_LE(computed, prompt - tokens + kPage) << CacheOf(answer);
  } else {
    EXPECT_EQ(computed, prompt) << CacheOf(answer);
  }
  EXPECT_THAT(service_.Log(), testing::Not(HasSubstr("damaged")));
}

INSTANTIATE_TEST_SUITE_P(Kv, BackupOf, testing::Values(Kv::kWithout, Kv::kWith, Kv::kCompressed),
                         [](const auto& info) { return kKvNames[static_cast<int>(info.param)]; });

TEST_F(BackupProcessTest, OfModelsThatDoNotRun) {
  service_.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.\"b/c\"]\nsource = \"nano\"\n");
  service_.StartReady(2);
  Talk a{{{"model", "a"}, {"conversation_id", "one"}}},
      b{{{"model", "b/c"}, {"conversation_id", "two"}}};
  a.Ask(service_, "my name is Zorbit and i live in Zurich");
  b.Ask(service_, "my name is Anna and i live in Berlin");
  // The second one is no longer configured.
  service_.WriteConfig("[models.a]\nsource = \"nano\"\n");
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Eventually([&] { return service_.Model("b/c").is_null(); }));
  const cli::Output made = Backup("--json");
  ASSERT_EQ(made.code, 0) << made.text;
  const Json json = Json::parse(made.text);
  ASSERT_EQ(json["files"].size(), 2u);
  EXPECT_EQ(json["files"][0]["model"], "a");
  EXPECT_EQ(json["files"][1]["model"], "b/c");
  for (const Json& file : json["files"]) EXPECT_EQ(file["conversations"], 1);
  service_.KillAll();
  // Of a service that does not run: the same again.
  const std::string first = BytesOf(backup_ / "conversations/b%2Fc/turns.mdb");
  fs::remove_all(backup_);
  ASSERT_EQ(Backup().code, 0);
  EXPECT_EQ(BytesOf(backup_ / "conversations/b%2Fc/turns.mdb"), first);
  EXPECT_EQ(Restore("--verify").code, 0);
}

// Whatever dies or is replaced meanwhile, a backup that was made is whole.
TEST_F(BackupProcessTest, WhileWorkersDie) {
  service_.StartReady();
  Talk talk{{{"conversation_id", "mine"}}};
  talk.Ask(service_, "my name is Zorbit and i live in Zurich");
  std::atomic<bool> ends = false;
  std::thread kills([&] {
    for (int i = 0; !ends; ++i) {
      if (service_.AwaitModel("nano", "ready", 30)) {
        if (i % 2 == 0)
          service_.SignalModel("nano", SIGKILL);
        else
          service_.Reload("nano");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20 * (i % 5)));
    }
  });
  for (int i = 0; i < 6; ++i) {
    const cli::Output made = Backup("--kv");
    EXPECT_EQ(made.code, 0) << made.text;
    const cli::Output verified = Restore("--verify");
    EXPECT_EQ(verified.code, 0) << verified.text;
    EXPECT_THAT(verified.text, HasSubstr("nano   1 "));
    fs::remove_all(backup_);
  }
  ends = true;
  kills.join();
  // It met locks, and waited for them.
  ASSERT_TRUE(service_.AwaitModel("nano", "ready"));
  EXPECT_EQ(CacheOf(talk.Ask(service_, "what's my name?")).value("stored", false), true);
  EXPECT_THAT(service_.Log(), testing::Not(HasSubstr("conversations are not stored")));
}

TEST_F(BackupProcessTest, ADiskThatIsFullIsNoBodysTrouble) {
  const fs::path disk = service_.folder() / "disk";
  fs::create_directories(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=16k,mode=0700") != 0)
    GTEST_SKIP() << "needs root, to mount a small disk";
  service_.StartReady();
  Talk talk;
  talk.Ask(service_, "my name is Zorbit and i live in Zurich");
  const cli::Output made = Run(fmt::format("backup '{}/today'", disk.string()));
  const bool is_empty = fs::is_empty(disk);
  EXPECT_EQ(umount(disk.c_str()), 0);
  EXPECT_EQ(made.code, 111);
  EXPECT_THAT(made.text, testing::AllOf(HasSubstr("no backup was made: cannot write"),
                                        HasSubstr("its disk is full; free some space there")));
  EXPECT_TRUE(is_empty);
  EXPECT_EQ(CacheOf(talk.Ask(service_, "what's my name?")).value("stored", false), true);
  ASSERT_EQ(Backup().code, 0);
}

// What somebody puts together by hand: one of the files is from another time than the other. The
// turns say what was said; pages are of use as far as they belong to it.
TEST_F(BackupProcessTest, FilesOfDifferentTimes) {
  service_.StartReady();
  Talk talk{{{"conversation_id", "mine"}}};
  talk.Ask(service_, "my name is Zorbit and i live in Zurich");
  const int early_tokens = Number(talk.Ask(service_, "what is 17 + 25?"), "/usage/total_tokens");
  ASSERT_TRUE(AwaitPages(service_, early_tokens));
  const Talk early = talk;
  ASSERT_EQ(Backup("--kv").code, 0);
  talk.Ask(service_, "my dog is called Rex");
  const int late_tokens = Number(talk.Ask(service_, "what's my name?"), "/usage/total_tokens");
  ASSERT_TRUE(AwaitPages(service_, late_tokens));
  const auto end = [&] {
    service_.KillAll();
    service_.RemoveSharedMemory();
  };
  end();
  const std::string late_turns = BytesOf(TurnsFile(service_)), late_kv = BytesOf(KvFile(service_));
  const std::string early_turns = BytesOf(backup_ / "conversations/nano/turns.mdb"),
                    early_kv = BytesOf(backup_ / "conversations/nano/kv.mdb");
  // Undisturbed.
  fs::remove_all(state_ / "conversations");
  service_.StartReady();
  Talk again{{{"conversation_id", "again"}}, early.messages};
  const Answer expected = again.Ask(service_, "where do i live");
  end();
  const auto ask = [&](Talk who, const std::string& turns, const std::string& kv) {
    WriteBytes(TurnsFile(service_), turns);
    WriteBytes(KvFile(service_), kv);
    service_.StartReady();
    const Answer answer = who.Ask(service_, "where do i live");
    end();
    EXPECT_THAT(answer.content(), HasSubstr("Zurich"));
    EXPECT_EQ(CacheOf(answer)["conversation_id"], "mine");
    EXPECT_GT(CacheOf(answer)["snapshot"], kPage) << CacheOf(answer);
    return answer;
  };
  EXPECT_EQ(ask(early, early_turns, late_kv).content(), expected.content());
  EXPECT_EQ(ask(talk, late_turns, early_kv).status, 200);
  EXPECT_THAT(service_.Log(), testing::Not(HasSubstr("damaged")));
}

// Killed at any time it leaves each model's conversations as they were, or restored; and nothing of
// what was there is lost.
TEST_F(BackupProcessTest, ARestoreThatIsKilledLosesNothing) {
  service_.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.b]\nsource = \"nano\"\n");
  service_.StartReady(2);
  Talk a{{{"model", "a"}, {"conversation_id", "one"}}},
      b{{{"model", "b"}, {"conversation_id", "one"}}};
  a.Ask(service_, "my name is Zorbit and i live in Zurich");
  b.Ask(service_, "my name is Anna and i live in Berlin");
  service_.Signal(SIGTERM);
  ASSERT_EQ(service_.AwaitExit(), 0);
  ASSERT_EQ(Backup("--kv").code, 0);
  service_.StartReady(2);
  a.Ask(service_, "my dog is called Rex");
  b.Ask(service_, "my dog is called Max");
  service_.Signal(SIGTERM);
  ASSERT_EQ(service_.AwaitExit(), 0);
  const fs::path kept = service_.folder() / "kept";
  fs::rename(state_, kept);
  const auto has = [](const fs::path& folder, const std::string& model, const char* text) {
    return BytesOf(folder / "conversations" / model / "turns.mdb").find(text) != std::string::npos;
  };
  const auto restore_killed_after = [&](int us) {
    const std::string program = PERDURE_BIN_DIR "/perdure", state = state_, backup = backup_;
    const char* const argv[] = {program.c_str(), "restore",     backup.c_str(), "--force",
                                "--state-dir",   state.c_str(), nullptr};
    pid_t pid = 0;
    ASSERT_EQ(posix_spawn(&pid, program.c_str(), nullptr, nullptr, const_cast<char* const*>(argv),
                          environ),
              0);
    std::this_thread::sleep_for(std::chrono::microseconds(us));
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  };
  // How long one takes that nobody kills.
  fs::copy(kept, state_, fs::copy_options::recursive);
  fs::permissions(state_, fs::perms::owner_all);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(Restore("--force").code, 0);
  const auto whole_us = static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(
                                             std::chrono::steady_clock::now() - begin)
                                             .count());
  constexpr int kRounds = 20;
  int old_ones = 0, new_ones = 0;
  for (int i = 0; i < kRounds; ++i) {
    fs::remove_all(state_);
    fs::copy(kept, state_, fs::copy_options::recursive);
    fs::permissions(state_, fs::perms::owner_all);
    ASSERT_NO_FATAL_FAILURE(restore_killed_after(2 * whole_us / kRounds * i));
    for (const auto& [model, text] : {std::pair{"a", "Rex"}, std::pair{"b", "Max"}}) {
      ASSERT_TRUE(fs::exists(state_ / "conversations" / model / "kv.mdb"));
      const bool is_old = has(state_, model, text);
      ++(is_old ? old_ones : new_ones);
      if (is_old) continue;
      bool is_kept = false;
      for (const auto& entry : fs::directory_iterator(state_))
        is_kept = is_kept || (entry.path().filename().string().starts_with("before-restore-") &&
                              has(entry.path(), model, text));
      EXPECT_TRUE(is_kept) << model;
    }
    // And the next one gets through.
    if (i % 5 != 0) continue;
    const cli::Output restored = Restore("--force");
    ASSERT_EQ(restored.code, 0) << restored.text;
    EXPECT_FALSE(has(state_, "a", "Rex") || has(state_, "b", "Max"));
    EXPECT_FALSE(fs::exists(state_ / "restore.partial"));
  }
  EXPECT_GT(old_ones, 0);
  EXPECT_GT(new_ones, 0);
}

}  // namespace
}  // namespace perdure::process_tests
