// Conversations as files: whose they are, which pages are taken, what is refused, and what may
// happen to a conversation meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>

#include "snapshot/conversation_file.h"
#include "tests/worker/files_fixture.h"

namespace perdure::worker {
namespace {

using protocol::ConversationFileOperation;
using snapshot::ConversationFileReader;
using testing::HasSubstr;

class GeneratorFilesTest : public FilesTest {
 protected:
  // A conversation "mine" of 139 computed tokens: five pages.
  void Talk() {
    BootServer("here");
    SayHere(InTenant(AskIn("mine", Text(100, 1), 40)));
    history_ = History(last_rid_);
  }
  std::vector<ConversationFileReader::Page> PagesIn(const UniqueFd& file,
                                                    std::vector<std::string>* numbers = nullptr) {
    ConversationFileReader reader(file.get());
    EXPECT_TRUE(reader.Begin());
    std::vector<ConversationFileReader::Page> pages;
    std::vector<std::byte> data;
    for (;;) {
      auto page = reader.Next(&data);
      EXPECT_TRUE(page) << page.error().message;
      if (!page || !*page) return pages;
      pages.push_back(**page);
      if (numbers != nullptr)
        numbers->emplace_back(reinterpret_cast<const char*>(data.data()), data.size());
    }
  }
  std::string DocumentIn(const UniqueFd& file) {
    ConversationFileReader reader(file.get());
    EXPECT_TRUE(reader.Begin());
    return reader.TakeDocument();
  }
  // The file, with other contents and right checksums.
  UniqueFd Remade(
      const UniqueFd& file, const std::function<void(snapshot::FileHeaderRecord*, Json*)>& change,
      const std::function<void(snapshot::FilePageRecord*, std::string*)>& change_page = nullptr) {
    ConversationFileReader reader(file.get());
    EXPECT_TRUE(reader.Begin());
    snapshot::FileHeaderRecord header = reader.header();
    Json document = Json::parse(reader.TakeDocument());
    if (change) change(&header, &document);
    UniqueFd made = OpenUnlinkedFile(folder_.path()).value();
    snapshot::ConversationFileWriter writer(made.get());
    EXPECT_TRUE(writer.Begin(header, document.dump()));
    std::vector<std::string> numbers;
    std::vector<ConversationFileReader::Page> pages = PagesIn(file, &numbers);
    for (size_t i = 0; i < pages.size(); ++i) {
      snapshot::FilePageRecord& page = pages[i].record;
      if (change_page) change_page(&page, &numbers[i]);
      page.data_bytes = static_cast<uint32_t>(numbers[i].size());
      page.data_checksum = Hash64(numbers[i]);
      EXPECT_TRUE(writer.Add(page, std::as_bytes(std::span(numbers[i]))));
    }
    EXPECT_TRUE(writer.End());
    return made;
  }
  // Nothing of it is there, in memory or on the disk.
  void ExpectNothingImported() {
    protocol::ConversationCommand list;
    list.rid = ++last_rid_;
    list.operation = protocol::ConversationOperation::kList;
    list.tenant = tenant_;
    list.limit = 10;
    generator_->Command(list);
    EXPECT_EQ(AnswerOf(list.rid)["data"].size(), 0u);
    BootServer("there");
    EXPECT_TRUE(options_.stored_conversations.empty());
    EXPECT_TRUE(options_.stored_pages.empty());
  }
  Ids history_;
};

TEST_F(GeneratorFilesTest, TheDocumentIsTheOneOfTheApi) {
  Talk();
  protocol::ConversationCommand get;
  get.rid = ++last_rid_;
  get.operation = protocol::ConversationOperation::kGet;
  get.id = "mine";
  get.tokens = true;
  generator_->Command(get);
  RunFiles();
  EXPECT_EQ(Json::parse(DocumentIn(Export("mine"))), AnswerOf(get.rid));
}

TEST_F(GeneratorFilesTest, WithoutPagesItIsWhatWasSaid) {
  Talk();
  const UniqueFd file = Export("mine", false);
  EXPECT_EQ(PagesIn(file).size(), 0u);
  BootServer("there");
  const Json imported = Import(file);
  EXPECT_EQ(imported["kv"],
            (Json{{"pages", 0}, {"used", false}, {"reason", "the file has no pages"}}));
  const auto next = AskIn("mine", history_ + Text(20, 2), 20);
  SayHere(next);
  EXPECT_EQ(UsageOf(next.rid).computed, UsageOf(next.rid).prompt_tokens);
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(GeneratorFilesTest, WhatLiesBehindAPagesTokensDoesNotLeave) {
  BootServer("here");
  // Memory that was somebody's.
  std::vector<PageIndex> pages;
  while (const auto page = store_->Allocate(shm::PageFormat::kFloat16)) {
    std::fill_n(store_->address(*page), store_->page_bytes(), std::byte{0x55});
    pages.push_back(*page);
  }
  for (const PageIndex page : pages) store_->Release(page);
  SayHere(AskIn("mine", Text(30, 1), 7));
  for (const bool from_disk : {false, true}) {
    SCOPED_TRACE(from_disk);
    if (from_disk) BootServer("here");
    const UniqueFd file = Export("mine");
    std::vector<std::string> numbers;
    ASSERT_EQ(PagesIn(file, &numbers).size(), 2u);
    // Of the last page four positions are computed: of each row of keys the rest is zero.
    const std::string& last = numbers.back();
    for (size_t row = 0; row < 64; ++row)
      EXPECT_EQ(last.substr(row * 64 + 8, 56), std::string(56, '\0')) << row;
    EXPECT_EQ(last.find('\x55', 64 * 64 + 4 * 128), std::string::npos);
  }
}

TEST_F(GeneratorFilesTest, AnotherTenantHasItAsItsOwn) {
  tenant_ = "anna";
  Talk();
  const UniqueFd file = Export("mine");
  tenant_ = "bert";
  EXPECT_TRUE(
      IsError(Do(FileCommand(ConversationFileOperation::kExport, "mine")), ErrorCode::not_found));
  const Json imported = Import(file);
  ASSERT_EQ(imported.value("id", ""), "mine");
  EXPECT_EQ(imported["kv"]["pages"], 5) << "under hashes of its own";
  const auto next = InTenant(AskIn("mine", history_ + Text(20, 2), 20));
  SayHere(next);
  EXPECT_EQ(UsageOf(next.rid).from_arena, 0);
  EXPECT_EQ(UsageOf(next.rid).computed, 21);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  // The first one's is as it was.
  tenant_ = "anna";
  const auto hers = InTenant(AskIn("mine", history_ + Text(20, 3), 20));
  SayHere(hers);
  EXPECT_EQ(UsageOf(hers.rid).from_arena, 139);
}

TEST_F(GeneratorFilesTest, WhatIsStoredAlreadyIsNotWrittenAgain) {
  Talk();
  const UniqueFd file = Export("mine");
  const Json imported = Import(file, "copy");
  EXPECT_EQ(imported["kv"], (Json{{"pages", 5}, {"used", true}}));
  const auto next = AskIn("copy", history_ + Text(20, 2), 20);
  SayHere(next);
  EXPECT_EQ(UsageOf(next.rid).computed, 21);
}

// --- What all share ----------------------------------------------------------------------------

TEST_F(GeneratorFilesTest, NobodyPlantsPagesForOthers) {
  Talk();
  const UniqueFd file = Export("mine");
  // The first two pages are of a prompt that all share on the other server.
  options_.shared_prefixes = {First(history_, 64)};
  tenant_ = "bert";
  BootServer("there");
  const Json imported = Import(file);
  EXPECT_EQ(imported["kv"]["pages"], 3);
  EXPECT_EQ(imported["kv"]["reason"], "pages of a prompt that all share are not taken from a file");
  tenant_ = "carl";
  const auto others = InTenant(AskIn("new", First(history_, 64) + Text(20, 9), 20));
  SayHere(others);
  EXPECT_EQ(UsageOf(others.rid).computed, 84) << "nothing was found";
  EXPECT_EQ(Answer(others.rid), Cold(others));
  // By now they are there, computed here, and bert's own follow them.
  tenant_ = "bert";
  const auto next = InTenant(AskIn("mine", history_ + Text(20, 2), 20));
  SayHere(next);
  EXPECT_EQ(UsageOf(next.rid).computed, 21);
  EXPECT_EQ(UsageOf(next.rid).from_arena, 64);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  BootServer("there");
  for (const snapshot::StoredPage& page : options_.stored_pages)
    EXPECT_TRUE(page.key.owner != 0 || page.position < 2) << page.position;
}

TEST_F(GeneratorFilesTest, SharedPagesAreExportedToo) {
  options_.shared_prefixes = {Text(64, 1)};
  BootServer("here");
  SayHere(AskIn("mine", Text(64, 1) + Text(40, 2), 40));
  const Ids history = History(last_rid_);
  const UniqueFd file = Export("mine");
  EXPECT_EQ(PagesIn(file).size(), 5u);
  options_.shared_prefixes.clear();
  BootServer("there");
  EXPECT_EQ(Import(file)["kv"], (Json{{"pages", 5}, {"used", true}}));
  const auto next = AskIn("mine", history + Text(20, 3), 20);
  SayHere(next);
  EXPECT_EQ(UsageOf(next.rid).computed, 21);
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

// --- Pages that are of no use --------------------------------------------------------------------

TEST_F(GeneratorFilesTest, OfOtherWeightsOnlyWhatWasSaidIsTaken) {
  Talk();
  const UniqueFd file = Export("mine");
  struct Row {
    uint64_t fingerprint, numerics;
    const char* reason;
  };
  for (const Row& row :
       {Row{0xbad, 0xf2, "the pages were computed with other weights than this model's"},
        Row{0xf1, 0xbad, "the pages were computed by other instructions than this machine uses"}}) {
    options_.fingerprint = row.fingerprint;
    options_.numerics = row.numerics;
    BootServer(row.reason);
    const Json imported = Import(file, row.reason);
    EXPECT_EQ(imported["kv"], (Json{{"pages", 0}, {"used", false}, {"reason", row.reason}}))
        << imported;
    const auto next = AskIn(row.reason, history_ + Text(20, 2), 20);
    SayHere(next);
    EXPECT_EQ(FromDisk(next.rid), 0);
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
}

TEST_F(GeneratorFilesTest, PagesOfAnotherSizeOrFormatAreNotTaken) {
  Talk();
  const UniqueFd file = Export("mine");
  BootServer("there");
  const UniqueFd shorter = Remade(
      file, nullptr, [](auto*, std::string* numbers) { numbers->resize(numbers->size() / 2); });
  EXPECT_EQ(Import(shorter, "a")["kv"]["reason"], "the pages have another size than this model's");
  const UniqueFd other =
      Remade(file, nullptr, [](snapshot::FilePageRecord* page, auto*) { page->mask = 77; });
  EXPECT_EQ(Import(other, "b")["kv"]["reason"],
            "the pages are not kept as the conversation's cache says");
  EXPECT_EQ(Import(other, "b").value("error", 0), static_cast<int>(ErrorCode::invalid_request));
}

TEST_F(GeneratorFilesTest, APageThatIsNowhereEndsTheFile) {
  BootServer("here", 4);  // memory for less than all
  SayHere(AskIn("mine", Text(60, 1), 30));
  SayHere(AskIn("other", Text(100, 2), 20));
  BootServer("here");
  // The file of pages has lost one.
  std::vector<snapshot::StoredPage> stored = options_.stored_pages;
  BootServer("here");
  const UniqueFd whole = Export("mine");
  const size_t all = PagesIn(whole).size();
  ASSERT_EQ(all, 3u);
  std::erase_if(stored, [&](const snapshot::StoredPage& page) {
    return page.position == 1 && page.tokens == PagesIn(whole)[1].record.tokens;
  });
  options_.stored_pages = stored;
  StartWith(256);
  const UniqueFd file = Export("mine");
  EXPECT_EQ(PagesIn(file).size(), 1u);
  BootServer("there");
  EXPECT_EQ(Import(file)["kv"], (Json{{"pages", 1}, {"used", true}}));
}

// --- Files that are wrong ------------------------------------------------------------------------

TEST_F(GeneratorFilesTest, AWrongFileChangesNothing) {
  Talk();
  const UniqueFd file = Export("mine");
  const std::string bytes = BytesIn(file);
  BootServer("there");
  const auto expect_refused = [&](const UniqueFd& wrong, const std::string& says) {
    const Json refused = Import(wrong);
    EXPECT_TRUE(IsError(refused, ErrorCode::invalid_request)) << refused;
    EXPECT_THAT(refused.value("message", ""), HasSubstr(says));
  };
  expect_refused(FileOf(""), "does not begin with");
  expect_refused(FileOf("{}"), "does not begin with");
  expect_refused(FileOf("perdure conversation 2\n"), "newer version");
  for (size_t size = 0; size < bytes.size(); size += 1 + bytes.size() / 50)
    expect_refused(FileOf(bytes.substr(0, size)), "");
  for (size_t i = 0; i < bytes.size(); i += 1 + bytes.size() / 100) {
    std::string changed = bytes;
    changed[i] = static_cast<char>(~changed[i]);
    expect_refused(FileOf(changed), "");
  }
  // Right checksums, and what cannot be.
  expect_refused(Remade(file, [](auto* header, Json*) { header->fingerprint ^= 1; }),
                 "other weights than its document");
  expect_refused(Remade(file, [](auto* header, Json*) { ++header->tokens; }),
                 "another number of tokens");
  expect_refused(Remade(file, [](auto*, Json* document) { (*document)["document_version"] = 9; }),
                 "it is of version 9");
  expect_refused(Remade(file, [](auto*, Json* document) { (*document)["token_ids"][0] = 260; }),
                 "token 260");
  expect_refused(Remade(file, [](auto*, Json* document) { document->erase("messages"); }),
                 "no exported conversation");
  expect_refused(Remade(file, [](auto*, Json* document) { *document = "x"; }), "no JSON object");
  expect_refused(Remade(file, nullptr, [](auto* page, auto*) { page->tokens[0] ^= 1; }),
                 "other tokens than the document's");
  expect_refused(Remade(file, nullptr, [](auto*, std::string* numbers) { (*numbers)[1] = '\x7c'; }),
                 "numbers that are none");
  ExpectNothingImported();
}

TEST_F(GeneratorFilesTest, AnIdThatIsThereIsRefused) {
  Talk();
  const UniqueFd file = Export("mine");
  const Json refused = Import(file);
  EXPECT_TRUE(IsError(refused, ErrorCode::invalid_request));
  EXPECT_EQ(refused["param"], "id");
  EXPECT_EQ(Import(file, "other").value("id", ""), "other");
  EXPECT_TRUE(IsError(Import(file, "other"), ErrorCode::invalid_request));
  // Two at once.
  protocol::ConversationUpload upload;
  for (const protocol::RequestId rid : {901u, 902u}) {
    upload.rid = rid;
    upload.id = "both";
    generator_->Command(upload, UniqueFd(dup(file.get())));
  }
  RunFiles();
  EXPECT_EQ(AnswerOf(901).value("id", ""), "both");
  EXPECT_TRUE(IsError(AnswerOf(902), ErrorCode::invalid_request));
}

TEST_F(GeneratorFilesTest, WhatThereIsNotCannotBeExported) {
  Talk();
  EXPECT_TRUE(
      IsError(Do(FileCommand(ConversationFileOperation::kExport, "none")), ErrorCode::not_found));
  options_.persistence = nullptr;
  StartWith(256);
  const auto command = FileCommand(ConversationFileOperation::kExport, "mine");
  generator_->Command(command);
  EXPECT_TRUE(IsError(AnswerOf(command.rid), ErrorCode::unsupported));
}

// --- What happens meanwhile ----------------------------------------------------------------------

TEST_F(GeneratorFilesTest, OthersAreServedMeanwhile) {
  Talk();
  const auto command = FileCommand(ConversationFileOperation::kExport, "mine");
  generator_->Command(command);
  const auto other = Ask(Text(60, 5), 30);
  Submit(other);
  RunFiles();
  EXPECT_EQ(Answer(other.rid), Cold(other));
  EXPECT_TRUE(sink_.files.contains(command.rid));
}

TEST_F(GeneratorFilesTest, AConversationThatIsDeletedIsNotExported) {
  Talk();
  for (int steps = 0; steps < 6; ++steps) {
    SCOPED_TRACE(steps);
    const std::string id = "doomed" + std::to_string(steps);
    SayHere(AskIn(id, Text(100, steps), 40));
    const auto command = FileCommand(ConversationFileOperation::kExport, id);
    generator_->Command(command);
    for (int i = 0; i < steps; ++i) {
      files_->Wait(60'000);
      generator_->TakeAnswers();
    }
    protocol::ConversationCommand remove;
    remove.rid = ++last_rid_;
    remove.operation = protocol::ConversationOperation::kDelete;
    remove.id = id;
    generator_->Command(remove);
    RunFiles();
    EXPECT_EQ(AnswerOf(remove.rid).value("deleted", false), true);
    EXPECT_TRUE(sink_.files.contains(command.rid) ||
                IsError(AnswerOf(command.rid), ErrorCode::not_found));
    EXPECT_EQ(generator_->live(), 0u);
  }
}

TEST_F(GeneratorFilesTest, AClientThatLeavesEndsIt) {
  Talk();
  const UniqueFd file = Export("mine");
  BootServer("there");
  for (int steps = 0; steps < 6; ++steps) {
    SCOPED_TRACE(steps);
    protocol::ConversationUpload upload;
    upload.rid = ++last_rid_;
    upload.id = "copy" + std::to_string(steps);
    generator_->Command(upload, UniqueFd(dup(file.get())));
    for (int i = 0; i < steps; ++i) {
      files_->Wait(60'000);
      generator_->TakeAnswers();
    }
    generator_->Cancel(upload.rid);
    RunFiles();
    EXPECT_EQ(generator_->live(), 0u);
    // It is there with its pages, or not at all.
    const auto next = AskIn(upload.id, history_ + Text(20, 2), 20);
    SayHere(next);
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
  const auto command = FileCommand(ConversationFileOperation::kExport, "copy5");
  generator_->Command(command);
  generator_->Cancel(command.rid);
  RunFiles();
  EXPECT_FALSE(sink_.files.contains(command.rid));
}

TEST_F(GeneratorFilesTest, OneThatIsDeletedWhileItsPagesComeLeavesNone) {
  Talk();
  const UniqueFd file = Export("mine");
  for (int steps = 1; steps < 6; ++steps) {
    SCOPED_TRACE(steps);
    BootServer("there" + std::to_string(steps));
    protocol::ConversationUpload upload;
    upload.rid = ++last_rid_;
    generator_->Command(upload, UniqueFd(dup(file.get())));
    for (int i = 0; i < steps; ++i) {
      files_->Wait(60'000);
      generator_->TakeAnswers();
    }
    protocol::ConversationCommand remove;
    remove.rid = ++last_rid_;
    remove.operation = protocol::ConversationOperation::kDelete;
    remove.id = "mine";
    generator_->Command(remove);
    RunFiles();
    const bool is_deleted = AnswerOf(remove.rid).value("deleted", false);
    BootServer("there" + std::to_string(steps));
    EXPECT_EQ(options_.stored_conversations.empty(), is_deleted);
    EXPECT_EQ(options_.stored_pages.empty(), is_deleted);
  }
}

TEST_F(GeneratorFilesTest, AWorkerThatStopsSaysSo) {
  Talk();
  const auto command = FileCommand(ConversationFileOperation::kExport, "mine");
  generator_->Command(command);
  EXPECT_EQ(generator_->live(), 1u) << "a worker that drains waits for it";
  generator_->FailAll({ErrorCode::shutting_down, "it ends", {}, 0});
  EXPECT_TRUE(IsError(AnswerOf(command.rid), ErrorCode::shutting_down));
  EXPECT_EQ(generator_->live(), 0u);
  RunFiles();
  generator_->StopAdmitting();
  const auto late = FileCommand(ConversationFileOperation::kExport, "mine");
  generator_->Command(late);
  EXPECT_TRUE(IsError(AnswerOf(late.rid), ErrorCode::shutting_down));
}

TEST_F(GeneratorFilesTest, ThereAreOnlySoManyAtATime) {
  Talk();
  std::vector<protocol::RequestId> rids;
  for (size_t i = 0; i <= limits::kTransfersMax; ++i) {
    const auto command = FileCommand(ConversationFileOperation::kExport, "mine");
    rids.push_back(command.rid);
    generator_->Command(command);
  }
  EXPECT_TRUE(IsError(AnswerOf(rids.back()), ErrorCode::overloaded));
  RunFiles();
  for (size_t i = 0; i < limits::kTransfersMax; ++i) EXPECT_TRUE(sink_.files.contains(rids[i]));
}

}  // namespace
}  // namespace perdure::worker
