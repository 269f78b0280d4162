// Conversations outlive the service: however it has ended, they go on, bit for bit, without being
// computed again.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client.h"
#include "conversation_files.h"
#include "service.h"
#include "shm/layout.h"
#include "snapshot/format.h"
#include "tests/power_cut/journal.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;
using power_cut::Journal;
using testing::HasSubstr;
using testing::Not;

constexpr int kPage = shm::kArenaPageTokens;

Json Message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

// A conversation as a client has it: all that was said so far.
class Talk {
 public:
  // `more` is part of each request.
  explicit Talk(Json more = Json::object()) : more_(std::move(more)) {}

  Json Body(const std::string& question) const {
    Json body = more_;
    body["messages"] = messages_;
    body["messages"].push_back(Message("user", question));
    body["temperature"] = 0;
    body["max_tokens"] = 40;
    return body;
  }
  Answer Ask(const Service& service, const std::string& question) {
    Answer answer = Chat(service.url(), Body(question));
    EXPECT_EQ(answer.status, 200) << answer.body;
    messages_.push_back(Message("user", question));
    messages_.push_back(Message("assistant", answer.content()));
    return answer;
  }

 private:
  const Json more_;
  Json messages_ = Json::array();
};

Json CacheOf(const Answer& answer) {
  return answer.body.value("/timings/cache"_json_pointer, Json::object());
}
std::string ConversationOf(const Answer& answer) {
  return CacheOf(answer).value("conversation_id", "");
}
int Computed(const Answer& answer) { return CacheOf(answer).value("computed", -1); }
int Tokens(const Answer& answer) {
  return answer.body.value("/usage/total_tokens"_json_pointer, -1);
}
int PromptTokens(const Answer& answer) {
  return answer.body.value("/usage/prompt_tokens"_json_pointer, -1);
}

void Stop(Service* service) {
  service->Signal(SIGTERM);
  EXPECT_EQ(service->AwaitExit(), 0);
}
// As when the machine is turned off and on.
void Reboot(Service* service) {
  Stop(service);
  service->RemoveSharedMemory();
  service->StartReady();
}
void RebootAfterKill(Service* service) {
  service->KillAll();
  service->RemoveSharedMemory();
  service->StartReady();
}

// --- However it ends -----------------------------------------------------------------------------

struct Turn {
  const char* question;
  const char* recalls;  // what the answer has of what was told before
};
constexpr Turn kTurns[] = {{"my name is Zorbit and i live in Zurich", ""},
                           {"what is 17 + 25?", "42"},
                           {"what's my name?", "Zorbit"},
                           {"what is 60-12", "48"},
                           {"where do i live", "Zurich"},
                           {"my dog is called Rex", "Rex"},
                           {"what's my name?", "Zorbit"},
                           {"what is my dog called?", "Rex"},
                           {"where do i live", "Zurich"},
                           {"what's my name?", "Zorbit"}};

enum class End { kNone, kStop, kKill, kReboot, kRebootAfterKill, kPowerCut };
// Before each turn.
constexpr End kEnds[] = {End::kNone, End::kNone,    End::kStop,   End::kNone,
                         End::kKill, End::kNone,    End::kReboot, End::kRebootAfterKill,
                         End::kNone, End::kPowerCut};

std::vector<Json> Types() {
  const Json quantized = {{"at", 100}, {"type", "quantized_kv"}};
  return {"kv",
          "quantized_kv",
          "concatenate_kv",
          {{"type", "quantized_kv"}, {"bits", 4}},
          {{"type", "rotating_kv"}, {"max_size", 130}, {"keep", 20}},
          {{"type", "chunked_kv"}, {"chunk_size", 256}},
          {{"type", "kv"}, {"then", Json::array({quantized})}}};
}
constexpr const char* kTypeNames[] = {"Kv",       "Quantized8", "Concatenate", "Quantized4",
                                      "Rotating", "Chunked",    "Composed"};
constexpr size_t kRotating = 4;

class SnapshotOfType : public testing::TestWithParam<size_t> {
 protected:
  SnapshotOfType() : journal_(disturbed_.folder() / "journal") {
    fs::create_directories(disturbed_.folder() / "state");
    disturbed_.SetEnvironment("LD_PRELOAD", PERDURE_BIN_DIR "/libpower_cut.so");
    disturbed_.SetEnvironment("ASAN_OPTIONS", "verify_asan_link_order=0");
    disturbed_.SetEnvironment(power_cut::kFolderVariable, disturbed_.folder() / "state");
    disturbed_.SetEnvironment(power_cut::kJournalVariable, journal_.file());
  }

