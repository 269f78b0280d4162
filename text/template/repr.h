// Values as text: Python's str() and repr(), json.dumps.
#pragma once

#include "text/template/runtime.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

// What {{ value }} prints. Marks are kept byte by byte.
Status AppendStr(Runtime& rt, const Value& value, MarkedString* out);
Status AppendRepr(Runtime& rt, const Value& value, MarkedString* out);
Result<MarkedString> ToStr(Runtime& rt, const Value& value);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  MarkedString indent;  // of one level
  MarkedString item_separator{", "};
  MarkedString key_separator{": "};
};
// Python's json.dumps.
Status AppendJson(Runtime& rt, const Value& value, const JsonStyle& style, MarkedString* out);

}  // namespace perdure::text::jinja
