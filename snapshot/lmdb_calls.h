// What calls of LMDB come to, and how they are made. For the files of Environment alone.
#pragma once

#include <lmdb.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "snapshot/environment.h"
#include "snapshot/guarded.h"

namespace perdure::snapshot {

// Beside LMDB's own codes (far below zero) and errno (above).
inline constexpr int kFileUnreadable = -1;  // SIGBUS
inline constexpr int kLedAstray = -2;       // SIGSEGV
inline constexpr int kAssertFailed = -3;    // one of LMDB's
inline constexpr int kBrokenBefore = -4;
inline constexpr int kMakesNoSense = -5;  // found by the checks here

inline constexpr size_t kKeyBytesMax = 511;  // LMDB's
inline constexpr char kMeta[] = "meta";      // the database that every environment has

std::string TextOf(int code);
Environment::Failure FailureOf(int code);

// What every environment here is opened with: one process and one thread use it, so that there is
// nothing to lock within it; pages of KV are read for themselves.
inline constexpr unsigned kEnvironmentFlags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
// Databases of a newer code's file that this one does not know, for copies.
inline constexpr unsigned kDatabasesBeside = 8;

// Where a compaction makes the new file.
std::filesystem::path CompactPath(const std::filesystem::path& file);

// LMDB's assertions leave the guarded call.
void LeaveOnAssert(MDB_env* env, const char* text);

// What cannot be freed any more, for leak checkers: LMDB was left in the middle.
void Abandon(const void* object);
// What plain work below had begun when it was left.
void AbandonUnderway();

// Where that is much, and not in memory; within a guarded call.
void ReadAhead(const MDB_val& value);
// With a value that begins on the page where this one ends, or on the next; false for any other.
bool Extend(MDB_val* value, const MDB_val& next);
// A copy of LMDB's data, in a guarded call.
int CopyValue(const MDB_val& from, std::string* value);

template <class Run>
int CallGuarded(Run run) {
  int code = 0;
  auto guarded = [&] { code = run(); };
  switch (Guarded(guarded)) {
    case GuardEnd::kReturned:
      return code;
    case GuardEnd::kUnreadable:
      code = kFileUnreadable;
      break;
    case GuardEnd::kAstray:
      code = kLedAstray;
      break;
    case GuardEnd::kLeft:
      code = kAssertFailed;
      break;
  }
  AbandonUnderway();
  return code;
}

template <class Run>
int Environment::Call(Run run) {
  return is_broken_ ? kBrokenBefore : Noted(CallGuarded(std::move(run)));
}

inline MDB_val ValOf(std::string_view bytes) {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

// --- Plain work within one guarded call; nothing in it wants to be destroyed. -------------------

// The names of all databases, in order.
int ListDatabases(MDB_env* env, std::vector<std::string>* names);
// All databases, to an empty environment; of `meta` not this key.
int CopyAll(MDB_env* from, MDB_env* to, std::string_view without);
// Pages that are free.
int CountFreePages(MDB_env* env, size_t* pages);
// Touches all that the environment's trees reach.
int ReadAll(MDB_env* env);

}  // namespace perdure::snapshot
