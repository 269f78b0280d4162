// Python's two ways to format: "%s" % values and "{}".format(values).
#pragma once

#include "text/template/runtime.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

// `values`: a tuple, a dict for %(name)s, or one value.
Result<Value> PercentFormat(Runtime& rt, const MarkedString& format, const Value& values);
Result<Value> BraceFormat(Runtime& rt, const MarkedString& format, const Args& args);

// One value laid out; shared by both.
struct FormatSpec {
  MarkedString fill{" "};  // one code point
  char align = 0;          // '<' '>' '^' '=' or 0
  char sign = 0;           // '+' ' ' '-' or 0
  bool alternate = false;
  char grouping = 0;  // ',' '_' or 0
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};
Result<MarkedString> FormatNumber(const Value& value, const FormatSpec& spec);
// Pads to the width; `default_align` where the spec has none.
Result<MarkedString> Pad(Runtime& rt, MarkedString text, const FormatSpec& spec,
                         char default_align);

}  // namespace perdure::text::jinja
