#include "engine/phase_profile.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace perdure::engine {

void PhaseProfile::Add(const SourcePlace& where, double seconds) {
  const auto same = [&](const Entry& entry) {
    return entry.where.line == where.line && std::strcmp(entry.where.file, where.file) == 0;
  };
  auto it = std::find_if(entries_.begin(), entries_.end(), same);
  if (it == entries_.end()) it = entries_.insert(it, {.where = where});
  ++it->calls;
  it->seconds += seconds;
}

std::vector<PhaseProfile::Phase> PhaseProfile::Phases() const {
  std::vector<Phase> phases;
  for (const Entry& entry : entries_) {
    std::string_view file = entry.where.file;
    file.remove_prefix(file.find_last_of('/') + 1);
    phases.push_back({.place = std::string(file) + ":" + std::to_string(entry.where.line) + " " +
                               entry.where.function,
                      .calls = entry.calls,
                      .seconds = entry.seconds});
  }
  std::sort(phases.begin(), phases.end(),
            [](const Phase& a, const Phase& b) { return a.seconds > b.seconds; });
  return phases;
}

}  // namespace perdure::engine
