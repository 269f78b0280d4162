// The tables and the example of docs/snapshot_format.md, made of the code and held against the
// page.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "snapshot/format.h"
#include "tests/snapshot/page_text.h"

namespace perdure::snapshot {
namespace {

constexpr const char* kPage = "snapshot_format.md";

// --- Tables --------------------------------------------------------------------------------------

std::string Tables() {
  return RecordTable<FormatRecord>("FormatRecord", "`meta`, both files",
                                   {{"version", "of what has written the file"},
                                    {"reader_min", "the oldest version that may read it"},
                                    {"environment", "`turns` or `kv`"},
                                    {"model", "as it is called in the config"},
                                    {"created_unix_ms", "when the file was begun"}}) +
         RecordTable<ScrubRecord>(
             "ScrubRecord", "`meta`, both files, key `scrub`; only while a scrub is due",
             {{"since_unix_ms", "of the first deletion since the last compaction"}}) +
         RecordTable<ConversationRecord>(
             "ConversationRecord", "`conversations`",
             {{"serial", "stands in its turns' keys; never used twice"},
              {"named", "by the client"},
              {"created_unix_ms", "its first turn's time, or that of the fork"},
              {"used_unix_ms", "its last turn's time, or that of the fork"},
              {"turns", "the last one's number; they count from 1"},
              {"tokens", "of the last turn, prompt and answer"},
              {"messages", "of the last turn, its answer included"},
              {"messages_hash", "the last one's hash; 0: it has no messages"},
              {"user", "whom the client said it is for; up to 256 bytes"}}) +
         RecordTable<TurnRecord>(
             "TurnRecord", "`turns`",
             {{"rid", "of the request that it answered"},
              {"choice", "of that request"},
              {"unix_ms", "when it ended"},
              {"finish", "why: `protocol::FinishReason`"},
              {"base", "an earlier turn, whose beginning is this one's; 0: none"},
              {"base_tokens", "the first ones are those of `base`"},
              {"ids", "the tokens behind them, of prompt and answer"},
              {"drawn", "bit i % 8 of byte i / 8: the model has drawn `ids[i]`; the rest is 0"},
              {"prompt_tokens", "of all, those of `base` included; the rest is the answer"},
              {"base_messages", "the first ones are those of `base`"},
              {"messages", "those behind them, as JSON; the last one is the answer"},
              {"message_hashes", "of each of `messages`: of all up to it"},
              {"schedule", "how its KV was kept"},
              {"fingerprint", "of the model's weights"},
              {"numerics", "of what else its numbers depend on"}}) +
         RecordTable<RequestRecord>("RequestRecord", "`requests`",
                                    {{"owner", "of the conversation"},
                                     {"conversation", "its id"},
                                     {"serial", "its serial"},
                                     {"turn", "which of its turns is the answer"}}) +
         RecordTable<CounterRecord>("CounterRecord", "`counters`, key `serial`",
                                    {{"next", "the serial of the next conversation that begins"}}) +
         RecordTable<PageRecord>("PageRecord", "`pages`",
                                 {{"parent", "chain hash of the page before; of the root (below)"},
                                  {"position", "pages before it"},
                                  {"format", "`shm::PageFormat`"},
                                  {"owner", "who may find it; 0: everybody"},
                                  {"mask", "hash of what its positions see of their past; 0: all"},
                                  {"tokens", "1 to 32; fewer than 32: it ends its chain"},
                                  {"drawn", "bit i: the model has drawn `tokens[i]`"},
                                  {"data_checksum", "XXH3 of all of its numbers"},
                                  {"data_bytes", "how many bytes they are"},
                                  {"chunks", "in how many pieces they are stored"},
                                  {"codec", "how those are compressed; 0: not, 1: zstd"},
                                  {"used_unix_s", "when it was last of use, to ten minutes"}}) +
         Table<CacheSchedule>("CacheSchedule, within a turn",
                              {{"type", "what it is called; up to 64 bytes"},
                               {"segments", "1 to 16, ascending; the first is from 0"},
                               {"chunk_size", "pages that lie in a row, in tokens; 0: any"},
                               {"pinned", "stays in memory while the conversation lives"}}) +
         Table<CacheSegment>("CacheSegment", {{"from", "the first position it holds for"},
                                              {"bits", "of a number: 16, 8 or 4"},
                                              {"keep", "the first positions that are always seen"},
                                              {"size", "positions that are seen; 0: all"}});
}

// --- The example ---------------------------------------------------------------------------------

constexpr uint64_t kOwner = 0, kSerial = 1;

TurnRecord ExampleTurn() {
  TurnRecord turn;
  turn.rid = 0x0102030405060708;
  turn.unix_ms = 1'700'000'000'000;
  turn.ids = {1, 5, 7, 2};
  turn.drawn = {0b1100};
  turn.prompt_tokens = 2;
  turn.messages = {R"({"role":"user","content":"Hi"})"};
  turn.message_hashes = {0x1122334455667788};
  turn.fingerprint = 0xf1;
  turn.numerics = 0xf2;
  return turn;
}

std::string ConversationExample() {
  const std::string key = ConversationKey(kOwner, "demo");
  const ConversationRecord record{.serial = kSerial,
                                  .named = true,
                                  .created_unix_ms = 1'700'000'000'000,
                                  .used_unix_ms = 1'700'000'000'000,
                                  .turns = 1,
                                  .tokens = 4,
                                  .messages = 1,
                                  .messages_hash = 0x1122334455667788,
                                  .user = "anna"};
  return Annotated(key + Seal(key, record))
      .Take(8, "key: owner 0 (big-endian)")
      .Take(4, "     id \"demo\"")
      .Take(2, "header: kind 2, a conversation")
      .Take(2, "     version 1")
      .Take(4, "     53 bytes of payload")
      .Take(8, "     checksum")
      .Take(8, "serial 1")
      .Take(1, "named")
      .Take(8, "created_unix_ms 1700000000000")
      .Take(8, "used_unix_ms 1700000000000")
      .Take(4, "turns 1")
      .Take(4, "tokens 4")
      .Take(4, "messages 1")
      .Take(8, "messages_hash")
      .Take(8, "user: 4 bytes, \"anna\"")
      .text();
}

std::string TurnExample() {
  const std::string key = TurnKey(kSerial, 1);
  const std::string message = ExampleTurn().messages[0];
  return Annotated(key + Seal(key, ExampleTurn()))
      .Take(8, "key: serial 1 (big-endian)")
      .Take(4, "     turn 1 (big-endian)")
      .Take(2, "header: kind 3, a turn")
      .Take(2, "     version 1")
      .Take(4, fmt::format("     {} bytes of payload", Encode(ExampleTurn()).size()))
      .Take(8, "     checksum")
      .Take(8, "rid")
      .Take(4, "choice 0")
      .Take(8, "unix_ms 1700000000000")
      .Take(1, "finish 0")
      .Take(4, "base 0: all is here")
      .Take(4, "base_tokens 0")
      .Take(4, "ids: 4 of them")
      .Take(16, "     1, 5, 7, 2")
      .Take(4, "drawn: 1 byte")
      .Take(1, "     the third and the fourth")
      .Take(4, "prompt_tokens 2")
      .Take(4, "base_messages 0")
      .Take(4, "messages: 1 of them")
      .Take(4, fmt::format("     of {} bytes", message.size()))
      .Take(message.size(), "     " + message)
      .Take(4, "message_hashes: 1 of them")
      .Take(8, "     1122334455667788")
      .Take(6, "schedule: type of 2 bytes, \"kv\"")
      .Take(4, "     segments: 1 of them")
      .Take(16, "     from 0, bits 16, keep 0, size 0")
      .Take(4, "     chunk_size 0")
      .Take(1, "     not pinned")
      .Take(8, "fingerprint")
      .Take(8, "numerics")
      .text();
}

TEST(FormatPage, TablesAreAsThePageSays) { ExpectOnPage(kPage, "tables", Tables()); }

TEST(FormatPage, TheExampleIsAsThePageSays) {
  ExpectOnPage(kPage, "conversation", "```\n" + ConversationExample() + "```\n\n");
  ExpectOnPage(kPage, "turn", "```\n" + TurnExample() + "```\n\n");
}

}  // namespace
}  // namespace perdure::snapshot
