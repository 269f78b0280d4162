// Part of an environment's copy.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace perdure::snapshot {

struct CopiedRecord {
  std::string database, key;         // no key: there is such a database
  std::optional<std::string> value;  // nothing: it is there no more
  auto Fields() { return std::tie(database, key, value); }
};

struct Portion {
  std::vector<CopiedRecord> records;
  bool is_last = false;
};

}  // namespace perdure::snapshot
