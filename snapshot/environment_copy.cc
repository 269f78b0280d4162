// Copying an environment that is written meanwhile. LMDB cannot keep an old state for a reader here
// (MDB_NOLOCK), so none is kept: all records are read in their order, a portion at a time, and what
// was written behind the place that is reached is read again at the end. Nobody waits for more than
// one portion.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "snapshot/environment.h"
#include "snapshot/lmdb_calls.h"

namespace perdure::snapshot {

struct Environment::Copying {
  std::vector<std::string> names;  // of all databases; empty: they are not known yet
  size_t at = 0;                   // of names
  std::string last;                // the key that was read last of that one
  // Database and key: behind that place, and written since.
  std::set<std::pair<size_t, std::string>> again;
  int portions_again = 0;
};

namespace {

// What one portion may take.
class Share {
 public:
  explicit Share(Portion* portion)
      : portion_(portion), end_ms_(MonotonicMs() + limits::kCopyPortionMs) {}
  void Add(const std::string& database, std::string_view key, std::optional<std::string> value) {
    bytes_ += key.size() + (value ? value->size() : 0);
    portion_->records.push_back({database, std::string(key), std::move(value)});
  }
  bool is_full() const {
    return bytes_ >= limits::kCopyPortionBytes ||
           (!portion_->records.empty() && MonotonicMs() >= end_ms_);
  }

 private:
  Portion* const portion_;
  const int64_t end_ms_;
  size_t bytes_ = 0;
};

}  // namespace

// Here, where Copying is whole.
Environment::Environment(const EnvironmentOptions& options) : options_(options) {}
Environment::~Environment() { Close(); }

void Environment::BeginCopy() { copying_ = std::make_unique<Copying>(); }
void Environment::EndCopy() { copying_.reset(); }
bool Environment::is_copied() const { return copying_ != nullptr; }

void Environment::NoteChange(Database database, std::string_view key) {
  if (!copying_) return;
  for (size_t i = 0; i < names_.size(); ++i) {
    if (databases_[i] != database) continue;
    const auto& names = copying_->names;
    const auto found = std::lower_bound(names.begin(), names.end(), names_[i]);
    const auto index = static_cast<size_t>(found - names.begin());
    if (index < copying_->at || (index == copying_->at && key <= copying_->last))
      copying_->again.emplace(index, key);
    return;
  }
}

Result<Database> Environment::FindDatabase(Transaction& transaction, const std::string& name) {
  for (size_t i = 0; i < names_.size(); ++i)
    if (names_[i] == name) return databases_[i];
  Database database = 0;
  const int code =
      Call([&] { return mdb_dbi_open(transaction.transaction_, name.c_str(), 0, &database); });
  if (code != 0) return Failed("copy", code);
  return database;
}

// From the place that is reached on.
Status Environment::ReadDatabases(Transaction& transaction, Portion* portion) {
  Share share(portion);
  for (Copying& copying = *copying_; copying.at < copying.names.size() && !share.is_full();) {
    const std::string& name = copying.names[copying.at];
    ASSIGN_OR_RETURN(const Database database, FindDatabase(transaction, name));
    bool is_left = false;
    RETURN_IF_ERROR(
        transaction.Scan(database, copying.last, [&](std::string_view key, std::string_view value) {
          if (key == copying.last) return true;
          if (share.is_full()) {
            is_left = true;
            return false;
          }
          share.Add(name, key, std::string(value));
          copying.last = key;
          return true;
        }));
    if (is_left) return {};
    ++copying.at;
    copying.last.clear();
  }
  return {};
}

Status Environment::ReadAgain(Transaction& transaction, Portion* portion) {
  Share share(portion);
  Copying& copying = *copying_;
  if (!copying.again.empty() && ++copying.portions_again > limits::kCopyPortionsAgainMax)
    return Err(ErrorCode::overloaded,
               fmt::format("{} is written faster than it can be copied: try again later",
                           options_.file.string()));
  std::string value;
  while (!copying.again.empty() && !share.is_full()) {
    const auto first = copying.again.begin();
    const std::string& name = copying.names[first->first];
    ASSIGN_OR_RETURN(const Database database, FindDatabase(transaction, name));
    ASSIGN_OR_RETURN(const bool found, transaction.GetTo(database, first->second, &value));
    share.Add(name, first->second, found ? std::optional(value) : std::nullopt);
    copying.again.erase(first);
  }
  portion->is_last = copying.again.empty();
  return {};
}

Result<Portion> Environment::NextPortion() {
  if (!copying_)
    return Err(ErrorCode::io_error,
               fmt::format("{} was opened anew while it was copied", options_.file.string()));
  Portion portion;
  Status status;
  if (copying_->names.empty()) {
    failure_ = Failure::kNone;
    failure_code_ = 0;
    const int code = Call([&] { return ListDatabases(env_, &copying_->names); });
    if (code != 0) status = Failed("copy", code);
    // Those that are empty, too.
    for (const std::string& name : copying_->names) portion.records.push_back({name, {}, {}});
  }
  if (status)
    status = Read([&](Transaction& transaction) -> Status {
      if (copying_->at < copying_->names.size()) return ReadDatabases(transaction, &portion);
      return ReadAgain(transaction, &portion);
    });
  if (!status || portion.is_last) EndCopy();
  if (!status) return Err(std::move(status).error());
  return portion;
}

}  // namespace perdure::snapshot
