// Turns for tests, and conversations of them.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "snapshot/turn_file.h"

namespace perdure::snapshot {

inline constexpr uint64_t kFileBytesMax = uint64_t{64} << 20;

TurnFile::Options OptionsOf(const std::filesystem::path& file, bool sync = false);
// Fails the test where it cannot be opened.
std::unique_ptr<TurnFile> OpenTurns(const std::filesystem::path& file, bool sync = false);

// All fields set, from its numbers alone; a prompt of 4 tokens and an answer of 5, one message
// each.
StoredTurn FirstTurn(uint64_t rid);
// A turn behind it: the same, and prompt and answer in 3 tokens each, one message each.
StoredTurn NextTurn(const StoredTurn& before, uint64_t rid);

std::string Text(const StoredTurn& turn);
std::string Text(const StoredConversation& conversation);
inline bool Same(const StoredTurn& a, const StoredTurn& b) { return Text(a) == Text(b); }

// Conversation `id` of owner 1 with so many turns, requests rid, rid + 1, …; its turns.
std::vector<StoredTurn> CommitTurns(TurnFile* file, const std::string& id, size_t turns,
                                    uint64_t rid);
// All turns 1 to turns.size() are these, and there are no more.
void ExpectTurns(TurnFile* file, uint64_t owner, const std::string& id,
                 const std::vector<StoredTurn>& turns);

}  // namespace perdure::snapshot