  // Ends the service and starts it again; `next` is what is asked of it then.
  void Disturb(End end, const Json& next) {
    switch (end) {
      case End::kNone:
        return;
      case End::kStop:
        Stop(&disturbed_);
        return disturbed_.StartReady();
      case End::kKill:
        disturbed_.KillAll();
        return disturbed_.StartReady();
      case End::kReboot:
        return Reboot(&disturbed_);
      case End::kRebootAfterKill:
        return RebootAfterKill(&disturbed_);
      case End::kPowerCut:
        return CutPower(next);
    }
  }

  // While the next turn is being stored, or its pages are.
  void CutPower(const Json& next) {
    // Most commits have three calls: pages, sync, the page that makes them count.
    journal_.KillAt(1 + GetParam() % 3, true);
    Stream stream(disturbed_.url(), next);
    EXPECT_TRUE(Eventually([&] { return journal_.is_cut(); }));
    disturbed_.KillAll();
    stream.Join();
    EXPECT_FALSE(stream.done()) << "it was not stored";
    journal_.CutPower(GetParam() % 2 == 0 ? std::nullopt : std::optional<uint64_t>(GetParam()));
    disturbed_.RemoveSharedMemory();
    disturbed_.StartReady();
  }

  Service undisturbed_, disturbed_;
  Journal journal_;
};

TEST_P(SnapshotOfType, GoesOnHoweverTheServiceHasEnded) {
  const Json more = {{"cache", Types()[GetParam()]}};
  Talk a(more), b(more);
  undisturbed_.StartReady();
  disturbed_.StartReady();
  std::string conversation;
  int tokens_before = 0;
  for (size_t i = 0; i < std::size(kTurns); ++i) {
    SCOPED_TRACE(fmt::format("turn {}", i + 1));
    const std::string question = kTurns[i].question;
    const Answer expected = a.Ask(undisturbed_, question);
    ASSERT_NO_FATAL_FAILURE(Disturb(kEnds[i], b.Body(question)));
    const Answer answer = b.Ask(disturbed_, question);
    EXPECT_EQ(answer.content(), expected.content());
    EXPECT_EQ(answer.body["usage"]["prompt_tokens"], expected.body["usage"]["prompt_tokens"]);
    EXPECT_EQ(Tokens(answer), Tokens(expected));
    EXPECT_EQ(CacheOf(answer)["stored"], true);
    // What a window has lost may be forgotten.
    if (GetParam() != kRotating) {
      EXPECT_THAT(answer.content(), HasSubstr(kTurns[i].recalls));
    }
    const int is_new = PromptTokens(answer) - tokens_before;
    // What lies before a window comes from the disk as far as it was there at the end.
    EXPECT_LE(Computed(answer), is_new + kPage) << CacheOf(answer);
    if (i == 0) conversation = ConversationOf(answer);
    // Asked again for an answer that was stored, it branches.
    if (kEnds[i] != End::kPowerCut) {
      EXPECT_EQ(ConversationOf(answer), conversation);
    }
    tokens_before = Tokens(answer);
    ASSERT_TRUE(AwaitPages(disturbed_, tokens_before));
  }
  EXPECT_THAT(disturbed_.Log(), Not(HasSubstr("damaged")));
}

INSTANTIATE_TEST_SUITE_P(SnapshotTypes, SnapshotOfType, testing::Range<size_t>(0, 7),
                         [](const auto& info) { return std::string(kTypeNames[info.param]); });

// --- Whose they are ------------------------------------------------------------------------------

TEST(SnapshotTest, AConversationIsFoundByItsName) {
  Service service;
  service.StartReady();
  const Json named = {{"conversation_id", "mine"}};
  Talk talk(named);
  EXPECT_EQ(ConversationOf(talk.Ask(service, "my name is Zorbit and i live in Zurich")), "mine");
  const int before = Tokens(talk.Ask(service, "what is 17 + 25?"));
  Reboot(&service);
  const Answer answer = talk.Ask(service, "what's my name?");
  EXPECT_EQ(ConversationOf(answer), "mine");
  EXPECT_THAT(answer.content(), HasSubstr("Zorbit"));
  EXPECT_GT(CacheOf(answer)["snapshot"], 0);
  EXPECT_LE(Computed(answer), PromptTokens(answer) - before + kPage);
  // Somebody who says something else, without a name, has another one.
  Talk other;
  EXPECT_NE(ConversationOf(other.Ask(service, "hi there")), "mine");
}

