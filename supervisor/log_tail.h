// The last lines that a child wrote to its standard error. Pure.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace perdure::supervisor {

class LogTail {
 public:
  // Takes bytes as they come and returns the whole lines in them, each with its newline; a line
  // longer than the bound comes in pieces.
  std::vector<std::string> Append(std::string_view bytes);
  // The unfinished last line, for the end of the stream; with a newline, empty where none is.
  std::string Finish();

  // The last lines, without newlines, cut to a bound each.
  const std::deque<std::string>& lines() const { return lines_; }

 private:
  void Keep(std::string_view line);

  std::string partial_;
  std::deque<std::string> lines_;
};

}  // namespace perdure::supervisor
