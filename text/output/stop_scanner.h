// Stop strings in a text that comes piece by piece. Where pieces begin and end makes no difference:
// the first match to be complete ends the text; of those complete at the same byte it is the
// longest.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace perdure::text {

// A value; copies share the patterns.
class StopScanner {
 public:
  // No stop string is empty. `include_stop`: the matched string belongs to the output.
  StopScanner(const std::vector<std::string>& stop, bool include_stop);

  // Appends to `out` what of the text so far cannot be part of a later match: all but the longest
  // end that begins a stop string. True when a stop string was found: what is before it (or ends
  // with it) was appended, the rest of the text is dropped, and nothing may be pushed any more.
  bool Push(std::string_view text, std::string* out);
  // The end of a text without a match: appends what was held back.
  void Finish(std::string* out);

 private:
  // Knuth, Morris, Pratt: border[i] = length of the longest proper border of text[0, i].
  struct Pattern {
    std::string text;
    std::vector<int> border;
  };

  std::shared_ptr<const std::vector<Pattern>> patterns_;
  bool include_stop_;
  std::vector<int> matched_;  // by pattern: how many of its bytes the text ends with
  std::string held_;          // the end of the text, not yet given out
};

}  // namespace perdure::text
