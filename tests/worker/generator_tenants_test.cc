// Stored conversations as an operator has them: of all tenants, in real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/base/temp_folder.h"
#include "tests/worker/cache_fixture.h"
#include "worker/disk_persistence.h"

namespace perdure::worker {
namespace {

using protocol::ConversationCommand;
using protocol::ConversationOperation;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class GeneratorTenantsTest : public CacheTest {
 protected:
  GeneratorTenantsTest() {
    options_.stored_bytes_max = uint64_t{64} << 20;
    options_.fingerprint = 0xf1;
    options_.numerics = 0xf2;
    Boot();
  }
  ~GeneratorTenantsTest() override { generator_.reset(); }

  // With what is on the disk, and nothing in memory.
  void Boot() {
    generator_.reset();
    disk_.reset();
    DiskPersistence::Options options;
    options.dir = folder_.path() / "conversations" / "model";
    options.model = "nano";
    options.sync = false;
    options.turns_bytes_max = options.kv_bytes_max = uint64_t{64} << 20;
    auto opened = DiskPersistence::Open(options);
    ASSERT_TRUE(opened) << opened.error().message;
    disk_ = std::move(opened->persistence);
    options_.persistence = disk_.get();
    options_.stored_conversations = std::move(opened->conversations);
    options_.stored_pages = std::move(opened->pages);
    StartWith(64);
  }
  // Until nothing is left to be done.
  void Run() {
    for (int i = 0; i < 100'000; ++i) {
      clock_us += 1000;
      if (generator_->HasWork()) {
        generator_->Step();
        continue;
      }
      disk_->Wait(60'000);
      pollfd answers{disk_->fd(), POLLIN, 0};
      if (poll(&answers, 1, 0) == 1)
        generator_->TakeAnswers();
      else if (generator_->HasUpkeep())
        generator_->Upkeep();
      else
        return;
    }
    ADD_FAILURE() << "it does not come to an end";
  }
  protocol::Submit AskAs(const std::string& tenant, const std::string& id, const Ids& prompt,
                         const std::string& user = "") {
    protocol::Submit submit = Ask(prompt, 40);
    submit.request.tenant = tenant;
    submit.request.conversation_id = id;
    submit.request.user = user;
    return submit;
  }
  protocol::RequestId SayAs(const std::string& tenant, const std::string& id, const Ids& prompt,
                            const std::string& user = "") {
    now_ms_ += 1000;
    const protocol::Submit submit = AskAs(tenant, id, prompt, user);
    EXPECT_TRUE(generator_->Submit(submit));
    Run();
    EXPECT_TRUE(sink_[submit.rid].choices[0].end.has_value());
    return submit.rid;
  }

  static ConversationCommand Of(ConversationOperation operation, const std::string& id = "") {
    ConversationCommand command;
    command.operation = operation;
    command.id = id;
    command.limit = 100;
    command.of_all_tenants = true;
    return command;
  }
  protocol::ConversationAnswer Answered(ConversationCommand command) {
    command.rid = 1000 + sink_.conversation_answers.size();
    generator_->Command(command);
    Run();
    EXPECT_FALSE(sink_.conversation_answers.empty());
    if (sink_.conversation_answers.empty()) return {};
    EXPECT_EQ(sink_.conversation_answers.back().rid, command.rid);
    return sink_.conversation_answers.back();
  }
  Json Told(const ConversationCommand& command) {
    const auto answer = Answered(command);
    EXPECT_EQ(answer.error_code, 0) << answer.text;
    return answer.error_code == 0 ? Json::parse(answer.text) : Json::object();
  }
  void ExpectRefused(const ConversationCommand& command, ErrorCode code, const char* param,
                     const std::string& part) {
    const auto answer = Answered(command);
    EXPECT_EQ(answer.error_code, static_cast<uint16_t>(code));
    EXPECT_EQ(answer.param, param);
    EXPECT_THAT(answer.text, HasSubstr(part));
  }
  // "tenant/id" of all that are listed.
  std::vector<std::string> Listed(const ConversationCommand& command) {
    std::vector<std::string> names;
    const Json list = Told(command);
    for (const Json& each : list["data"])
      names.push_back(each["tenant"].get<std::string>() + "/" + each["id"].get<std::string>());
    return names;
  }
  std::vector<std::string> Listed() { return Listed(Of(ConversationOperation::kList)); }
  // Of the conversation that was used last.
  std::string NewestTenant() {
    return Told(Of(ConversationOperation::kList))["data"][0]["tenant"].get<std::string>();
  }
  static uint64_t Owner(const std::string& name) { return std::stoull(name, nullptr, 16); }

  // Two tenants with a conversation "shared" each, and one of the first's own.
  void SayAll() {
    SayAs("one", "own", Text(100, 1), "anna");
    one_ = NewestTenant();
    SayAs("one", "shared", Text(110, 2));
    last_of_other_ = SayAs("other", "shared", Text(120, 3), "anna");
    other_ = NewestTenant();
  }

  TempFolder folder_;
  std::unique_ptr<DiskPersistence> disk_;
  std::string one_, other_;  // as operators name them
  protocol::RequestId last_of_other_ = 0;
};

TEST_F(GeneratorTenantsTest, AnOperatorSeesThoseOfAllTenants) {
  SayAll();
  EXPECT_NE(one_, other_);
  EXPECT_EQ(one_.size(), 16u);
  EXPECT_THAT(Listed(), ElementsAre(other_ + "/shared", one_ + "/shared", one_ + "/own"));
  auto command = Of(ConversationOperation::kList);
  command.owner = Owner(one_);
  EXPECT_THAT(Listed(command), ElementsAre(one_ + "/shared", one_ + "/own"));
  command.user = "anna";
  EXPECT_THAT(Listed(command), ElementsAre(one_ + "/own"));
  command.owner.reset();
  EXPECT_THAT(Listed(command), ElementsAre(other_ + "/shared", one_ + "/own"));
  // A tenant sees its own, and nothing of tenants.
  command = Of(ConversationOperation::kList);
  command.of_all_tenants = false;
  command.tenant = "other";
  const Json own = Told(command);
  ASSERT_EQ(own["data"].size(), 1u);
  EXPECT_FALSE(own["data"][0].contains("tenant"));
}

TEST_F(GeneratorTenantsTest, PagesOfAListGoOnBehindOneOfATenant) {
  SayAll();
  auto command = Of(ConversationOperation::kList);
  command.limit = 1;
  std::vector<std::string> all;
  for (bool has_more = true; has_more;) {
    const Json page = Told(command);
    ASSERT_EQ(page["data"].size(), 1u);
    all.push_back(page["data"][0]["tenant"].get<std::string>() + "/" +
                  page["last_id"].get<std::string>());
    has_more = page["has_more"].get<bool>();
    command.after = page["last_id"].get<std::string>();
    command.after_owner = Owner(page["data"][0]["tenant"].get<std::string>());
  }
  EXPECT_EQ(all, Listed());
  // Where only one tenant has it, it need not be named.
  command = Of(ConversationOperation::kList);
  command.after = "own";
  EXPECT_THAT(Listed(command), IsEmpty());
  command.after = "shared";
  ExpectRefused(command, ErrorCode::invalid_request, "after_tenant", one_);
  command.owner = Owner(one_);
  EXPECT_THAT(Listed(command), ElementsAre(one_ + "/own"));
}

TEST_F(GeneratorTenantsTest, AnIdIsOfTheOnlyTenantThatHasIt) {
  SayAll();
  EXPECT_EQ(Told(Of(ConversationOperation::kGet, "own"))["tenant"], one_);
  for (const auto operation : {ConversationOperation::kGet, ConversationOperation::kDelete,
                               ConversationOperation::kFork, ConversationOperation::kRewind}) {
    auto command = Of(operation, "shared");
    command.turn = 1;
    ExpectRefused(command, ErrorCode::invalid_request, "tenant", one_);
    ExpectRefused(command, ErrorCode::invalid_request, "tenant", other_);
    command.id = "nobody's";
    ExpectRefused(command, ErrorCode::not_found, "id", "nobody's");
    command.id = "own";
    command.owner = Owner(other_);
    ExpectRefused(command, ErrorCode::not_found, "id", "own");
  }
  auto command = Of(ConversationOperation::kGet, "shared");
  command.tokens = true;
  for (const auto& [tenant, tokens] : {std::pair(one_, 150), std::pair(other_, 160)}) {
    command.owner = Owner(tenant);
    const Json shown = Told(command);
    EXPECT_EQ(shown["tenant"], tenant);
    EXPECT_EQ(shown["token_ids"].size(), static_cast<size_t>(tokens));
  }
  EXPECT_THAT(Listed(), ElementsAre(other_ + "/shared", one_ + "/shared", one_ + "/own"));
}

TEST_F(GeneratorTenantsTest, OneThatIsBeingAnsweredCountsForDeletion) {
  SayAs("one", "shared", Text(100, 1));
  one_ = NewestTenant();
  const auto running = AskAs("other", "shared", Text(100, 2));
  ASSERT_TRUE(generator_->Submit(running));
  generator_->Step();
  auto command = Of(ConversationOperation::kDelete, "shared");
  command.rid = 77;
  generator_->Command(command);
  ASSERT_EQ(sink_.conversation_answers.back().rid, 77u) << "at once";
  EXPECT_EQ(sink_.conversation_answers.back().param, "tenant");
  Run();
  EXPECT_EQ(Listed().size(), 2u);
}

TEST_F(GeneratorTenantsTest, MoreTenantsThanAnErrorNames) {
  for (size_t i = 0; i < limits::kTenantsNamed + 2; ++i)
    SayAs("tenant " + std::to_string(i), "shared", Text(10, 1));
  ExpectRefused(Of(ConversationOperation::kGet, "shared"), ErrorCode::invalid_request, "tenant",
                " and 2 others");
}

TEST_F(GeneratorTenantsTest, WhatIsDeletedOfATenantIsGoneAndNothingOfOthers) {
  SayAll();
  auto command = Of(ConversationOperation::kDeleteAll);
  command.owner = Owner(one_);
  const Json deleted = Told(command);
  EXPECT_EQ(deleted["ids"].size(), 2u);
  EXPECT_THAT(Listed(), ElementsAre(other_ + "/shared"));
  // In memory.
  ASSERT_EQ(generator_->conversations().all().size(), 1u);
  EXPECT_EQ(generator_->conversations().all()[0]->owner, Owner(other_));
  EXPECT_EQ(store_->used(), 5u) << "pages of 159 tokens";
  const Ids history = History(last_of_other_);
  const auto next = SayAs("other", "shared", history + Text(20, 4));
  EXPECT_EQ(Cached(next), 159);
  const auto again = SayAs("one", "shared", Text(110, 2));
  EXPECT_EQ(Cached(again), 0);
  command = Of(ConversationOperation::kDelete, "shared");
  command.owner = Owner(one_);
  Told(command);
  // On the disk.
  const Ids longer = History(next);
  Boot();
  EXPECT_THAT(Listed(), ElementsAre(other_ + "/shared"));
  std::set<uint64_t> owners;
  for (const snapshot::StoredPage& page : options_.stored_pages) owners.insert(page.key.owner);
  EXPECT_THAT(owners, ElementsAre(Owner(other_)));
  const auto last = SayAs("other", "shared", longer + Text(20, 5));
  EXPECT_EQ(sink_[last].choices[0].end->usage.from_snapshot, static_cast<int>(longer.size()) - 1);
}

TEST_F(GeneratorTenantsTest, DeletionOfAUserAndOfAll) {
  SayAll();
  auto command = Of(ConversationOperation::kDeleteAll);
  command.owner = Owner(other_);
  command.user = "anna";
  Told(command);
  EXPECT_THAT(Listed(), ElementsAre(one_ + "/shared", one_ + "/own"));
  SayAs("other", "shared", Text(120, 3), "anna");
  command.owner.reset();
  EXPECT_EQ(Told(command)["ids"].size(), 2u) << "of whichever tenant";
  EXPECT_THAT(Listed(), ElementsAre(one_ + "/shared"));
  SayAs("other", "shared", Text(120, 3));
  command.user.clear();
  EXPECT_EQ(Told(command)["ids"].size(), 2u);
  EXPECT_THAT(Listed(), IsEmpty());
  EXPECT_EQ(generator_->conversations().all().size(), 0u);
  EXPECT_EQ(store_->used(), 0u);
  Boot();
  EXPECT_THAT(Listed(), IsEmpty());
  EXPECT_EQ(options_.stored_pages.size(), 0u);
}

TEST_F(GeneratorTenantsTest, ForkRewindAndImportAreOfTheirTenant) {
  SayAll();
  SayAs("one", "own", Text(100, 1));
  auto fork = Of(ConversationOperation::kFork, "own");
  fork.turn = 1;
  fork.new_id = "copy";
  EXPECT_EQ(Told(fork)["tenant"], one_);
  auto rewind = Of(ConversationOperation::kRewind, "own");
  rewind.turn = 1;
  EXPECT_EQ(Told(rewind)["tenant"], one_);
  auto get = Of(ConversationOperation::kGet, "own");
  get.tokens = true;
  auto import = Of(ConversationOperation::kImport);
  import.document = DumpJson(Told(get));
  // Whose it was is no matter: without a tenant it becomes that of nobody's key.
  const std::string nobodys = Told(import)["tenant"];
  EXPECT_NE(nobodys, one_);
  SayAs("", "keyless", Text(10, 1));
  EXPECT_EQ(NewestTenant(), nobodys);
  ExpectRefused(import, ErrorCode::invalid_request, "id", "already");
  import.owner = Owner(other_);
  EXPECT_EQ(Told(import)["tenant"], other_);
  EXPECT_THAT(Listed(), UnorderedElementsAre(one_ + "/own", one_ + "/copy", one_ + "/shared",
                                             other_ + "/shared", other_ + "/own", nobodys + "/own",
                                             nobodys + "/keyless"));
}

TEST_F(GeneratorTenantsTest, TenantsAreToldWithWhatTheyHave) {
  EXPECT_EQ(Told(Of(ConversationOperation::kTenants))["data"], Json::array());
  SayAll();
  const Json tenants = Told(Of(ConversationOperation::kTenants))["data"];
  ASSERT_EQ(tenants.size(), 2u);
  EXPECT_EQ(tenants[0], (Json{{"tenant", other_},
                              {"object", "tenant"},
                              {"conversations", 1},
                              {"tokens", 160},
                              {"last_used_at", now_ms_ / 1000}}));
  EXPECT_EQ(tenants[1]["tenant"], one_);
  EXPECT_EQ(tenants[1]["conversations"], 2);
  EXPECT_EQ(tenants[1]["tokens"], 140 + 150);
  EXPECT_EQ(tenants[1]["last_used_at"], now_ms_ / 1000 - 1);
}

}  // namespace
}  // namespace perdure::worker
