#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "snapshot/environment.h"
#include "snapshot/format.h"
#include "snapshot/lmdb_calls.h"

namespace perdure::snapshot {

Result<std::optional<std::string_view>> Transaction::Get(Database database, std::string_view key) {
  std::string value;
  ASSIGN_OR_RETURN(const bool found, GetTo(database, key, &value));
  if (!found) return std::nullopt;
  got_.push_back(std::move(value));
  return got_.back();
}

Result<bool> Transaction::GetTo(Database database, std::string_view key, std::string* value) {
  MDB_val name = ValOf(key), found{};
  int code = environment_->Call([&] { return mdb_get(transaction_, database, &name, &found); });
  if (code == MDB_NOTFOUND) return false;
  if (code == 0) code = environment_->CopyOut(found, value);
  if (code != 0) return environment_->Failed("read", code);
  return true;
}

Status Transaction::Put(Database database, std::string_view key, std::string_view value) {
  MDB_val name = ValOf(key), data = ValOf(value), old{};
  const int code = environment_->Call([&] {
    const int found = mdb_get(transaction_, database, &name, &old);
    if (found != 0 && found != MDB_NOTFOUND) return found;
    return mdb_put(transaction_, database, &name, &data, 0);
  });
  environment_->NoteChange(database, key);
  put_bytes_ += key.size() + value.size();
  if (old.mv_data != nullptr) deleted_bytes_ += key.size() + old.mv_size;
  got_.clear();
  if (code != 0) return environment_->Failed("write", code);
  return {};
}

Status Transaction::Delete(Database database, std::string_view key) {
  MDB_val name = ValOf(key), old{};
  const int code = environment_->Call([&] {
    const int found = mdb_get(transaction_, database, &name, &old);
    if (found != 0) return found == MDB_NOTFOUND ? 0 : found;
    return mdb_del(transaction_, database, &name, nullptr);
  });
  environment_->NoteChange(database, key);
  if (old.mv_data != nullptr) deleted_bytes_ += key.size() + old.mv_size;
  got_.clear();
  if (code != 0) return environment_->Failed("write", code);
  return {};
}

Status Transaction::NoteDeletion() {
  notes_deletion_ = true;
  if (environment_->needs_scrub()) return {};
  const std::string record = Seal(kScrubKey, ScrubRecord{UnixMs()});
  return Put(environment_->meta_, kScrubKey, record);
}

Status Transaction::Scan(Database database, std::string_view from, const Visit& visit) {
  return ScanWith(database, from, visit, nullptr);
}

Status Transaction::ScanSizes(Database database, std::string_view from, const VisitSize& visit) {
  return ScanWith(database, from, nullptr, visit);
}

Status Transaction::ScanKeys(Database database, std::string_view from,
                             const std::function<bool(std::string_view key)>& visit) {
  return ScanSizes(database, from, [&](std::string_view key, size_t) { return visit(key); });
}

Status Transaction::Look(
    Database database, std::string_view prefix,
    const std::function<bool(std::string_view key, std::span<const std::byte> value)>& look) {
  MDB_cursor* cursor = nullptr;
  int code = environment_->Call([&] { return mdb_cursor_open(transaction_, database, &cursor); });
  MDB_val key{}, found{};
  const auto get = [&](MDB_cursor_op step) {
    if (step == MDB_SET_RANGE) key = ValOf(prefix);
    const int got = mdb_cursor_get(cursor, &key, &found, step);
    if (got != 0) return got;
    if (key.mv_size > kKeyBytesMax || found.mv_size > limits::kSnapshotValueBytesMax)
      return kMakesNoSense;
    const bool is_one =
        std::string_view(static_cast<const char*>(key.mv_data), key.mv_size).starts_with(prefix);
    return is_one ? 0 : MDB_NOTFOUND;
  };
  // All that is there at once, what lies side by side together. A damaged tree may lead in circles.
  const auto read_ahead = [&] {
    MDB_val row{};
    size_t bytes = 0;
    int got = get(MDB_SET_RANGE);
    for (; got == 0 && bytes < limits::kSnapshotPageBytesMax; got = get(MDB_NEXT)) {
      bytes += found.mv_size + 1;
      if (!Extend(&row, found)) {
        ReadAhead(row);
        row = found;
      }
    }
    ReadAhead(row);
    return got == MDB_NOTFOUND ? 0 : got;
  };
  const auto look_at_all = [&] {
    int got = get(MDB_SET_RANGE);
    while (got == 0 && look({static_cast<const char*>(key.mv_data), key.mv_size},
                            {static_cast<const std::byte*>(found.mv_data), found.mv_size}))
      got = get(MDB_NEXT);
    return got;
  };
  if (code == 0) code = environment_->Call(read_ahead);
  if (code == 0) code = environment_->Call(look_at_all);
  return EndScan(cursor, code);
}

Status Transaction::ScanWith(Database database, std::string_view from, const Visit& visit,
                             const VisitSize& visit_size) {
  MDB_cursor* cursor = nullptr;
  int code = environment_->Call([&] { return mdb_cursor_open(transaction_, database, &cursor); });
  MDB_val key = ValOf(from), found{};
  MDB_cursor_op step = from.empty() ? MDB_FIRST : MDB_SET_RANGE;
  std::string name, before, value;
  while (code == 0) {
    code = environment_->Call([&] { return mdb_cursor_get(cursor, &key, &found, step); });
    if (code != 0) break;
    code = key.mv_size <= kKeyBytesMax ? environment_->CopyOut(key, &name) : kMakesNoSense;
    // A damaged tree may lead in circles.
    if (code == 0 && step == MDB_NEXT && name <= before) code = kMakesNoSense;
    if (code == 0 && visit) code = environment_->CopyOut(found, &value);
    if (code != 0 || !(visit ? visit(name, value) : visit_size(name, found.mv_size))) break;
    std::swap(name, before);
    step = MDB_NEXT;
  }
  return EndScan(cursor, code);
}

Status Transaction::EndScan(MDB_cursor* cursor, int code) {
  if (cursor != nullptr) {
    if (environment_->is_broken())
      Abandon(cursor);
    else
      mdb_cursor_close(cursor);
  }
  if (code != 0 && code != MDB_NOTFOUND) return environment_->Failed("read", code);
  return {};
}

}  // namespace perdure::snapshot
