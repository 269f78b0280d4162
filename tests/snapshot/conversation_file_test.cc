#include "snapshot/conversation_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include "base/limits.h"
#include "shm/layout.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/conversation_files.h"

namespace perdure::snapshot {
namespace {

using testing::HasSubstr;

class ConversationFileTest : public testing::Test {
 protected:
  std::string Bytes() const { return BytesAt(path_); }
  // Why such a file is refused; empty: it is not.
  static std::string RefusalOf(const std::string& bytes) {
    const auto read = ReadAll(InMemory(bytes));
    if (read) return "";
    EXPECT_EQ(read.error().code, ErrorCode::invalid_request) << read.error().message;
    return read.error().message;
  }
  std::string RefusalWith(const std::function<void(MadeFile*)>& change) const {
    MadeFile made = ExampleFile();
    change(&made);
    Write(path_, made);
    return RefusalOf(Bytes());
  }

  TempFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "file";
};

TEST_F(ConversationFileTest, IsReadAsItWasWritten) {
  const MadeFile made = ExampleFile();
  Write(path_, made);
  const auto read = ReadAll(InMemory(Bytes()));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->header.created_unix_ms, made.header.created_unix_ms);
  EXPECT_EQ(read->header.model, "nano");
  EXPECT_EQ(read->header.conversation, "demo");
  EXPECT_EQ(read->header.tokens, 102u);
  EXPECT_EQ(read->header.fingerprint, 0xf1u);
  EXPECT_EQ(read->header.numerics, 0xf2u);
  EXPECT_EQ(read->header.page_tokens, shm::kArenaPageTokens);
  EXPECT_EQ(read->document, made.document);
  ASSERT_EQ(read->pages.size(), made.pages.size());
  for (size_t i = 0; i < made.pages.size(); ++i) {
    EXPECT_EQ(Encode(read->pages[i].record), Encode(made.pages[i].record));
    EXPECT_EQ(read->pages[i].numbers, made.pages[i].numbers);
  }
}

TEST_F(ConversationFileTest, NeedsNoPages) {
  MadeFile made = ExampleFile();
  made.pages.clear();
  Write(path_, made);
  const auto read = ReadAll(InMemory(Bytes()));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->document, made.document);
  EXPECT_TRUE(read->pages.empty());
}

TEST_F(ConversationFileTest, ASummaryIsOfHeaderAndEndAlone) {
  Write(path_, ExampleFile());
  const UniqueFd fd(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  const auto summary = ConversationFileReader::Summary(fd.get());
  ASSERT_TRUE(summary) << summary.error().message;
  EXPECT_EQ(summary->header.conversation, "demo");
  EXPECT_EQ(summary->header.tokens, 102u);
  EXPECT_EQ(summary->pages, 3u);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  EXPECT_FALSE(ConversationFileReader::Summary(fd.get()));
}

TEST_F(ConversationFileTest, AnyByteThatIsAnotherIsNoticed) {
  Write(path_, ExampleFile());
  const std::string bytes = Bytes();
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int mask : {0x01, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ mask);
      EXPECT_NE(RefusalOf(changed), "") << "byte " << i << ", " << mask;
    }
  }
}

TEST_F(ConversationFileTest, AFileThatIsCutIsNoticed) {
  Write(path_, ExampleFile());
  const std::string bytes = Bytes();
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_NE(RefusalOf(bytes.substr(0, size)), "") << size;
  EXPECT_THAT(RefusalOf(bytes.substr(0, bytes.size() - 1)), HasSubstr("it ends too early"));
  EXPECT_THAT(RefusalOf(bytes + 'x'), HasSubstr("something follows its end"));
  EXPECT_THAT(RefusalOf(bytes + bytes), HasSubstr("something follows its end"));
  // One byte more or less anywhere.
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_NE(RefusalOf(bytes.substr(0, i) + bytes.substr(i + 1)), "") << i;
    EXPECT_NE(RefusalOf(bytes.substr(0, i) + '\0' + bytes.substr(i)), "") << i;
  }
}

