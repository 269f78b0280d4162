// Lines of a bounded width, as Python's textwrap makes them.
#pragma once

#include <vector>

#include "text/template/runtime.h"

namespace perdure::text::jinja {

struct WrapStyle {
  size_t width = 79;  // in characters, at least 1
  bool break_long_words = true;
  bool break_on_hyphens = true;
};

// One paragraph: `text` without line breaks. White space around the breaks is dropped.
Result<std::vector<MarkedString>> WrapWords(Runtime& rt, const MarkedString& text,
                                            const WrapStyle& style);

}  // namespace perdure::text::jinja
