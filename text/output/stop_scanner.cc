#include "text/output/stop_scanner.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::text {
namespace {

std::vector<int> BordersOf(std::string_view text) {
  std::vector<int> border(text.size() + 1, 0);
  int length = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[static_cast<size_t>(length)])
      length = border[static_cast<size_t>(length)];
    if (text[i] == text[static_cast<size_t>(length)]) ++length;
    border[i + 1] = length;
  }
  return border;
}

}  // namespace

StopScanner::StopScanner(const std::vector<std::string>& stop, bool include_stop)
    : include_stop_(include_stop), matched_(stop.size(), 0) {
  auto patterns = std::make_shared<std::vector<Pattern>>();
  for (const std::string& text : stop) {
    CHECK(!text.empty());
    patterns->push_back({text, BordersOf(text)});
  }
  patterns_ = std::move(patterns);
}

bool StopScanner::Push(std::string_view text, std::string* out) {
  for (const char c : text) {
    held_.push_back(c);
    size_t found = 0;  // length of the longest match that ends here
    size_t open = 0;   // length of the longest beginning of a match
    for (size_t i = 0; i < matched_.size(); ++i) {
      const Pattern& pattern = (*patterns_)[i];
      int& matched = matched_[i];
      while (matched > 0 && c != pattern.text[static_cast<size_t>(matched)])
        matched = pattern.border[static_cast<size_t>(matched)];
      if (c == pattern.text[static_cast<size_t>(matched)]) ++matched;
      open = std::max(open, static_cast<size_t>(matched));
      if (static_cast<size_t>(matched) == pattern.text.size())
        found = std::max(found, pattern.text.size());
    }
    if (found > 0) {
      if (!include_stop_) held_.resize(held_.size() - found);
      Finish(out);
      return true;
    }
    CHECK(open <= held_.size());
    if (open == 0) Finish(out);
  }
  const int open = matched_.empty() ? 0 : *std::max_element(matched_.begin(), matched_.end());
  const size_t ready = held_.size() - static_cast<size_t>(open);
  out->append(held_, 0, ready);
  held_.erase(0, ready);
  return false;
}

void StopScanner::Finish(std::string* out) {
  *out += held_;
  held_.clear();
}

}  // namespace perdure::text
