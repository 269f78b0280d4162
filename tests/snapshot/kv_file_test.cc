#include "snapshot/kv_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>

#include "base/limits.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/kv_pages.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;

class KvFileTest : public testing::Test {
 protected:
  KvFileTest() { Reopen(); }
  void Reopen() {
    file_.reset();
    auto opened = KvFile::Open(options_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    file_ = std::move(*opened);
    found_ = file_->TakePages();
  }
  void Write(const std::vector<PageWithData>& pages) {
    std::vector<PageToWrite> writes;
    for (const PageWithData& page : pages) writes.push_back(page.ToWrite());
    const Status status = file_->Write(writes);
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  Result<std::vector<std::byte>> Read(const StoredPage& page) {
    std::vector<std::byte> data(page.data_bytes);
    RETURN_IF_ERROR(file_->Read(page, data));
    return data;
  }
  void ExpectThere(const std::vector<PageWithData>& pages) {
    ASSERT_EQ(found_.size(), pages.size());
    for (const PageWithData& page : pages) {
      const auto it = std::ranges::find(found_, page.page.chain_hash, &StoredPage::chain_hash);
      ASSERT_NE(it, found_.end());
      EXPECT_TRUE(Same(*it, page.page));
      const auto data = Read(*it);
      ASSERT_TRUE(data.has_value()) << data.error().message;
      EXPECT_TRUE(*data == page.data);
    }
  }
  // Opened after `change`, `page` is gone with all that belonged to it, and nothing else is.
  void ExpectDropped(const std::function<void()>& change, std::string_view why) {
    SCOPED_TRACE(why);
    file_.reset();
    change();
    Reopen();
    ExpectThere({other_});
    ASSERT_FALSE(file_->problems().empty());
    EXPECT_NE(file_->problems()[0].find(why), std::string::npos) << file_->problems()[0];
    file_.reset();
    EXPECT_EQ(ReadRaw(path_, "pages").size(), 1u);
    EXPECT_EQ(ReadRaw(path_, "chunks").size(), 1u);
    Reopen();
    EXPECT_TRUE(file_->problems().empty());
    Write({page_});
  }
  // The record of page_ with its fields changed, and a right checksum.
  void ExpectDropped(const std::function<void(PageRecord*)>& change, std::string_view why) {
    ExpectDropped(
        [&] {
          PageRecord record = *Unseal<PageRecord>(key_, ReadRaw(path_, "pages").at(key_));
          change(&record);
          WriteRaw(path_, "pages", key_, Seal(key_, record));
        },
        why);
  }

  const TempFolder folder_;
  const fs::path path_ = folder_.path() / "kv.mdb";
  KvFile::Options options_{.file = path_, .model = "nano", .bytes_max = 64 << 20, .sync = false};
  std::unique_ptr<KvFile> file_;
  std::vector<StoredPage> found_;
  // Three chunks; and one.
  const PageWithData page_ = NumberedPage(1, 2 * kChunkBytes + 100), other_ = NumberedPage(2, 300);
  const std::string key_ = PageKeyBytes(page_.page.chain_hash);
};

TEST_F(KvFileTest, PagesOfAllSizes) {
  std::vector<PageWithData> pages;
  uint32_t number = 0;
  for (const uint32_t bytes :
       {uint32_t{1}, uint32_t{2000}, uint32_t{4096}, uint32_t{kChunkBytes - 1},
        uint32_t{kChunkBytes}, uint32_t{kChunkBytes + 1}, uint32_t{2 * kChunkBytes},
        uint32_t{3'670'016}, uint32_t{7'000'001}})
    pages.push_back(NumberedPage(++number, bytes));
  Write(pages);
  Reopen();
  ExpectThere(pages);
  EXPECT_TRUE(file_->problems().empty());
  uint64_t expected = 0;
  for (const PageWithData& page : pages) expected += PageFileBytes(page.page.data_bytes);
  EXPECT_LE(file_->environment().used_bytes(), expected + 16 * 4096);
  EXPECT_GE(file_->environment().used_bytes(), expected * 9 / 10);
  ASSERT_TRUE(file_->Compact().has_value());
  Reopen();
  ExpectThere(pages);
}

TEST_F(KvFileTest, APageIsWrittenAgain) {
  Write({page_, other_});
  // With fewer chunks and other numbers.
  PageWithData again = page_;
  again.data.resize(10);
  again.page.data_bytes = 10;
  again.page.data_checksum = Hash64(again.data);
  Write({again});
  Reopen();
  ExpectThere({again, other_});
  EXPECT_TRUE(file_->problems().empty());
  Write({page_});
  Reopen();
  ExpectThere({page_, other_});
}

TEST_F(KvFileTest, WrongPagesAreNotWritten) {
  Write({other_});
  const PageWithData right = NumberedPage(3, 5);
  const auto expect_refused = [&](const std::function<void(PageWithData*)>& change) {
    PageWithData wrong = page_;
    change(&wrong);
    const PageToWrite writes[] = {right.ToWrite(), wrong.ToWrite()};
    EXPECT_FALSE(file_->Write(writes).has_value());
  };
  expect_refused([](PageWithData* page) { page->data[7] ^= std::byte{1}; });
  expect_refused([](PageWithData* page) { page->data.pop_back(); });
  expect_refused([](PageWithData* page) { ++page->page.chain_hash; });
  expect_refused([](PageWithData* page) { page->page.tokens.clear(); });
  expect_refused([](PageWithData* page) { page->page.tokens.assign(33, 1); });
  Reopen();
  ExpectThere({other_});
}

TEST_F(KvFileTest, DeleteLeavesNothing) {
  Write({page_, other_});
  const uint64_t hashes[] = {page_.page.chain_hash, 12345};
  ASSERT_TRUE(file_->Delete(hashes).has_value());
  EXPECT_FALSE(Read(page_.page).has_value());
  ASSERT_TRUE(file_->Compact().has_value());
  file_.reset();
  EXPECT_EQ(ReadRaw(path_, "pages").size(), 1u);
  EXPECT_EQ(ReadRaw(path_, "chunks").size(), 1u);
  const std::string pattern(reinterpret_cast<const char*>(page_.data.data()) + 70'000, 16);
  EXPECT_EQ(BytesOfFile(path_).find(pattern), std::string::npos);
  Reopen();
  ExpectThere({other_});
}

TEST_F(KvFileTest, TouchTellsTheFile) {
  Write({page_, other_});
  const std::pair<uint64_t, uint32_t> used[] = {{page_.page.chain_hash, 777}, {12345, 888}};
  ASSERT_TRUE(file_->Touch(used).has_value());
  Reopen();
  PageWithData touched = page_;
  touched.page.used_unix_s = 777;
  ExpectThere({touched, other_});
}

TEST_F(KvFileTest, AFullFileGoesOn) {
  file_.reset();
  fs::remove(path_);
  options_.bytes_max = 3 << 20;
  Reopen();
  uint32_t stored = 0;
  for (;; ++stored) {
    const PageWithData page = NumberedPage(stored, 200'000);
    if (!file_->Write(std::array{page.ToWrite()})) break;
  }
  EXPECT_EQ(file_->environment().last_failure(), Environment::Failure::kFull);
  EXPECT_GT(stored, 8u);
  for (uint32_t i = 0; i < 40; ++i) {
    const uint64_t oldest = NumberedPage(i, 200'000).page.chain_hash;
    ASSERT_TRUE(file_->Delete(std::span(&oldest, 1)).has_value());
    Write({NumberedPage(stored + i, 200'000)});
  }
  Reopen();
  std::vector<PageWithData> pages;
  for (uint32_t i = 40; i < stored + 40; ++i) pages.push_back(NumberedPage(i, 200'000));
  std::erase_if(pages, [&](const PageWithData& page) {
    return std::ranges::find(found_, page.page.chain_hash, &StoredPage::chain_hash) == found_.end();
  });
  EXPECT_EQ(pages.size(), std::min(stored, 40u) + (stored > 40 ? stored - 40 : 0));
  ExpectThere(pages);
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(KvFileTest, OneFlippedBitOfARecord) {
  Write({page_, other_});
  file_.reset();
  const std::string record = ReadRaw(path_, "pages").at(key_);
  for (size_t byte = 0; byte < record.size() && !HasFailure(); ++byte)
    ExpectDropped(
        [&] {
          std::string damaged = record;
          damaged[byte] ^= static_cast<char>(1 << byte % 8);
          WriteRaw(path_, "pages", key_, damaged);
        },
        "a page record has a wrong checksum");
}

TEST_F(KvFileTest, RecordsThatMakeNoSense) {
  Write({page_, other_});
  using R = PageRecord;
  ExpectDropped([](R* r) { r->format = 3; }, "an unknown format");
  ExpectDropped([](R* r) { r->tokens.clear(); }, "a wrong number of tokens");
  ExpectDropped([](R* r) { r->tokens.resize(33); }, "a wrong number of tokens");
  ExpectDropped([](R* r) { r->tokens[0] ^= 1; }, "another hash than its tokens have");
  ExpectDropped([](R* r) { r->parent ^= 1; }, "another hash");
  ExpectDropped([](R* r) { r->owner ^= 1; }, "another hash");
  ExpectDropped([](R* r) { r->mask ^= 1; }, "another hash");
  ExpectDropped([](R* r) { r->position = UINT32_MAX; }, "a position beyond");
  ExpectDropped([](R* r) { r->data_bytes = 0; }, "a wrong number of bytes");
  ExpectDropped([](R* r) { r->data_bytes = UINT32_MAX; }, "a wrong number of bytes");
  ExpectDropped([](R* r) { r->chunks = 4; }, "a wrong number of chunks");
  ExpectDropped([](R* r) { r->codec = 2; }, "chunks that this program cannot read");
}

TEST_F(KvFileTest, RecordsOfAnotherKind) {
  Write({page_, other_});
  file_.reset();
  const std::string record = ReadRaw(path_, "pages").at(key_);
  const std::string payload = record.substr(kRecordHeaderBytes);
  const auto put = [&](const std::string& text) {
    return [this, text] { WriteRaw(path_, "pages", key_, text); };
  };
  ExpectDropped(put(""), "fewer than its header");
  ExpectDropped(put(SealRecord(RecordKind::kTurn, 1, key_, payload)), "is of another kind");
  ExpectDropped(put(SealRecord(RecordKind::kPage, 2, key_, payload)), "has version 2");
  ExpectDropped(put(SealRecord(RecordKind::kPage, 1, key_, payload + "x")), "is malformed");
  ExpectDropped(put(SealRecord(RecordKind::kPage, 1, key_, payload.substr(1))), "is malformed");
  // A count of tokens beyond all that is there: behind parent, position, format, owner and mask.
  std::string overflow = payload;
  for (size_t i = 29; i < 33; ++i) overflow[i] = '\xff';
  ExpectDropped(put(SealRecord(RecordKind::kPage, 1, key_, overflow)), "is malformed");
  // Under a key that is none, and under another page's.
  const std::string elsewhere = PageKeyBytes(99);
  ExpectDropped(
      [&] {
        WriteRaw(path_, "pages", key_, std::nullopt);
        WriteRaw(path_, "pages", elsewhere, record);
      },
      "a wrong checksum");
  ExpectDropped(
      [&] {
        WriteRaw(path_, "pages", key_, std::nullopt);
        WriteRaw(path_, "pages", "odd", record);
      },
      "a key that is none");
}

TEST_F(KvFileTest, ChunksThatAreMissing) {
  Write({page_, other_});
  for (uint16_t chunk = 0; chunk < 3; ++chunk)
    ExpectDropped(
        [&] { WriteRaw(path_, "chunks", ChunkKey(page_.page.chain_hash, chunk), std::nullopt); },
        chunk == 2 ? "has not all of its chunks" : "chunks belonged to no page");
}

TEST_F(KvFileTest, ChunksOfNoPage) {
  Write({page_, other_});
  ExpectDropped([&] { WriteRaw(path_, "pages", key_, std::nullopt); },
                "3 chunks belonged to no page");
  // Beside pages that are whole.
  file_.reset();
  const std::vector<std::string> keys = {"odd",
                                         "",
                                         ChunkKey(page_.page.chain_hash, 3),
                                         ChunkKey(page_.page.chain_hash, 9),
                                         ChunkKey(0, 0),
                                         ChunkKey(UINT64_MAX, 5)};
  for (const std::string& key : keys)
    if (!key.empty()) WriteRaw(path_, "chunks", key, "chunk");
  Reopen();
  EXPECT_EQ(file_->problems(), (std::vector<std::string>{"5 chunks belonged to no page"}));
  ExpectThere({page_, other_});
  Reopen();
  EXPECT_TRUE(file_->problems().empty());
}

TEST_F(KvFileTest, ManyProblemsAreCounted) {
  Write({other_});
  file_.reset();
  // More than are dropped at once.
  const EnvironmentOptions options{
      .file = path_, .name = "kv", .model = "nano", .bytes_max = 64 << 20, .sync = false};
  {
    auto environment = Environment::Open(options, {"pages", "chunks"});
    Content records, chunks;
    for (uint64_t i = 0; i < 2 * limits::kSnapshotDropsAtOnce + 10; ++i) {
      records[PageKeyBytes(i * 0x9E3779B97F4A7C15u)] = "wrong";
      chunks[ChunkKey(i * 0x9E3779B97F4A7C15u, 0)] = "wrong";
    }
    ASSERT_TRUE(PutAll(environment->get(), records, 0).has_value());
    ASSERT_TRUE(PutAll(environment->get(), chunks, 1).has_value());
  }
  Reopen();
  ExpectThere({other_});
  EXPECT_EQ(file_->problems().size(), limits::kSnapshotProblemsShown + 1);
  EXPECT_EQ(file_->problems().back(),
            fmt::format("and {} more",
                        2 * limits::kSnapshotDropsAtOnce + 11 - limits::kSnapshotProblemsShown));
  Reopen();
  EXPECT_TRUE(file_->problems().empty());
}

TEST_F(KvFileTest, ADamagedChunkIsFoundWhenItIsRead) {
  for (uint16_t chunk = 0; chunk < 3; ++chunk) {
    for (const size_t byte : {size_t{0}, size_t{7}, size_t{8}, size_t{50}}) {
      Write({page_, other_});
      file_.reset();
      const std::string key = ChunkKey(page_.page.chain_hash, chunk);
      std::string value = ReadRaw(path_, "chunks").at(key);
      value[byte] ^= 4;
      WriteRaw(path_, "chunks", key, value);
      Reopen();
      EXPECT_TRUE(file_->problems().empty());
      const auto data = Read(page_.page);
      ASSERT_FALSE(data.has_value());
      EXPECT_EQ(data.error().code, ErrorCode::io_error);
      EXPECT_NE(data.error().message.find(fmt::format("has a damaged chunk {}", chunk)),
                std::string::npos);
      EXPECT_FALSE(file_->environment().is_broken());
      Reopen();
      ExpectThere({other_});
    }
  }
}

TEST_F(KvFileTest, ChunksOfAnotherLengthOrPlace) {
  const std::string key = ChunkKey(page_.page.chain_hash, 0);
  for (const bool is_short : {true, false}) {
    Write({page_, other_});
    file_.reset();
    const auto chunks = ReadRaw(path_, "chunks");
    WriteRaw(path_, "chunks", key,
             is_short ? "short" : chunks.at(ChunkKey(page_.page.chain_hash, 1)));
    Reopen();
    EXPECT_FALSE(Read(page_.page).has_value());
    Reopen();
    ExpectThere({other_});
  }
  // All chunks are right, but of other numbers.
  Write({page_});
  StoredPage wrong = page_.page;
  wrong.data_checksum ^= 1;
  EXPECT_FALSE(Read(wrong).has_value());
  std::vector<std::byte> too_small(10);
  EXPECT_FALSE(file_->Read(other_.page, too_small).has_value());
  EXPECT_TRUE(Read(other_.page).has_value());
}

TEST_F(KvFileTest, CutShort) {
  Write({page_, other_});
  ASSERT_TRUE(file_->environment().Sync().has_value());
  const auto bytes = static_cast<off_t>(fs::file_size(path_));
  ASSERT_EQ(truncate(path_.c_str(), 4096), 0);
  const auto data = Read(page_.page);
  ASSERT_FALSE(data.has_value());
  EXPECT_TRUE(file_->environment().is_broken());
  EXPECT_FALSE(Read(other_.page).has_value());
  EXPECT_FALSE(file_->Write(std::array{page_.ToWrite()}).has_value());
  Reopen();
  ExpectThere({});
  EXPECT_EQ(PutAsideOf(path_).size(), 1u);
  // As long as before, with nothing in it.
  Write({page_, other_});
  file_.reset();
  ASSERT_EQ(truncate(path_.c_str(), 2 * 4096), 0);
  ASSERT_EQ(truncate(path_.c_str(), bytes), 0);
  Reopen();
  ExpectThere({});
  Write({page_, other_});
  Reopen();
  ExpectThere({page_, other_});
}

TEST_F(KvFileTest, OfAnotherModel) {
  Write({page_});
  options_.model = "other";
  Reopen();
  ExpectThere({});
  EXPECT_EQ(PutAsideOf(path_).size(), 1u);
}

TEST_F(KvFileTest, WhatIsErasedIsToBeScrubbedAndWhatMakesRoomIsNot) {
  Write({page_, other_});
  ASSERT_TRUE(file_->Delete(std::span(&page_.page.chain_hash, 1)).has_value());
  EXPECT_FALSE(file_->environment().needs_scrub());
  ASSERT_TRUE(file_->Erase(std::span(&other_.page.chain_hash, 1)).has_value());
  EXPECT_TRUE(file_->environment().needs_scrub());
  Reopen();
  ExpectThere({});
  EXPECT_TRUE(file_->environment().needs_scrub());
  ASSERT_TRUE(file_->Compact().has_value());
  EXPECT_FALSE(file_->environment().needs_scrub());
  // What is gone already may be found in older states of the file.
  ASSERT_TRUE(file_->Erase({}).has_value());
  EXPECT_TRUE(file_->environment().needs_scrub());
}

}  // namespace
}  // namespace perdure::snapshot
