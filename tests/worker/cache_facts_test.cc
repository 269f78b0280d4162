// What is told of a store and a table of conversations whose contents are known.
#include "worker/cache_facts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_view.h"
#include "tests/shm/watched_memory.h"
#include "tests/worker/ids.h"
#include "tests/worker/pair_tokenizer.h"
#include "worker/shared_prefixes.h"

namespace perdure::worker {
namespace {

using shm::PageFormat;
using shm::PageIndex;

constexpr size_t kPage = engine::kPageTokens;
constexpr uint64_t kOwner = 7;
constexpr PageIndex kPages = 64;
// Four pages of 16 bits in a slab of 16 KiB, eight of 8 bits, sixteen of 4: nothing is rounded.
constexpr shm::PerFormat<uint64_t> kBytes{{4096, 2048, 1024}};
constexpr uint64_t kSlab = 4 * 4096;
constexpr uint64_t k16 = 4096, k8 = 2048, k4 = 1024;

CacheSchedule ScheduleOf(const std::string& type, int bits = 16, bool pinned = false) {
  CacheSchedule schedule;
  schedule.type = type;
  schedule.segments[0].bits = bits;
  schedule.pinned = pinned;
  return schedule;
}

class CacheFactsTest : public testing::Test {
 protected:
  CacheFactsTest() {
    shm::ArenaShape shape;
    shape.page_bytes = kBytes;
    shape.pages_max = kPages;
    shape.conversations_max = 20;
    store_ = std::make_unique<shm::PageStore>(shm::WatchedMemory::Make(shape), kPages);
    EXPECT_EQ(store_->memory().geometry().slab_bytes, kSlab);
    settings_.conversations_max = 5;
    Open();
  }
  void Open() {
    table_.reset();
    table_ = std::make_unique<ConversationTable>(settings_, store_.get(), &tokenizer_,
                                                 [this] { return now_ms_; });
  }

  // Caches these tokens; the last page.
  PageIndex Cache(const Ids& ids, PageFormat format = PageFormat::kFloat16) {
    PageIndex parent = shm::kNoPage;
    std::vector<PageIndex> pages;
    for (size_t at = 0; at < ids.size(); at += kPage) {
      const auto open = store_->Allocate(format);
      EXPECT_TRUE(open);
      parent = store_->Seal(*open, parent, {format, kOwner, 0},
                            std::span(ids).subspan(at, std::min(kPage, ids.size() - at)));
      pages.push_back(parent);
    }
    for (const PageIndex page : pages) store_->Release(page);
    return parent;
  }
  // A conversation of these tokens, all but the last one cached.
  void Remember(const std::string& id, const Ids& ids, const CacheSchedule& schedule = {},
                PageFormat format = PageFormat::kFloat16) {
    Turn turn;
    turn.owner = kOwner;
    turn.id = id;
    turn.named = true;
    turn.ids = ids;
    turn.drawn.resize(ids.size());
    turn.schedule = schedule;
    turn.tail = Cache(First(ids, ids.size() - 1), format);
    EXPECT_EQ(table_->Commit(std::move(turn)), id);
  }
  std::vector<PageIndex> PagesOf(const std::string& id) const {
    std::vector<PageIndex> path;
    PageIndex page = table_->Get(kOwner, id)->tail;
    for (; page != shm::kNoPage; page = store_->parent(page)) path.insert(path.begin(), page);
    return path;
  }
  CacheFacts Take() const { return TakeFacts(*store_, *table_, counters_); }