TEST(SnapshotTest, ModelsDoNotMix) {
  Service service;
  service.WriteConfig(
      "[models.a]\nsource = \"nano\"\ndefault = true\n[models.\"b/c\"]\nsource = \"nano\"\n");
  service.StartReady(2);
  Talk a(Json{{"model", "a"}, {"conversation_id", "one"}});
  Talk b(Json{{"model", "b/c"}, {"conversation_id", "one"}});
  a.Ask(service, "my name is Zorbit and i live in Zurich");
  b.Ask(service, "my name is Anna and i live in Berlin");
  Stop(&service);
  service.RemoveSharedMemory();
  service.StartReady(2);
  const Answer of_a = a.Ask(service, "what's my name?");
  const Answer of_b = b.Ask(service, "what's my name?");
  EXPECT_THAT(of_a.content(), HasSubstr("Zorbit"));
  EXPECT_THAT(of_b.content(), HasSubstr("Anna"));
  for (const Answer& answer : {of_a, of_b}) {
    EXPECT_EQ(ConversationOf(answer), "one");
    EXPECT_GT(CacheOf(answer)["snapshot"], 0);
  }
  // What was said to one is of no use to the other.
  Talk same(Json{{"model", "b/c"}, {"conversation_id", "two"}});
  const Answer first = same.Ask(service, "my name is Zorbit and i live in Zurich");
  EXPECT_LT(CacheOf(first)["snapshot"], kPage);
  EXPECT_THAT(BytesOf(TurnsFile(service, "a")), HasSubstr("Zorbit"));
  EXPECT_THAT(BytesOf(TurnsFile(service, "a")), Not(HasSubstr("Anna")));
}

// --- What stands in the files --------------------------------------------------------------------

TEST(SnapshotTest, WhatIsNotToBeStoredIsNowhereInTheFiles) {
  Service service;
  service.StartReady();
  const std::vector<TokenId> secret_ids = {1301, 977, 1755, 402, 1999, 611, 1212, 845,
                                           1533, 720, 1888, 333, 1444, 555, 1666, 777};
  const std::vector<TokenId> told_ids(secret_ids.rbegin(), secret_ids.rend());
  const auto complete = [&](const std::vector<TokenId>& ids, bool store) {
    const Answer answer =
        Post(service.url() + "/v1/completions",
             {{"prompt", ids}, {"max_tokens", 40}, {"temperature", 0}, {"store", store}});
    EXPECT_EQ(answer.status, 200) << answer.body;
  };
  Talk secret(Json{{"store", false}}),
      named_secret(Json{{"store", false}, {"conversation_id", "hidden"}});
  Talk told;
  const std::string secret_text = "Quixwort is my name and i live in Vladivostok";
  const Answer before = secret.Ask(service, secret_text);
  named_secret.Ask(service, secret_text + " too");
  complete(secret_ids, false);
  complete(told_ids, true);
  const int tokens = Tokens(told.Ask(service, "my name is Zorbit and i live in Zurich"));
  ASSERT_TRUE(AwaitPages(service, tokens));
  // It goes on as long as the memory is there.
  EXPECT_EQ(ConversationOf(secret.Ask(service, "what's my name?")), ConversationOf(before));
  Reboot(&service);
  const auto look = [&] {
    const std::string turns = BytesOf(TurnsFile(service)), kv = BytesOf(KvFile(service));
    EXPECT_THAT(turns, HasSubstr("my name is Zorbit"));
    EXPECT_NE(turns.find(BytesOf(told_ids)), std::string::npos);
    EXPECT_NE(kv.find(BytesOf(told_ids)), std::string::npos);
    for (const std::string& bytes : {turns, kv}) {
      EXPECT_EQ(bytes.find("Quixwort"), std::string::npos);
      EXPECT_EQ(bytes.find("Vladivostok"), std::string::npos);
      EXPECT_EQ(bytes.find("hidden"), std::string::npos);
      EXPECT_EQ(bytes.find(BytesOf(secret_ids)), std::string::npos);
      EXPECT_EQ(bytes.find(BytesOf({secret_ids.begin(), secret_ids.begin() + 4})),
                std::string::npos);
    }
  };
  look();
  const Answer after = secret.Ask(service, "where do i live");
  EXPECT_NE(ConversationOf(after), ConversationOf(before));
  // All conversations begin alike.
  EXPECT_LT(CacheOf(after)["snapshot"], 5) << CacheOf(after);
  EXPECT_EQ(CacheOf(after)["stored"], false);
  Stop(&service);
  look();
  EXPECT_THAT(service.Log(), Not(HasSubstr("corrected"))) << "what was stored was right";
}

