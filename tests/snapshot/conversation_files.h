// Files of conversations, made by tests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/private_file.h"
#include "snapshot/conversation_file.h"

namespace perdure::snapshot {

inline std::string NumbersOf(size_t bytes, uint64_t seed) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i)
    data[i] = static_cast<char>(Hash64(std::to_string(seed) + ' ' + std::to_string(i / 8)) >>
                                (i % 8 * 8));
  return data;
}

struct MadePage {
  FilePageRecord record;
  std::string numbers;
};
inline MadePage PageAt(uint32_t position, size_t bytes, size_t tokens = 32) {
  MadePage page;
  page.record.position = position;
  page.record.format = position % 3;
  page.record.mask = position * uint64_t{11};
  for (size_t i = 0; i < tokens; ++i)
    page.record.tokens.push_back(static_cast<TokenId>(position * 100 + i));
  page.record.drawn = position * 3 & (tokens < 32 ? (1u << tokens) - 1 : ~0u);
  page.numbers = NumbersOf(bytes, position);
  page.record.data_bytes = static_cast<uint32_t>(bytes);
  page.record.data_checksum = Hash64(page.numbers);
  return page;
}

struct MadeFile {
  FileHeaderRecord header;
  std::string document;
  std::vector<MadePage> pages;
};
// A page that is missing in between, as a rotating conversation leaves it; the last is not full.
inline MadeFile ExampleFile() {
  MadeFile made;
  made.header.created_unix_ms = 1'700'000'000'000;
  made.header.model = "nano";
  made.header.conversation = "demo";
  made.header.tokens = 102;
  made.header.fingerprint = 0xf1;
  made.header.numerics = 0xf2;
  made.document = R"({"document_version":1,"id":"demo"})";
  made.pages = {PageAt(0, 64), PageAt(2, 100), PageAt(3, 17, 5)};
  return made;
}

inline void Write(const std::filesystem::path& path, const MadeFile& made) {
  std::filesystem::remove(path);
  const auto fd = CreateFile(path);
  ASSERT_TRUE(fd) << fd.error().message;
  ConversationFileWriter writer(fd->get());
  ASSERT_TRUE(writer.Begin(made.header, made.document));
  for (const MadePage& page : made.pages)
    ASSERT_TRUE(writer.Add(page.record, std::as_bytes(std::span(page.numbers))));
  ASSERT_TRUE(writer.End());
  EXPECT_EQ(writer.pages(), made.pages.size());
  EXPECT_EQ(writer.bytes(), std::filesystem::file_size(path));
}

inline std::string BytesAt(const std::filesystem::path& path) {
  return ReadFile(path, size_t{64} << 20).value_or("");
}

inline UniqueFd InMemory(const std::string& bytes) {
  UniqueFd fd(memfd_create("perdure-test", MFD_CLOEXEC));
  EXPECT_TRUE(WriteAll(fd.get(), bytes, "the file"));
  return fd;
}

// All of a file, or what is wrong with it.
inline Result<MadeFile> ReadAll(const UniqueFd& fd) {
  ConversationFileReader reader(fd.get());
  RETURN_IF_ERROR(reader.Begin());
  MadeFile made;
  made.header = reader.header();
  made.document = reader.TakeDocument();
  std::vector<std::byte> numbers;
  for (;;) {
    ASSIGN_OR_RETURN(auto page, reader.Next(&numbers));
    if (!page) return made;
    made.pages.push_back(
        {page->record, {reinterpret_cast<const char*>(numbers.data()), numbers.size()}});
    std::vector<std::byte> again;
    RETURN_IF_ERROR(reader.ReadNumbers(*page, &again));
    EXPECT_EQ(again, numbers);
  }
}

}  // namespace perdure::snapshot