  ConversationSettings settings_;
  PairTokenizer tokenizer_;
  int64_t now_ms_ = 1'000'000'000;
  CacheCounters counters_;
  std::unique_ptr<shm::PageStore> store_;
  std::unique_ptr<ConversationTable> table_;
};

// --- Whose memory it is ------------------------------------------------------------------------

TEST_F(CacheFactsTest, AnEmptyCacheHoldsNothing) {
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.bytes_max, kPages * k16);
  EXPECT_EQ(facts.bytes_granted, 0u);
  EXPECT_EQ(facts.bytes_used, 0u);
  EXPECT_EQ(facts.bytes_spare, 0u);
  EXPECT_EQ(facts.tokens, 0u);
  EXPECT_EQ(facts.conversations, 0u);
  EXPECT_EQ(facts.conversations_max, 5u);
  EXPECT_TRUE(facts.types.empty());
  EXPECT_EQ(facts.fragmentation(), 0.0);
  EXPECT_EQ(facts.efficiency(), 0.0);
}

TEST_F(CacheFactsTest, EachTypeHasItsConversations) {
  Remember("a", Text(100, 1), ScheduleOf("kv"));
  Remember("b", Text(70, 2), ScheduleOf("kv"));
  Remember("c", Text(129, 3), ScheduleOf("quantized_kv", 8), PageFormat::kBits8);
  Remember("d", Text(40, 4), ScheduleOf("small", 4), PageFormat::kBits4);
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.conversations, 4u);
  EXPECT_EQ(facts.longest_tokens, 129u);
  EXPECT_EQ(facts.tokens, 99u + 69 + 128 + 39) << "the last one is not computed";
  EXPECT_EQ(facts.pages, (shm::PerFormat<uint64_t>{{4 + 3, 4, 2}}));
  EXPECT_EQ(facts.page_bytes, kBytes);
  EXPECT_EQ(facts.bytes_used, 7 * k16 + 4 * k8 + 2 * k4);
  ASSERT_EQ(facts.types.size(), 3u);
  EXPECT_EQ(facts.types.at("kv").conversations, 2u);
  EXPECT_EQ(facts.types.at("kv").tokens, 170u);
  EXPECT_EQ(facts.types.at("kv").bytes, 7 * k16);
  EXPECT_EQ(facts.types.at("quantized_kv").conversations, 1u);
  EXPECT_EQ(facts.types.at("quantized_kv").tokens, 129u);
  EXPECT_EQ(facts.types.at("quantized_kv").bytes, 4 * k8);
  EXPECT_EQ(facts.types.at("small").tokens, 40u);
  EXPECT_EQ(facts.types.at("small").bytes, 2 * k4);
}

TEST_F(CacheFactsTest, WhatSeveralShareCountsOnce) {
  const Ids common = Text(2 * kPage, 1);
  Remember("a", common + Text(33, 2));
  Remember("b", common + Text(33, 3));
  Remember("c", common + Text(33, 4), ScheduleOf("chunked_kv"));
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.bytes_used, 5 * k16);
  EXPECT_EQ(facts.shared_bytes, 2 * k16);
  EXPECT_EQ(facts.idle_bytes, 5 * k16);
  EXPECT_EQ(facts.tokens, 5 * kPage);
  // Of each type all that its conversations go on from.
  EXPECT_EQ(facts.types.at("kv").bytes, 4 * k16);
  EXPECT_EQ(facts.types.at("chunked_kv").bytes, 3 * k16);
}

