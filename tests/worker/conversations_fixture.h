// A table of conversations whose pages hold nothing but their tokens.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_view.h"
#include "tests/shm/watched_memory.h"
#include "tests/worker/ids.h"
#include "tests/worker/pair_tokenizer.h"
#include "worker/cache_schedule.h"
#include "worker/conversations.h"
#include "worker/shared_prefixes.h"

namespace perdure::worker {

class ConversationTableTest : public testing::Test {
 protected:
  using PageIndex = shm::PageIndex;
  static constexpr uint64_t kOwner = 7;
  static constexpr PageIndex kPages = 64;

  ConversationTableTest() { Open(); }

  // Anew, with room for so many records.
  void Open(uint32_t records = 200) {
    shm::ArenaShape shape;
    for (const shm::PageFormat format : shm::kAllFormats) shape.page_bytes[format] = 256;
    shape.pages_max = kPages;
    shape.conversations_max = records;
    Take(shm::WatchedMemory::Make(shape));
  }
  // A successor, with the memory as it is now, and room for so many pages.
  void Die(PageIndex pages = kPages) {
    pages_ = pages;
    Take(static_cast<shm::WatchedMemory&>(store_->memory()).Copy());
  }

  // Caches these tokens' pages; the last one. From `answer` on they were drawn.
  PageIndex Cache(const Ids& ids, uint64_t owner, size_t answer, size_t shared_pages = 0) {
    PageIndex parent = shm::kNoPage;
    std::vector<PageIndex> pages;
    for (size_t at = 0; at < ids.size(); at += engine::kPageTokens) {
      const size_t count = std::min<size_t>(engine::kPageTokens, ids.size() - at);
      uint32_t drawn = 0;
      for (size_t i = 0; i < count; ++i)
        if (at + i >= answer) drawn |= uint32_t{1} << i;
      const auto open = store_->Allocate();
      EXPECT_TRUE(open);
      parent = store_->Seal(*open, parent,
                            {shm::PageFormat::kFloat16,
                             at < shared_pages * engine::kPageTokens ? kSharedOwner : owner, 0},
                            std::span(ids).subspan(at, count), drawn);
      pages.push_back(parent);
    }
    for (const PageIndex page : pages) store_->Release(page);
    return parent;
  }

  // A turn of these tokens, all but the last one cached; from `answer` on they were drawn.
  Turn TurnOf(const Ids& ids, uint64_t owner = kOwner, size_t answer = SIZE_MAX) {
    Turn turn;
    turn.owner = owner;
    turn.new_id = "new" + std::to_string(++last_id_);
    turn.ids = ids;
    for (size_t i = 0; i < ids.size(); ++i) turn.drawn.push_back(i >= answer);
    turn.tail = Cache(First(ids, ids.size() - 1), owner, answer);
    return turn;
  }
  std::string Begin(const Ids& ids, uint64_t owner = kOwner) {
    return table_->Commit(TurnOf(ids, owner));
  }
  std::string BeginNamed(const std::string& id, const Ids& ids, uint64_t owner = kOwner) {
    Turn turn = TurnOf(ids, owner);
    turn.id = id;
    turn.named = true;
    return table_->Commit(std::move(turn));
  }
  std::string GoOn(const Recognition& found, const Ids& ids) {
    Turn turn = TurnOf(ids);
    turn.id = found.id;
    return table_->Commit(std::move(turn));
  }

  Recognition Recognize(Ids ids, const std::string& id = "", uint64_t owner = kOwner) {
    RecognitionRequest request;
    request.owner = owner;
    request.id = id;
    return table_->Recognize(request, &ids);
  }
  Recognition RecognizeMessages(const std::vector<uint64_t>& messages, Ids ids = {'?'}) {
    RecognitionRequest request;
    request.owner = kOwner;
    request.messages = messages;
    return table_->Recognize(request, &ids);
  }
  std::vector<std::string> Known() const {
    std::vector<std::string> ids;
    for (const auto& conversation : table_->all()) ids.push_back(conversation->id);
    std::ranges::sort(ids);
    return ids;
  }

  ConversationSettings settings_;
  PairTokenizer tokenizer_;
  int64_t now_ms_ = 1'000'000'000;
  int last_id_ = 0;
  PageIndex pages_ = kPages;
  std::unique_ptr<shm::PageStore> store_;
  std::unique_ptr<ConversationTable> table_;

 private:
  void Take(std::unique_ptr<shm::PageMemory> memory) {
    table_.reset();
    store_ = std::make_unique<shm::PageStore>(std::move(memory), pages_);
    table_ = std::make_unique<ConversationTable>(settings_, store_.get(), &tokenizer_,
                                                 [this] { return now_ms_; });
  }
};

}  // namespace perdure::worker
