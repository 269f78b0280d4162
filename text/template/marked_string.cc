#include "text/template/marked_string.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::text::jinja {

void MarkedString::Mark(size_t begin, size_t end) {
  if (begin == end) return;
  if (!input_.empty() && input_.back().end == begin)
    input_.back().end = end;
  else
    input_.push_back({begin, end});
}

void MarkedString::Append(std::string_view text, bool input) {
  const size_t begin = text_.size();
  text_.append(text);
  if (input) Mark(begin, text_.size());
}

void MarkedString::AppendSlice(const MarkedString& other, size_t begin, size_t end) {
  CHECK(begin <= end && end <= other.size() && this != &other);
  const size_t base = text_.size();
  text_.append(other.text_, begin, end - begin);
  auto it = std::upper_bound(other.input_.begin(), other.input_.end(), begin,
                             [](size_t at, const TextRange& range) { return at < range.end; });
  for (; it != other.input_.end() && it->begin < end; ++it)
    Mark(base + std::max(it->begin, begin) - begin, base + std::min(it->end, end) - begin);
}

MarkedString MarkedString::Slice(size_t begin, size_t end) const {
  MarkedString result;
  result.AppendSlice(*this, begin, end);
  result.escaped_ = escaped_;
  return result;
}

}  // namespace perdure::text::jinja