TEST_F(CacheFactsTest, EveryByteIsRunningIdleOrUnclaimed) {
  Remember("idle", Text(100, 1));                 // four pages
  Remember("runs", Text(2 * kPage + 1, 2));       // two
  Cache(Text(3 * kPage, 3), PageFormat::kBits8);  // three of nobody
  table_->Begin(kOwner, "runs");
  const auto open = store_->Allocate(PageFormat::kBits4);  // of a request
  const PageIndex used = Cache(Text(kPage, 4));            // so is this one
  ASSERT_TRUE(open && store_->Acquire(used));
  CacheFacts facts = Take();
  EXPECT_EQ(facts.running, 1u);
  EXPECT_EQ(facts.idle_bytes, 4 * k16);
  EXPECT_EQ(facts.unclaimed_bytes, 3 * k8);
  EXPECT_EQ(facts.running_bytes, 2 * k16 + k4 + k16);
  EXPECT_EQ(facts.bytes_used, facts.idle_bytes + facts.unclaimed_bytes + facts.running_bytes);
  EXPECT_EQ(facts.efficiency(), static_cast<double>(facts.bytes_used - 3 * k8) /
                                    static_cast<double>(facts.bytes_granted));
  table_->End(kOwner, "runs");
  store_->Release(*open);
  store_->Release(used);
  facts = Take();
  EXPECT_EQ(facts.running, 0u);
  EXPECT_EQ(facts.running_bytes, 0u);
  EXPECT_EQ(facts.idle_bytes, 6 * k16);
  EXPECT_EQ(facts.unclaimed_bytes, 3 * k8 + k16);
}

// An idle conversation's page is another's, which runs.
TEST_F(CacheFactsTest, WhatARunningConversationNeedsIsRunning) {
  const Ids common = Text(2 * kPage, 1);
  Remember("idle", common + Text(33, 2));
  Remember("runs", common + Text(33, 3));
  table_->Begin(kOwner, "runs");
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.running_bytes, 3 * k16);
  EXPECT_EQ(facts.idle_bytes, k16);
  EXPECT_EQ(facts.shared_bytes, 2 * k16);
}

TEST_F(CacheFactsTest, PinnedBytesAreThoseOfPinnedConversations) {
  Remember("a", Text(100, 1));
  EXPECT_EQ(Take().pinned_bytes, 0u);
  Remember("b", Text(70, 2), ScheduleOf("concatenate_kv", 16, true));
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.pinned_bytes, 3 * k16);
  EXPECT_EQ(facts.idle_bytes, 7 * k16) << "pinned ones are idle as well";
  EXPECT_EQ(facts.running_bytes, 0u);
}

TEST_F(CacheFactsTest, PagesWithoutNumbersTakeNothing) {
  Remember("a", Text(10 * kPage + 1, 1));
  const auto all = static_cast<PageIndex>(kPages);
  std::vector<PageIndex> others;
  for (PageIndex i = 0; i < all - 7; ++i) others.push_back(*store_->Allocate());
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.hollow_pages, 3u);
  EXPECT_EQ(facts.dropped_pages, 3u);
  EXPECT_EQ(facts.tokens, 7 * kPage);
  EXPECT_EQ(facts.idle_bytes, 7 * k16);
  EXPECT_EQ(facts.types.at("kv").bytes, 7 * k16);
  EXPECT_EQ(facts.types.at("kv").tokens, 10 * kPage + 1) << "the conversation is as long as it was";
  EXPECT_EQ(facts.bytes_used, facts.bytes_max);
}

TEST_F(CacheFactsTest, DamageIsCounted) {
  Remember("a", Text(4 * kPage + 1, 1));
  const PageIndex page = PagesOf("a")[2];
  store_->address(page)[5] ^= std::byte{1};
  store_->BeginCheck();
  store_->Scrub(1 << 20);
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.damaged_pages, 2u) << "it, and the one that follows it";
  EXPECT_EQ(facts.bytes_used, 2 * k16);
  EXPECT_EQ(facts.tokens, 2 * kPage);
}

// --- Memory that holds nothing -----------------------------------------------------------------

TEST_F(CacheFactsTest, FullSlabsAreNotFragmented) {
  Remember("a", Text(8 * kPage + 1, 1));
  Remember("b", Text(8 * kPage + 1, 2), ScheduleOf("quantized_kv", 8), PageFormat::kBits8);
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.bytes_granted, 3 * kSlab);
  EXPECT_EQ(facts.bytes_used, 3 * kSlab);
  EXPECT_EQ(facts.bytes_spare, 0u);
  EXPECT_EQ(facts.fragmentation(), 0.0);
  EXPECT_EQ(facts.efficiency(), 1.0);
}