TEST(SnapshotTest, FilesAreTheirOwnersAlone) {
  const mode_t mask = umask(0);
  Service service;
  service.StartReady();
  umask(mask);
  const int tokens = Tokens(Talk().Ask(service, "my name is Zorbit and i live in Zurich"));
  ASSERT_TRUE(AwaitPages(service, tokens));
  const auto mode_of = [](const fs::path& path) {
    struct stat st {};
    EXPECT_EQ(lstat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  };
  const fs::path folder = TurnsFile(service).parent_path();
  EXPECT_EQ(mode_of(folder), 0700u);
  EXPECT_EQ(mode_of(folder.parent_path()), 0700u);
  size_t files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder.parent_path())) {
    EXPECT_EQ(mode_of(entry.path()), entry.is_directory() ? 0700u : 0600u) << entry.path();
    files += entry.is_directory() ? 0 : 1;
  }
  EXPECT_EQ(files, 4u);
}

TEST(SnapshotTest, NothingIsWrittenWhereTheyAreDisabled) {
  Service service;
  service.SetEnvironment("PERDURE_SNAPSHOTS_ENABLED", "0");
  service.StartReady();
  Talk talk;
  const Answer first = talk.Ask(service, "my name is Zorbit and i live in Zurich");
  EXPECT_NE(CacheOf(first).value("stored", false), true);
  EXPECT_EQ(ConversationOf(talk.Ask(service, "what is 17 + 25?")), ConversationOf(first));
  Reboot(&service);
  EXPECT_FALSE(fs::exists(service.folder() / "state" / "conversations"));
  const Answer answer = talk.Ask(service, "what's my name?");
  EXPECT_EQ(Computed(answer), PromptTokens(answer)) << CacheOf(answer);
  EXPECT_NE(ConversationOf(answer), ConversationOf(first));
}

// --- Disks that are full -------------------------------------------------------------------------

constexpr const char* kNotStored = "conversations of nano are not stored";
constexpr const char* kStoredAgain = "conversations of nano are stored again";

// A disk without room, and then with room again: `fill` and `free_some` make it so.
void ExpectItServesWithoutRoom(Service* service, const std::function<void()>& fill,
                               const std::function<void()>& free_some) {
  Talk early, late;
  const Answer stored = early.Ask(*service, "my name is Zorbit and i live in Zurich");
  ASSERT_TRUE(AwaitPages(*service, Tokens(stored)));
  fill();
  const Answer without = late.Ask(*service, "my name is Anna and i live in Berlin");
  // What LMDB had free within its file may do for a turn or two.
  for (int i = 0; i < 200 && service->Log().find(kNotStored) == std::string::npos; ++i)
    EXPECT_EQ(Chat(service->url(),
                   ChatBody(fmt::format("{} {}", i, std::string(600, 'x')), {{"max_tokens", 4}}))
                  .status,
              200);
  EXPECT_THAT(service->Log(), HasSubstr(kNotStored));
  // All go on, in memory.
  const Answer second = late.Ask(*service, "what is 17 + 25?");
  EXPECT_EQ(ConversationOf(second), ConversationOf(without));
  EXPECT_EQ(CacheOf(second)["stored"], false);
  EXPECT_THAT(early.Ask(*service, "what's my name?").content(), HasSubstr("Zorbit"));
  free_some();
  // Those that waited, too.
  EXPECT_TRUE(Eventually([&] { return service->Log().find(kStoredAgain) != std::string::npos; }));
  const Answer again = late.Ask(*service, "what is 60-12");
  EXPECT_EQ(CacheOf(again)["stored"], true);
  RebootAfterKill(service);
  const Answer answer = late.Ask(*service, "what's my name?");
  EXPECT_THAT(answer.content(), HasSubstr("Anna"));
  EXPECT_EQ(ConversationOf(answer), ConversationOf(again));
  EXPECT_EQ(ConversationOf(answer), ConversationOf(without));
  EXPECT_EQ(ConversationOf(early.Ask(*service, "where do i live")), ConversationOf(stored));
}

