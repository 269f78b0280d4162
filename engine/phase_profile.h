// Where a step's time goes: the wall time of each phase of a thread pool, by the place in the
// source that asked for it. Written by the thread that calls the pool; not thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace perdure::engine {

// As a default argument it is the caller's; std::source_location is not in every compiler here.
struct SourcePlace {
  const char* file;
  const char* function;
  int line;
  static constexpr SourcePlace Here(const char* file = __builtin_FILE(),
                                    const char* function = __builtin_FUNCTION(),
                                    int line = __builtin_LINE()) {
    return {file, function, line};
  }
};

class PhaseProfile {
 public:
  struct Phase {
    std::string place;  // "decoder.cc:187 Attention"
    uint64_t calls = 0;
    double seconds = 0.0;
  };

  void Add(const SourcePlace& where, double seconds);
  void Clear() { entries_.clear(); }
  // The longest first.
  std::vector<Phase> Phases() const;

 private:
  struct Entry {
    SourcePlace where;
    uint64_t calls = 0;
    double seconds = 0.0;
  };
  std::vector<Entry> entries_;  // some ten
};

}  // namespace perdure::engine