TEST_F(CacheFactsTest, TheRestOfASlabIsNoSpareOne) {
  Remember("a", Text(5 * kPage + 1, 1));
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.bytes_granted, 2 * kSlab);
  EXPECT_EQ(facts.fragmentation(), 3.0 / 8);
  EXPECT_EQ(facts.bytes_spare, 0u);
  EXPECT_EQ(facts.efficiency(), 5.0 / 8);
}

TEST_F(CacheFactsTest, SpareIsWhatPagesThatLieTogetherWouldNotNeed) {
  std::vector<PageIndex> pages;
  for (int i = 0; i < 16; ++i) pages.push_back(*store_->Allocate());
  for (size_t i = 0; i < 16; ++i)
    if (i % 4 != 0) store_->Release(pages[i]);
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.bytes_granted, 4 * kSlab);
  EXPECT_EQ(facts.fragmentation(), 0.75);
  EXPECT_EQ(facts.bytes_spare, 3 * kSlab);
  ASSERT_TRUE(store_->Compact(UINT64_MAX));
  EXPECT_EQ(store_->ReleaseUnused(), facts.bytes_spare);
  const CacheFacts after = Take();
  EXPECT_EQ(after.fragmentation(), 0.0);
  EXPECT_EQ(after.bytes_spare, 0u);
  EXPECT_EQ(after.bytes_used, facts.bytes_used);
}

// --- Counted -----------------------------------------------------------------------------------

TEST_F(CacheFactsTest, UseIsCountedWhereThereIsNoConversationToo) {
  counters_.all = {5, 1000, 400};
  counters_.by_type["kv"] = {3, 600, 390};
  counters_.by_type["rotating_kv"] = {2, 400, 10};
  Remember("a", Text(40, 1));
  const CacheFacts facts = Take();
  EXPECT_EQ(facts.use.requests, 5u);
  EXPECT_EQ(facts.use.hit_rate(), 0.4);
  EXPECT_EQ(facts.types.at("kv").conversations, 1u);
  EXPECT_EQ(facts.types.at("kv").use.hit_rate(), 0.65);
  EXPECT_EQ(facts.types.at("rotating_kv").conversations, 0u);
  EXPECT_EQ(facts.types.at("rotating_kv").bytes, 0u);
  EXPECT_EQ(facts.types.at("rotating_kv").use.requests, 2u);
  EXPECT_EQ(CacheUse().hit_rate(), 0.0);
}

TEST_F(CacheFactsTest, WhatBecameOfConversationsIsTold) {
  for (int i = 0; i < 7; ++i) Remember("c" + std::to_string(i), Text(40, i));
  Remember("c6", Text(40, 6) + Text(20, 1));
  CacheFacts facts = Take();
  EXPECT_EQ(facts.conversations, 5u);
  EXPECT_EQ(facts.totals.begun, 7u);
  EXPECT_EQ(facts.totals.continued, 1u);
  EXPECT_EQ(facts.totals.displaced, 2u);
  Open();
  EXPECT_EQ(Take().totals.recovered, 5u);
  now_ms_ += 1000 * int64_t{settings_.idle_timeout_s} + 1;
  table_->Expire();
  facts = Take();
  EXPECT_EQ(facts.totals.expired, 5u);
  EXPECT_EQ(facts.conversations, 0u);
}

// --- As JSON -----------------------------------------------------------------------------------

