#include "tests/snapshot/turns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/hash.h"
#include "snapshot/guarded.h"

namespace perdure::snapshot {
namespace {

void AddMessage(StoredTurn* turn, std::string message) {
  const uint64_t before = turn->message_hashes.empty() ? 0 : turn->message_hashes.back();
  turn->message_hashes.push_back(Hash64(fmt::format("{} {}", before, message)));
  turn->messages.push_back(std::move(message));
}

void AddTokens(StoredTurn* turn, uint64_t rid, int count, bool drawn) {
  for (int i = 0; i < count; ++i) {
    turn->ids.push_back(static_cast<TokenId>(rid * 100 + turn->ids.size()));
    turn->drawn.push_back(drawn);
  }
}

void AddRound(StoredTurn* turn, uint64_t rid, int prompt, int answer) {
  turn->rid = rid;
  turn->choice = static_cast<uint32_t>(rid % 3);
  turn->unix_ms = 1'700'000'000'000 + static_cast<int64_t>(rid);
  turn->finish = static_cast<uint8_t>(rid % 4);
  AddTokens(turn, rid, prompt, false);
  turn->prompt_tokens = static_cast<uint32_t>(turn->ids.size());
  AddTokens(turn, rid, answer, true);
  AddMessage(turn, fmt::format(R"({{"role":"user","content":"{}?"}})", rid));
  AddMessage(turn, fmt::format(R"({{"role":"assistant","content":"{}!"}})", rid));
}

}  // namespace

TurnFile::Options OptionsOf(const std::filesystem::path& file, bool sync) {
  return {.file = file, .model = "nano", .bytes_max = kFileBytesMax, .sync = sync};
}

std::unique_ptr<TurnFile> OpenTurns(const std::filesystem::path& file, bool sync) {
  static const bool is_installed = [] {
    InstallGuard();
    return true;
  }();
  (void)is_installed;
  auto opened = TurnFile::Open(OptionsOf(file, sync));
  if (!opened) {
    ADD_FAILURE() << opened.error().message;
    return nullptr;
  }
  return std::move(*opened);
}

StoredTurn FirstTurn(uint64_t rid) {
  StoredTurn turn;
  AddRound(&turn, rid, 4, 5);
  turn.schedule = {"mine", {{0, 16, 0, 0}, {512, 8, 4, 64}}, 32, true};
  turn.fingerprint = 0xf1;
  turn.numerics = 0xf2;
  return turn;
}

StoredTurn NextTurn(const StoredTurn& before, uint64_t rid) {
  StoredTurn turn = before;
  AddRound(&turn, rid, 3, 3);
  return turn;
}

std::string Text(const StoredTurn& turn) {
  std::string segments;
  for (const CacheSegment& s : turn.schedule.segments)
    segments += fmt::format("({} {} {} {})", s.from, s.bits, s.keep, s.size);
  std::string drawn;
  for (const bool is_drawn : turn.drawn) drawn += is_drawn ? '1' : '0';
  return fmt::format(
      "rid {} choice {} time {} finish {} ids {} drawn {} prompt {} messages {} hashes {} schedule "
      "{} {} {} {} of {} {}",
      turn.rid, turn.choice, turn.unix_ms, turn.finish, turn.ids, drawn, turn.prompt_tokens,
      turn.messages, turn.message_hashes, turn.schedule.type, segments, turn.schedule.chunk_size,
      turn.schedule.pinned, turn.fingerprint, turn.numerics);
}

std::string Text(const StoredConversation& c) {
  return fmt::format("{} {} named {} created {} used {} turns {} tokens {} messages {} {:x} for {}",
                     c.owner, c.id, c.named, c.created_unix_ms, c.used_unix_ms, c.turns, c.tokens,
                     c.messages, c.messages_hash, c.user);
}

std::vector<StoredTurn> CommitTurns(TurnFile* file, const std::string& id, size_t turns,
                                    uint64_t rid) {
  std::vector<StoredTurn> committed;
  for (size_t i = 0; i < turns; ++i, ++rid) {
    committed.push_back(i == 0 ? FirstTurn(rid) : NextTurn(committed.back(), rid));
    const auto stored = file->Commit({1, id, true, {}}, committed.back());
    EXPECT_TRUE(stored.has_value()) << stored.error().message;
  }
  return committed;
}

void ExpectTurns(TurnFile* file, uint64_t owner, const std::string& id,
                 const std::vector<StoredTurn>& turns) {
  for (size_t i = 0; i < turns.size(); ++i) {
    const auto loaded = file->Load(owner, id, static_cast<uint32_t>(i + 1));
    ASSERT_TRUE(loaded.has_value()) << id << ' ' << i + 1 << ": " << loaded.error().message;
    EXPECT_EQ(Text(*loaded), Text(turns[i])) << id << ' ' << i + 1;
  }
  const auto behind = file->Load(owner, id, static_cast<uint32_t>(turns.size() + 1));
  ASSERT_FALSE(behind.has_value());
  EXPECT_EQ(behind.error().code, ErrorCode::not_found);
  if (turns.empty()) return;
  const auto last = file->Load(owner, id);
  ASSERT_TRUE(last.has_value()) << last.error().message;
  EXPECT_EQ(Text(*last), Text(turns.back()));
}

}  // namespace perdure::snapshot
