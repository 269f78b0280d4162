// Text that remembers which of its bytes came from a rendering's input.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/text_range.h"

namespace perdure::text::jinja {

// A value type; also the builder of new strings. UTF-8 throughout; offsets are bytes.
// `escaped` is Jinja's Markup: the text counts as HTML whose special characters are escaped. Copies
// and slices keep it, text that it is appended to does not take it over.
class MarkedString {
 public:
  MarkedString() = default;
  explicit MarkedString(std::string text, bool input = false) : text_(std::move(text)) {
    if (input && !text_.empty()) input_.push_back({0, text_.size()});
  }

  const std::string& text() const { return text_; }
  size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }
  // Sorted, disjoint, not adjacent.
  const std::vector<TextRange>& input() const { return input_; }
  bool AnyInput() const { return !input_.empty(); }
  bool escaped() const { return escaped_; }
  void set_escaped(bool escaped) { escaped_ = escaped; }
  // What it holds in memory.
  size_t bytes() const { return text_.size() + sizeof(TextRange) * input_.size(); }

  void Append(std::string_view text, bool input = false);
  void Append(const MarkedString& other) { AppendSlice(other, 0, other.size()); }
  void AppendSlice(const MarkedString& other, size_t begin, size_t end);
  MarkedString Slice(size_t begin, size_t end) const;
  void Reserve(size_t bytes) { text_.reserve(bytes); }

  std::string TakeText() && { return std::move(text_); }
  std::vector<TextRange> TakeInput() && { return std::move(input_); }

 private:
  void Mark(size_t begin, size_t end);

  std::string text_;
  std::vector<TextRange> input_;
  bool escaped_ = false;
};

// Answers "is this byte input?" for ascending positions in amortized constant time.
class MarkCursor {
 public:
  explicit MarkCursor(const MarkedString& text) : ranges_(text.input()) {}
  bool At(size_t position) {
    while (next_ < ranges_.size() && ranges_[next_].end <= position) ++next_;
    return next_ < ranges_.size() && ranges_[next_].begin <= position;
  }

 private:
  const std::vector<TextRange>& ranges_;
  size_t next_ = 0;
};

}  // namespace perdure::text::jinja