// A small filesystem of its own, for the state of a service.
class SmallDisk {
 public:
  explicit SmallDisk(fs::path folder) : folder_(std::move(folder)) {
    fs::create_directories(folder_);
    is_mounted_ = mount("perdure-test", folder_.c_str(), "tmpfs", 0, "size=32m,mode=0700") == 0;
    error_ = errno;
  }
  ~SmallDisk() {
    if (is_mounted_ && umount2(folder_.c_str(), MNT_DETACH) != 0)
      ADD_FAILURE() << "cannot unmount " << folder_;
  }
  bool is_mounted() const { return is_mounted_; }
  int error() const { return error_; }
  void Fill() const {
    const std::string block(4096, 'f');
    std::ofstream out(folder_ / "filler", std::ios::binary);
    while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  void Free() const { fs::remove(folder_ / "filler"); }

 private:
  const fs::path folder_;
  bool is_mounted_ = false;
  int error_ = 0;
};

TEST(SnapshotTest, AFullDiskEndsNoChat) {
  // The disk goes after the service that uses it.
  std::unique_ptr<SmallDisk> disk;
  Service service;
  disk = std::make_unique<SmallDisk>(service.folder() / "state");
  // Where mounting is not for us, the next test has to do.
  if (!disk->is_mounted()) GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(disk->error());
  service.StartReady();
  ExpectItServesWithoutRoom(
      &service, [&] { disk->Fill(); }, [&] { disk->Free(); });
  Stop(&service);
  disk.reset();
}

TEST(SnapshotTest, ALimitOfFileSizesEndsNoChat) {
  Service service;
  service.StartReady();
  const auto limit = [&](rlim_t bytes) {
    struct rlimit limits {};
    const pid_t pid = service.ModelPid("nano");
    ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, nullptr, &limits), 0);
    limits.rlim_cur = bytes;
    ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &limits, nullptr), 0);
  };
  ExpectItServesWithoutRoom(
      &service, [&] { limit(fs::file_size(TurnsFile(service))); }, [&] { limit(RLIM_INFINITY); });
}

// --- Files that are damaged ----------------------------------------------------------------------

class SnapshotDamage : public testing::Test {
 protected:
  // A conversation that is stored, with its pages.
  void Store() {
    service_.StartReady();
    first_ = talk_.Ask(service_, "my name is Zorbit and i live in Zurich");
    const Answer last = talk_.Ask(service_, "what is 17 + 25?");
    ASSERT_TRUE(AwaitPages(service_, Tokens(last)));
  }
  void StopForGood() {
    Stop(&service_);
    service_.RemoveSharedMemory();
  }
  bool IsPutAside(const std::string& file) const {
    for (const auto& entry : fs::directory_iterator(TurnsFile(service_).parent_path()))
      if (entry.path().filename().string().starts_with(file + ".damaged-")) return true;
    return false;
  }
  // And that it is stored from now on.
  void ExpectServes() {
    EXPECT_THAT(talk_.Ask(service_, "what's my name?").content(), HasSubstr("Zorbit"));
    Talk other;
    const Answer told = other.Ask(service_, "my name is Anna and i live in Berlin");
    ASSERT_TRUE(AwaitPages(service_, Tokens(told)));
    RebootAfterKill(&service_);
    const Answer answer = other.Ask(service_, "what's my name?");
    EXPECT_EQ(ConversationOf(answer), ConversationOf(told));
    EXPECT_THAT(answer.content(), HasSubstr("Anna"));
    EXPECT_LE(Computed(answer), PromptTokens(answer) - Tokens(told) + kPage);
  }

  Service service_;
  Talk talk_;
  Answer first_;
};

