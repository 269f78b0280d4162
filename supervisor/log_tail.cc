#include "supervisor/log_tail.h"

#include <algorithm>

#include "base/limits.h"

namespace perdure::supervisor {

void LogTail::Keep(std::string_view line) {
  lines_.emplace_back(line.substr(0, limits::kObituaryLineBytesMax));
  if (lines_.size() > limits::kObituaryLines) lines_.pop_front();
}

std::vector<std::string> LogTail::Append(std::string_view bytes) {
  std::vector<std::string> whole;
  while (!bytes.empty()) {
    const size_t room = limits::kLogLineBytesMax - partial_.size();
    const size_t newline = bytes.find('\n');
    const size_t take = std::min({newline, bytes.size(), room});
    partial_.append(bytes.substr(0, take));
    bytes.remove_prefix(take);
    const bool ended = !bytes.empty() && bytes.front() == '\n';
    if (ended) bytes.remove_prefix(1);
    if (ended || partial_.size() == limits::kLogLineBytesMax) whole.push_back(Finish());
  }
  std::erase(whole, std::string());
  return whole;
}

std::string LogTail::Finish() {
  if (partial_.empty()) return {};
  Keep(partial_);
  std::string line = std::move(partial_);
  partial_.clear();
  line += '\n';
  return line;
}

}  // namespace perdure::supervisor
