// Pages that are compressed in the file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/hash.h"
#include "snapshot/format.h"
#include "snapshot/kv_file.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"
#include "tests/snapshot/kv_pages.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::snapshot {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kBytes = 200'000;

// Numbers that are near each other, as those of a model are; about half of the bytes is news.
PageWithData SmoothPage(uint32_t number, uint32_t bytes = kBytes) {
  PageWithData made = NumberedPage(number, bytes);
  for (size_t i = 1; i < made.data.size(); i += 2) made.data[i] = std::byte{0x3f};
  made.page.data_checksum = Hash64(made.data);
  return made;
}

class KvCompressionTest : public testing::Test {
 protected:
  KvCompressionTest() {
    options_.file = path_;
    options_.model = "nano";
    options_.bytes_max = 64 << 20;
    options_.sync = false;
    options_.compression = KvCompression::kZstd;
    Reopen();
  }
  void Reopen() {
    file_.reset();
    auto opened = KvFile::Open(options_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    file_ = std::move(*opened);
    found_ = file_->TakePages();
  }
  StoredPage Write(const PageWithData& page) {
    const PageToWrite write = page.ToWrite();
    std::vector<StoredPage> stored;
    const Status written = file_->Write(std::span(&write, 1), &stored);
    EXPECT_TRUE(written.has_value()) << written.error().message;
    return stored.size() == 1 ? stored[0] : StoredPage{};
  }
  Status Read(const StoredPage& page, const PageWithData& expected) {
    std::vector<std::byte> data(page.data_bytes + 16, std::byte{0xee});
    RETURN_IF_ERROR(file_->Read(page, std::span(data).first(page.data_bytes)));
    EXPECT_TRUE(std::equal(expected.data.begin(), expected.data.end(), data.begin()));
    EXPECT_TRUE(std::all_of(data.end() - 16, data.end(),
                            [](std::byte byte) { return byte == std::byte{0xee}; }));
    return {};
  }
  const StoredPage* Found(const PageWithData& page) {
    const auto it = std::ranges::find(found_, page.page.chain_hash, &StoredPage::chain_hash);
    return it == found_.end() ? nullptr : &*it;
  }
  // Its chunks, put together.
  std::string Stored(const PageWithData& page) {
    std::string bytes;
    for (const auto& [key, value] : ReadRaw(path_, "chunks"))
      if (key.starts_with(PageKeyBytes(page.page.chain_hash))) bytes += value.substr(8);
    return bytes;
  }
  // What the file has of the page, with right checksums.
  void Store(const PageWithData& page, const std::string& bytes,
             const std::function<void(PageRecord*)>& change = nullptr) {
    file_.reset();
    const std::string key = PageKeyBytes(page.page.chain_hash);
    for (const auto& [chunk_key, value] : ReadRaw(path_, "chunks"))
      if (chunk_key.starts_with(key)) WriteRaw(path_, "chunks", chunk_key, std::nullopt);
    uint16_t chunk = 0;
    for (size_t at = 0; at < bytes.size(); at += kChunkBytes, ++chunk) {
      const std::string part = bytes.substr(at, kChunkBytes);
      const std::string chunk_key = ChunkKey(page.page.chain_hash, chunk);
      const uint64_t checksum = Hash64(chunk_key + part);
      WriteRaw(path_, "chunks", chunk_key,
               std::string(reinterpret_cast<const char*>(&checksum), sizeof checksum) + part);
    }
    PageRecord record = *Unseal<PageRecord>(key, ReadRaw(path_, "pages").at(key));
    record.chunks = chunk;
    if (change) change(&record);
    WriteRaw(path_, "pages", key, Seal(key, record));
    Reopen();
  }

  TempFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "kv.mdb";
  KvFile::Options options_;
  std::unique_ptr<KvFile> file_;
  std::vector<StoredPage> found_;
};

TEST_F(KvCompressionTest, PagesComeBackAsTheyWere) {
  for (const uint32_t bytes :
       {100u, 5'000u, uint32_t{kChunkBytes}, uint32_t{kChunkBytes} + 1, kBytes, 3'670'016u}) {
    SCOPED_TRACE(bytes);
    const PageWithData page = SmoothPage(bytes, bytes);
    const StoredPage stored = Write(page);
    EXPECT_TRUE(Same(stored, page.page));
    EXPECT_TRUE(Read(stored, page).has_value());
    if (bytes >= kChunkBytes) {
      EXPECT_EQ(stored.compression, KvCompression::kZstd);
      EXPECT_LT(stored.stored_bytes(), bytes * 2 / 3);
    }
    Reopen();
    ASSERT_NE(Found(page), nullptr);
    EXPECT_EQ(Found(page)->compression, stored.compression);
    EXPECT_EQ(Found(page)->stored_bytes(), stored.stored_bytes()) << "as it was told when written";
    EXPECT_TRUE(Read(*Found(page), page).has_value());
  }
  EXPECT_EQ(found_.size(), 6u);
  EXPECT_THAT(file_->problems(), IsEmpty());
}

TEST_F(KvCompressionTest, WhatDoesNotShrinkStaysAsItIs) {
  const PageWithData page = NumberedPage(1, kBytes);
  EXPECT_EQ(Write(page).compression, KvCompression::kNone);
  Reopen();
  EXPECT_EQ(Found(page)->stored_bytes(), kBytes);
  EXPECT_TRUE(Read(*Found(page), page).has_value());
  file_.reset();
  EXPECT_EQ(Stored(page), std::string(reinterpret_cast<const char*>(page.data.data()), kBytes));
}

TEST_F(KvCompressionTest, AFileHasBothKinds) {
  const PageWithData a = SmoothPage(1), b = SmoothPage(2);
  Write(a);
  options_.compression = KvCompression::kNone;
  Reopen();
  EXPECT_TRUE(Read(*Found(a), a).has_value()) << "whatever is to be written";
  EXPECT_EQ(Write(b).compression, KvCompression::kNone);
  // In the place of the other kind.
  EXPECT_EQ(Write(a).compression, KvCompression::kNone);
  options_.compression = KvCompression::kZstd;
  Reopen();
  EXPECT_TRUE(Read(*Found(a), a).has_value());
  EXPECT_TRUE(Read(*Found(b), b).has_value());
  EXPECT_EQ(Write(a).compression, KvCompression::kZstd);
  Reopen();
  EXPECT_THAT(file_->problems(), IsEmpty());
  EXPECT_TRUE(Read(*Found(a), a).has_value());
  file_.reset();
  EXPECT_EQ(ReadRaw(path_, "chunks").size(), 2u + 4u);
}

TEST_F(KvCompressionTest, TakesLessOfTheBound) {
  KvIndex index(kRoot);
  const StoredPage stored = Write(SmoothPage(1));
  index.Add(stored);
  EXPECT_LT(index.bytes(), PageFileBytes(kBytes) * 2 / 3);
  EXPECT_THAT(index.Beyond(PageFileBytes(kBytes) * 2 / 3, 10), IsEmpty());
  index.Remove(stored.chain_hash);
  EXPECT_EQ(index.bytes(), 0u);
}

// --- Damage --------------------------------------------------------------------------------------

TEST_F(KvCompressionTest, ADamagedPageIsDroppedAlone) {
  const PageWithData a = SmoothPage(1), b = SmoothPage(2);
  Write(a);
  Write(b);
  file_.reset();
  const std::string whole = Stored(a);
  for (const size_t at : {size_t{0}, size_t{5}, whole.size() / 2, whole.size() - 1}) {
    SCOPED_TRACE(at);
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    Store(a, bytes);
    ASSERT_NE(Found(a), nullptr);
    EXPECT_FALSE(Read(*Found(a), a).has_value());
    EXPECT_TRUE(Read(*Found(b), b).has_value());
    Reopen();
    EXPECT_EQ(Found(a), nullptr) << "it is gone";
    Write(a);
  }
}

TEST_F(KvCompressionTest, NoMoreIsMadeOfItThanItSays) {
  const PageWithData a = SmoothPage(1);
  Write(a);
  // A frame of another length: a thousand times as long, a little longer, a little shorter.
  for (const size_t bytes : {size_t{kBytes} * 1000, size_t{kBytes} + 1, size_t{kBytes} - 1}) {
    SCOPED_TRACE(bytes);
    const std::string content(bytes, 'x');
    std::string frame(ZSTD_compressBound(bytes), '\0');
    frame.resize(ZSTD_compress(frame.data(), frame.size(), content.data(), bytes, 1));
    ASSERT_LT(frame.size(), kBytes);
    Store(a, frame);
    ASSERT_NE(Found(a), nullptr);
    const Status read = Read(*Found(a), a);
    ASSERT_FALSE(read.has_value());
    EXPECT_THAT(read.error().message, HasSubstr("cannot be decompressed"));
    Reopen();
    Write(a);
  }
}

TEST_F(KvCompressionTest, AStartDropsWhatCannotBe) {
  const PageWithData a = SmoothPage(1), b = SmoothPage(2);
  Write(a);
  Write(b);
  file_.reset();
  const std::string whole = Stored(a);
  const auto dropped = [&](const std::string& bytes, const std::function<void(PageRecord*)>& change,
                           std::string_view why) {
    SCOPED_TRACE(why);
    Store(a, bytes, change);
    EXPECT_EQ(Found(a), nullptr);
    EXPECT_NE(Found(b), nullptr);
    ASSERT_FALSE(file_->problems().empty());
    EXPECT_THAT(file_->problems()[0], HasSubstr(std::string(why)));
    Reopen();
    EXPECT_THAT(file_->problems(), IsEmpty());
    Write(a);
  };
  dropped(
      whole, [](PageRecord* r) { r->codec = 2; }, "chunks that this program cannot read");
  dropped(
      whole, [](PageRecord* r) { r->chunks = 0; }, "a wrong number of chunks");
  dropped(
      whole, [](PageRecord* r) { r->chunks = 5; }, "a wrong number of chunks");
  dropped(
      whole, [](PageRecord* r) { ++r->chunks; }, "chunks belonged to no page");
  // As it would be without compression, and longer than that.
  dropped(
      whole, [](PageRecord* r) { r->codec = 0; }, "a wrong number of chunks");
  dropped(std::string(kBytes, 'x'), nullptr, "chunks belonged to no page");
}

}  // namespace
}  // namespace perdure::snapshot