TEST_F(ConversationFileTest, PagesThatAreMissingAreNoticed) {
  Write(path_, ExampleFile());
  const std::string bytes = Bytes();
  MadeFile without = ExampleFile();
  without.pages.pop_back();
  Write(path_, without);
  const std::string shorter = Bytes();
  // The end of the one behind the pages of the other.
  const size_t end = 16 + 20;
  EXPECT_NE(RefusalOf(shorter.substr(0, shorter.size() - end) + bytes.substr(bytes.size() - end)),
            "");
}

TEST_F(ConversationFileTest, WhatIsNoSuchFileIsSaidSo) {
  EXPECT_THAT(RefusalOf(""), HasSubstr("it does not begin with \"perdure conversation \""));
  EXPECT_THAT(RefusalOf("{\"id\":\"a\"}"), HasSubstr("it does not begin with"));
  for (const char* line :
       {"perdure conversation \n", "perdure conversation 0\n", "perdure conversation x\n",
        "perdure conversation 1", "perdure conversation 1 \n",
        "perdure conversation 99999999999999999999\n", "perdure conversation -1\n"})
    EXPECT_THAT(RefusalOf(line), HasSubstr("its first line has no version")) << line;
}

TEST_F(ConversationFileTest, ANewerFileIsRefusedInWords) {
  Write(path_, ExampleFile());
  std::string bytes = Bytes();
  const std::string line = fmt::format("{}{}\n", kConversationFileWord, kConversationFileVersion);
  ASSERT_TRUE(bytes.starts_with(line));
  for (const uint32_t version : {kConversationFileVersion + 1, 1000u})
    EXPECT_THAT(RefusalOf(fmt::format("{}{}\nwhatever", kConversationFileWord, version)),
                HasSubstr(fmt::format("was written by a newer version of Perdure (format {}, this "
                                      "one reads up to {})",
                                      version, kConversationFileVersion)));
}

// Records whose checksums are right and whose fields are not.
TEST_F(ConversationFileTest, FieldsAreBounded) {
  const auto page = [](const std::function<void(FilePageRecord*)>& change) {
    return [change](MadeFile* made) { change(&made->pages[1].record); };
  };
  struct Row {
    std::function<void(MadeFile*)> change;
    const char* says;
  };
  for (const Row& row : {
           Row{page([](FilePageRecord* p) { p->format = shm::kPageFormats; }), "unknown format"},
           Row{page([](FilePageRecord* p) { p->tokens.clear(); }), "wrong number of tokens"},
           Row{page([](FilePageRecord* p) { p->tokens.resize(33); }), "wrong number of tokens"},
           Row{page([](FilePageRecord* p) {
                 p->tokens.resize(31);
                 p->drawn = 0;
               }),
               "follows one that is not full"},
           Row{page([](FilePageRecord* p) { p->position = 0; }), "not in its order"},
           Row{[](MadeFile* made) { made->pages[2].record.position = 2; }, "not in its order"},
           Row{page([](FilePageRecord* p) { p->position = 4; }), "beyond the conversation's end"},
           Row{page([](FilePageRecord* p) { p->position = UINT32_MAX; }), "beyond every context"},
           Row{page([](FilePageRecord* p) { p->data_checksum ^= 1; }), "another checksum"},
           Row{[](MadeFile* made) { made->pages[2].record.drawn = 1u << 5; },
               "more tokens than it has"},
           Row{[](MadeFile* made) { made->header.tokens = 100; }, "beyond the conversation's end"},
       })
    EXPECT_THAT(RefusalWith(row.change), HasSubstr(row.says));
}

