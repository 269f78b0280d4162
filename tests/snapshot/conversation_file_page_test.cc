// The tables and the example of docs/conversation_file.md, made of the code and held against the
// page.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/base/temp_folder.h"
#include "tests/snapshot/conversation_files.h"
#include "tests/snapshot/page_text.h"

namespace perdure::snapshot {
namespace {

constexpr const char* kPage = "conversation_file.md";

std::string Tables() {
  return RecordTable<FileHeaderRecord>(
             "FileHeaderRecord", "the first one, before the document",
             {{"created_unix_ms", "when the file was written"},
              {"model", "as it is called in the config"},
              {"conversation", "its id"},
              {"tokens", "of its last turn, prompt and answer"},
              {"fingerprint", "of the model's weights"},
              {"numerics", "of what else its numbers depend on"},
              {"page_tokens", "positions of a page: 32"},
              {"document_bytes", "that follow this record; up to 256 MiB"},
              {"document_checksum", "XXH3 of them"}}) +
         RecordTable<FilePageRecord>(
             "FilePageRecord", "before the numbers of a page",
             {{"position", "pages before it; more than that of the page record before"},
              {"format", "`shm::PageFormat`: 0 for 16 bits, 1 for 8, 2 for 4"},
              {"mask", "hash of what its positions see of their past; 0: all"},
              {"tokens", "1 to 32; fewer than 32: it is the last page"},
              {"drawn", "bit i: the model has drawn `tokens[i]`"},
              {"data_bytes", "that follow this record"},
              {"data_checksum", "XXH3 of them"}}) +
         RecordTable<FileEndRecord>(
             "FileEndRecord", "the last one, at the end of the file",
             {{"pages", "how many page records there are"},
              {"bytes", "of the file before this record"},
              {"checksum", "XXH3 of the checksums of all records before this one, 8 bytes each"}});
}

std::string Example() {
  MadeFile made = ExampleFile();
  made.document = R"({"id":"demo"})";
  made.header.tokens = 3;
  made.pages = {PageAt(0, 8, 2)};
  made.pages[0].record.drawn = 2;
  const TempFolder folder;
  Write(folder.path() / "file", made);
  return Annotated(BytesAt(folder.path() / "file"))
      .Take(23, "\"perdure conversation 1\" and a newline")
      .Take(2, "header: kind 16, a file's header")
      .Take(2, "     version 1")
      .Take(4, "     60 bytes of payload")
      .Take(8, "     checksum; the key is 00 00 00 00 00 00 00 00")
      .Take(8, "created_unix_ms 1700000000000")
      .Take(8, "model: 4 bytes, \"nano\"")
      .Take(8, "conversation: 4 bytes, \"demo\"")
      .Take(4, "tokens 3")
      .Take(8, "fingerprint")
      .Take(8, "numerics")
      .Take(4, "page_tokens 32")
      .Take(4, "document_bytes 13")
      .Take(8, "document_checksum")
      .Take(13, R"({"id":"demo"})")
      .Take(2, "header: kind 17, a page")
      .Take(2, "     version 1")
      .Take(4, "     41 bytes of payload")
      .Take(8, "     checksum; the key is 00 00 00 00 00 00 00 01")
      .Take(4, "position 0")
      .Take(1, "format 0")
      .Take(8, "mask 0")
      .Take(4, "tokens: 2 of them")
      .Take(8, "     0, 1")
      .Take(4, "drawn: the second")
      .Take(4, "data_bytes 8")
      .Take(8, "data_checksum")
      .Take(8, "its numbers")
      .Take(2, "header: kind 18, the end")
      .Take(2, "     version 1")
      .Take(4, "     20 bytes of payload")
      .Take(8, "     checksum; the key is 00 00 00 00 00 00 00 02")
      .Take(4, "pages 1")
      .Take(8, "bytes")
      .Take(8, "checksum")
      .text();
}

TEST(ConversationFilePage, TablesAreAsThePageSays) { ExpectOnPage(kPage, "tables", Tables()); }

TEST(ConversationFilePage, TheExampleIsAsThePageSays) {
  ExpectOnPage(kPage, "example", "```\n" + Example() + "```\n\n");
}

}  // namespace
}  // namespace perdure::snapshot
