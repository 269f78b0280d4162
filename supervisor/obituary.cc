#include "supervisor/obituary.h"

#include <fmt/format.h>

#include "base/limits.h"

namespace perdure::supervisor {
namespace {

// One line, cut to the bound of a quoted log line.
std::string Quoted(std::string_view text) {
  std::string line(text.substr(0, std::min(text.find('\n'), limits::kObituaryLineBytesMax)));
  return line;
}

std::string What(const Obituary& o) {
  switch (o.death) {
    case DeathClass::kExternal:
      return "was " + DescribeExit(o.signaled, o.code) + " from outside";
    case DeathClass::kOom:
      return "was killed by the kernel because memory ran out";
    case DeathClass::kHang:
      return "made no progress and was killed";
    case DeathClass::kCrash:
      return "crashed (" + DescribeExit(o.signaled, o.code) + ")";
    case DeathClass::kExit:
      return "exited though nobody asked it to";
    case DeathClass::kBadModel:
      return "cannot serve its model";
    case DeathClass::kDamaged:
      return "ended, as a prepared file was damaged";
    case DeathClass::kStopped:
      return "was stopped";
  }
  return "died";
}

std::string When(const Obituary& o) {
  if (o.last_words.step != 0)
    return fmt::format(" in step {} with {} sequence{}", o.last_words.step,
                       o.last_words.step_rids.size(),
                       o.last_words.step_rids.size() == 1 ? "" : "s");
  if (o.death == DeathClass::kBadModel || o.death == DeathClass::kStopped) return "";
  return fmt::format(" while {}", PhaseName(o.last_words.phase));
}

bool TheLastLineTellsWhy(DeathClass death) {
  return death == DeathClass::kDamaged || (CountsAgainstModel(death) && death != DeathClass::kHang);
}

}  // namespace

std::string_view PhaseName(shm::Phase phase) {
  switch (phase) {
    case shm::Phase::kStarting:
      return "starting";
    case shm::Phase::kLoading:
      return "loading";
    case shm::Phase::kIdle:
      return "idle";
    case shm::Phase::kStepping:
      return "stepping";
    case shm::Phase::kDraining:
      return "draining";
  }
  return "starting";
}

std::string Summary(const Obituary& o) {
  std::string text = fmt::format("{} (process {}) {}{}", o.who, o.pid, What(o), When(o));
  if (!o.misuse.empty()) {
    text += ": " + Quoted(o.misuse);
  } else if (!o.last_words.panic_text.empty()) {
    text += ": " + Quoted(o.last_words.panic_text);
  } else if (TheLastLineTellsWhy(o.death) && !o.log_lines.empty()) {
    text += "; its last line: " + Quoted(o.log_lines.back());
  }
  return text;
}

}  // namespace perdure::supervisor