TEST_F(SnapshotDamage, GarbageInsteadOfTurns) {
  ASSERT_NO_FATAL_FAILURE(Store());
  StopForGood();
  WriteBytes(TurnsFile(service_), std::string(100'000, 'g'));
  service_.StartReady();
  EXPECT_TRUE(IsPutAside("turns.mdb"));
  EXPECT_THAT(service_.Log(), HasSubstr("put aside as turns.mdb.damaged-"));
  ExpectServes();
}

TEST_F(SnapshotDamage, APageOfTurnsIsOverwritten) {
  ASSERT_NO_FATAL_FAILURE(Store());
  StopForGood();
  std::string bytes = BytesOf(TurnsFile(service_));
  ASSERT_GT(bytes.size(), 5 * 4096u);
  // All but the pages by which LMDB finds the others.
  for (size_t i = 2 * 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31);
  WriteBytes(TurnsFile(service_), bytes);
  service_.StartReady();
  EXPECT_TRUE(IsPutAside("turns.mdb"));
  ExpectServes();
}

TEST_F(SnapshotDamage, PagesCutShort) {
  ASSERT_NO_FATAL_FAILURE(Store());
  StopForGood();
  fs::resize_file(KvFile(service_), fs::file_size(KvFile(service_)) / 2);
  service_.StartReady();
  EXPECT_THAT(service_.Log(), HasSubstr("kv.mdb"));
  // What was said is still known.
  const Answer answer = talk_.Ask(service_, "where do i live");
  EXPECT_EQ(ConversationOf(answer), ConversationOf(first_));
  ExpectServes();
}

TEST_F(SnapshotDamage, NumbersOfPagesAreOverwritten) {
  ASSERT_NO_FATAL_FAILURE(Store());
  StopForGood();
  std::string bytes = BytesOf(KvFile(service_));
  // Within what is no more than numbers: large values lie in the file's second half.
  for (size_t i = bytes.size() / 2; i < bytes.size(); i += 500)
    bytes[i] = static_cast<char>(~bytes[i]);
  WriteBytes(KvFile(service_), bytes);
  service_.StartReady();
  const Answer answer = talk_.Ask(service_, "where do i live");
  EXPECT_EQ(ConversationOf(answer), ConversationOf(first_));
  EXPECT_THAT(answer.content(), HasSubstr("Zurich"));
  EXPECT_THAT(service_.Log(), HasSubstr("kv.mdb"));
  ExpectServes();
}

TEST_F(SnapshotDamage, DeletedWhileTheServiceRuns) {
  ASSERT_NO_FATAL_FAILURE(Store());
  fs::remove_all(TurnsFile(service_).parent_path());
  EXPECT_THAT(talk_.Ask(service_, "where do i live").content(), HasSubstr("Zurich"));
  StopForGood();
  service_.StartReady();
  ExpectServes();
}

TEST_F(SnapshotDamage, OfANewerFormat) {
  for (const char* const name : {"turns", "kv"}) {
    SCOPED_TRACE(name);
    Service service;
    service.StartReady();
    const int tokens = Tokens(Talk().Ask(service, "my name is Zorbit and i live in Zurich"));
    ASSERT_TRUE(AwaitPages(service, tokens));
    Stop(&service);
    service.RemoveSharedMemory();
    const fs::path file = std::string(name) == "turns" ? TurnsFile(service) : KvFile(service);
    snapshot::FormatRecord format;
    format.version = snapshot::kFormatVersion + 2;
    format.reader_min = snapshot::kFormatVersion + 1;
    format.environment = name;
    format.model = "nano";
    const std::string key(snapshot::kFormatKey);
    snapshot::WriteRaw(file, "meta", key, snapshot::Seal(key, format));
    const std::string bytes = BytesOf(file);
    service.StartReady();
    EXPECT_THAT(service.Log(), HasSubstr("conversations are not stored: "));
    EXPECT_THAT(service.Log(), HasSubstr("was written by a newer version of Perdure (format 3, "
                                         "this one reads up to 1)"));
    Talk talk;
    const Answer first = talk.Ask(service, "my name is Anna and i live in Berlin");
    const Answer second = talk.Ask(service, "what's my name?");
    EXPECT_THAT(second.content(), HasSubstr("Anna"));
    EXPECT_EQ(ConversationOf(second), ConversationOf(first));
    Stop(&service);
    EXPECT_TRUE(BytesOf(file) == bytes) << "it is left as it is";
  }
}

}  // namespace
}  // namespace perdure::process_tests