// Sizes that a file only says: nothing is allocated for them.
TEST_F(ConversationFileTest, SizesThatLieAreNotBelieved) {
  const std::string line = fmt::format("{}{}\n", kConversationFileWord, kConversationFileVersion);
  const std::string key = PageKeyBytes(0);
  FileHeaderRecord header = ExampleFile().header;
  header.page_tokens = shm::kArenaPageTokens;
  for (const uint32_t bytes : {1u, 1u << 27, UINT32_MAX}) {
    header.document_bytes = bytes;
    EXPECT_NE(RefusalOf(line + Seal(key, header)), "") << bytes;
  }
  header.document_bytes = 0;
  header.document_checksum = Hash64(std::string_view());
  header.page_tokens = 64;
  EXPECT_THAT(RefusalOf(line + Seal(key, header)), HasSubstr("pages have 64 tokens"));
  header.page_tokens = shm::kArenaPageTokens;
  for (const uint32_t bytes : {1u, 1u << 28, UINT32_MAX}) {
    FilePageRecord page = PageAt(0, 16).record;
    page.data_bytes = bytes;
    EXPECT_NE(RefusalOf(line + Seal(key, header) + Seal(PageKeyBytes(1), page)), "") << bytes;
  }
  // A record's own size.
  std::string record = Seal(key, header);
  for (const uint32_t bytes : {4097u, UINT32_MAX}) {
    std::memcpy(record.data() + 4, &bytes, sizeof bytes);
    EXPECT_THAT(RefusalOf(line + record), HasSubstr("more bytes than any"));
  }
  // A count of tokens.
  FilePageRecord page = PageAt(0, 16).record;
  std::string payload = Encode(page);
  const uint32_t count = UINT32_MAX;
  std::memcpy(payload.data() + 13, &count, sizeof count);
  EXPECT_THAT(RefusalOf(line + Seal(key, header) +
                        SealRecord(RecordKind::kFilePage, 1, PageKeyBytes(1), payload)),
              HasSubstr("malformed"));
}

TEST_F(ConversationFileTest, ARecordOfALaterVersionIsRefused) {
  const std::string line = fmt::format("{}{}\n", kConversationFileWord, kConversationFileVersion);
  FileHeaderRecord header = ExampleFile().header;
  EXPECT_THAT(
      RefusalOf(line + SealRecord(RecordKind::kFileHeader, 2, PageKeyBytes(0), Encode(header))),
      HasSubstr("has version 2; this program knows 1 to 1"));
  EXPECT_THAT(RefusalOf(line + SealRecord(RecordKind::kFileEnd, 1, PageKeyBytes(0),
                                          Encode(FileEndRecord()))),
              HasSubstr("is of another kind"));
}

TEST_F(ConversationFileTest, ADiskThatFailsIsNoFaultOfTheFile) {
  ConversationFileReader reader(-1);
  const Status status = reader.Begin();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::io_error);
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  ConversationFileWriter writer(full.get());
  const Status written = writer.Begin(ExampleFile().header, "{}");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, ErrorCode::insufficient_storage);
}

// A file that version 1 has written: every later version must read exactly that. It is made once:
// PERDURE_WRITE_GOLDENS=1 build/release/bin/snapshot_tests --gtest_filter='ConversationFile*'
TEST_F(ConversationFileTest, OlderFilesAreRead) {
  for (uint32_t version = 1; version <= kConversationFileVersion; ++version) {
    const std::filesystem::path golden =
        std::filesystem::path(PERDURE_SOURCE_DIR) /
        fmt::format("tests/snapshot/goldens/conversation_file/v{}.perdure", version);
    if (std::getenv("PERDURE_WRITE_GOLDENS") != nullptr && version == kConversationFileVersion) {
      ASSERT_FALSE(std::filesystem::exists(golden)) << golden << " is for ever";
      std::filesystem::create_directories(golden.parent_path());
      Write(golden, ExampleFile());
    }
    const auto read = ReadAll(InMemory(BytesAt(golden)));
    ASSERT_TRUE(read) << read.error().message;
    const MadeFile made = ExampleFile();
    EXPECT_EQ(read->document, made.document);
    EXPECT_EQ(read->header.conversation, made.header.conversation);
    EXPECT_EQ(read->header.tokens, made.header.tokens);
    EXPECT_EQ(read->header.numerics, made.header.numerics);
    ASSERT_EQ(read->pages.size(), made.pages.size());
    for (size_t i = 0; i < made.pages.size(); ++i) {
      EXPECT_EQ(read->pages[i].record.tokens, made.pages[i].record.tokens);
      EXPECT_EQ(read->pages[i].record.mask, made.pages[i].record.mask);
      EXPECT_EQ(read->pages[i].numbers, made.pages[i].numbers);
    }
  }
  // And this version writes it so.
  Write(path_, ExampleFile());
  EXPECT_EQ(Bytes(), BytesAt(std::filesystem::path(PERDURE_SOURCE_DIR) /
                             fmt::format("tests/snapshot/goldens/conversation_file/v{}.perdure",
                                         kConversationFileVersion)));
}

}  // namespace
}  // namespace perdure::snapshot