// As docs/caching.md has it.
TEST_F(CacheFactsTest, JsonHasEveryFact) {
  Remember("a", Text(2 * kPage, 1) + Text(33, 2));
  Remember("b", Text(2 * kPage, 1) + Text(33, 3), ScheduleOf("concatenate_kv", 16, true));
  Remember("c", Text(40, 4), ScheduleOf("quantized_kv", 4), PageFormat::kBits4);
  table_->Begin(kOwner, "c");
  Cache(Text(kPage, 5), PageFormat::kBits8);
  counters_.all = {4, 200, 50};
  counters_.by_type["kv"] = {4, 200, 50};
  CacheFacts facts = Take();
  facts.type = "small";
  facts.description = "small: 4 bits";
  facts.optimized_unix_s = 1'700'000'000;
  facts.dropped_pages = 11;
  facts.damaged_pages = 12;
  facts.hollow_pages = 13;
  facts.totals = {1, 2, 3, 4, 5, 6};
  const double used = 4 * k16 + k8 + 2 * k4, granted = 3 * kSlab;
  const nlohmann::json expected = {{"type", "small"},
                                   {"description", "small: 4 bits"},
                                   {"entries", 3},
                                   {"tokens", 4 * kPage + 39 + kPage},
                                   {"bytes", used},
                                   {"bytes_granted", granted},
                                   {"bytes_spare", 0},
                                   {"bytes_max", kPages * k16},
                                   {"requests", 4},
                                   {"prompt_tokens", 200},
                                   {"cached_tokens", 50},
                                   {"hit_rate", 0.25},
                                   {"last_optimized", 1'700'000'000},
                                   {"fragmentation", (granted - used) / granted},
                                   {"memory_efficiency", (used - k8) / granted},
                                   {"memory",
                                    {{"running_bytes", 2 * k4},
                                     {"idle_bytes", 4 * k16},
                                     {"unclaimed_bytes", k8},
                                     {"pinned_bytes", 3 * k16},
                                     {"shared_bytes", 2 * k16}}},
                                   {"pages",
                                    {{"bits16", 4},
                                     {"bits8", 1},
                                     {"bits4", 2},
                                     {"hollow", 13},
                                     {"dropped", 11},
                                     {"damaged", 12}}},
                                   {"conversations",
                                    {{"total_conversations", 3},
                                     {"max", 5},
                                     {"running", 1},
                                     {"begun", 1},
                                     {"continued", 2},
                                     {"expired", 3},
                                     {"displaced", 4},
                                     {"spliced_tokens", 5},
                                     {"recovered", 6},
                                     {"longest_tokens", 2 * kPage + 33}}},
                                   {"types",
                                    {{"kv",
                                      {{"entries", 1},
                                       {"tokens", 2 * kPage + 33},
                                       {"bytes", 3 * k16},
                                       {"requests", 4},
                                       {"prompt_tokens", 200},
                                       {"cached_tokens", 50},
                                       {"hit_rate", 0.25}}},
                                     {"concatenate_kv",
                                      {{"entries", 1},
                                       {"tokens", 2 * kPage + 33},
                                       {"bytes", 3 * k16},
                                       {"requests", 0},
                                       {"prompt_tokens", 0},
                                       {"cached_tokens", 0},
                                       {"hit_rate", 0}}},
                                     {"quantized_kv",
                                      {{"entries", 1},
                                       {"tokens", 40},
                                       {"bytes", 2 * k4},
                                       {"requests", 0},
                                       {"prompt_tokens", 0},
                                       {"cached_tokens", 0},
                                       {"hit_rate", 0}}}}}};
  EXPECT_EQ(nlohmann::json::parse(DumpJson(FactsJson(facts))), expected)
      << nlohmann::json::diff(nlohmann::json::parse(DumpJson(FactsJson(facts))), expected);
}

TEST_F(CacheFactsTest, JsonOfAnEmptyCacheIsWhole) {
  const Json json = FactsJson(Take());
  EXPECT_TRUE(json.at("last_optimized").is_null());
  EXPECT_EQ(json.at("types"), Json::object());
  EXPECT_EQ(json.at("hit_rate"), 0);
  EXPECT_EQ(json.at("fragmentation"), 0);
  EXPECT_EQ(json.at("memory_efficiency"), 0);
}

}  // namespace
}  // namespace perdure::worker
