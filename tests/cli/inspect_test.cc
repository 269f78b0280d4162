#include "cli/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "protocol/heritage.h"
#include "shm/arena.h"
#include "shm/page_store.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"
#include "tests/shm/scratch_arena.h"

namespace perdure::cli {
namespace {

using shm::ArenaSegment;
using testing::HasSubstr;

class InspectArena : public testing::Test {
 protected:
  void SetUp() override {
    auto segment = ArenaSegment::Open(scratch_.instance(), "org/some model", 16 << 20);
    ASSERT_TRUE(segment.has_value()) << segment.error().message;
    if (segment->name().empty()) GTEST_SKIP() << segment->unnamed_reason();
    segment_ = std::move(*segment);
    auto arena = shm::Arena::Attach(
        segment_->fd(),
        {.fingerprint = 0xfeed, .numerics = 1, .shape = {{{1 << 16}}, 64, 2}, .pages_budget = 64});
    ASSERT_TRUE(arena.has_value()) << arena.error().message;
    store_ = std::make_unique<shm::PageStore>(std::move(*arena), 64);
    const std::vector<TokenId> tokens(shm::kArenaPageTokens, 7);
    shm::PageIndex parent = shm::kNoPage;
    for (int i = 0; i < 3; ++i) parent = store_->Seal(*store_->Allocate(), parent, {}, tokens);
  }

  Output Inspect(const std::string& arguments) const {
    return RunPerdure(home_.path(), "inspect arena " + arguments);
  }

  const shm::ScratchArena scratch_;
  const engine::TempDir home_;
  std::optional<ArenaSegment> segment_;
  std::unique_ptr<shm::PageStore> store_;
};

TEST_F(InspectArena, BesideItsWriter) {
  const Output text = Inspect(segment_->name());
  EXPECT_EQ(text.code, protocol::kExitOk) << text.text;
  EXPECT_THAT(text.text, HasSubstr("fingerprint 000000000000feed"));
  EXPECT_THAT(text.text, HasSubstr("room for 64 of 32 tokens: 3 sealed, 0 open"));
  EXPECT_THAT(text.text, HasSubstr("96"));
  EXPECT_THAT(text.text, testing::Not(HasSubstr("Problems")));
  const Json json = Json::parse(Inspect(segment_->name() + " --json").text);
  EXPECT_EQ(json["name"], segment_->name());
  EXPECT_EQ(json["writer"], getpid());
  EXPECT_EQ(json["pages"]["sealed"], 3);
  EXPECT_EQ(json["longest_chains"][0]["tokens"], 96);
  EXPECT_EQ(json["problems_found"], 0);
}

TEST_F(InspectArena, ByTheModelsName) {
  const Output text = Inspect("'org/some model'");
  EXPECT_EQ(text.code, protocol::kExitOk) << text.text;
  EXPECT_THAT(text.text, HasSubstr(segment_->name()));
  // Of two services, which one?
  const shm::ScratchArena other;
  ASSERT_TRUE(ArenaSegment::Open(other.instance(), "org/some model", 1 << 20).has_value());
  EXPECT_EQ(Inspect("'org/some model'").code, protocol::kExitUsage);
}

TEST_F(InspectArena, OneThatThereIsNot) {
  const Output text = Inspect("nothing");
  EXPECT_EQ(text.code, protocol::kExitUsage);
  EXPECT_THAT(text.text, HasSubstr("there is no arena nothing; there are: "));
  EXPECT_THAT(text.text, HasSubstr(segment_->name()));
  EXPECT_EQ(Inspect("").code, protocol::kExitUsage);
}

TEST_F(InspectArena, ThatIsDamaged) {
  store_.reset();
  const std::string garbage(40'000, '\xa5');
  const auto geometry = shm::ArenaGeometry::For({{{1 << 16}}, 64, 2});
  ASSERT_GT(
      pwrite(segment_->fd(), garbage.data(), 100, static_cast<off_t>(geometry->descriptors_offset)),
      0);
  Output text = Inspect(segment_->name());
  EXPECT_EQ(text.code, protocol::kExitOk) << text.text;
  EXPECT_THAT(text.text, HasSubstr("Problems:\n- page 0: "));
  ASSERT_GT(pwrite(segment_->fd(), garbage.data(), garbage.size(), 0), 0);
  EXPECT_EQ(Inspect(segment_->name()).code, protocol::kExitOk);
  text = Inspect(segment_->name() + " --json");
  EXPECT_GT(Json::parse(text.text)["problems_found"], 0);
}

}  // namespace
}  // namespace perdure::cli
