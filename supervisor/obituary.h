// What is known of a child's death, for the log, for `perdure ps` and for the roster.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shm/status.h"
#include "supervisor/death.h"

namespace perdure::supervisor {

struct Obituary {
  std::string who;  // "worker nano", "frontend"
  int pid = 0;
  uint32_t epoch = 0;
  int64_t unix_time = 0;
  int64_t lived_ms = 0;
  DeathClass death = DeathClass::kCrash;
  bool signaled = false;
  int code = 0;
  std::string misuse;  // why the supervisor killed it, or what it said before it gave up
  shm::LastWords last_words;
  std::vector<std::string> log_lines;
};

// One sentence for people; never longer than a few hundred bytes.
std::string Summary(const Obituary& obituary);
std::string_view PhaseName(shm::Phase phase);

}  // namespace perdure::supervisor
