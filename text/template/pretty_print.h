// Values over several lines, as Python's pprint.pformat.
#pragma once

#include "text/template/runtime.h"

namespace perdure::text::jinja {

// Lines of at most 80 characters where the value allows it; dicts in the order of their keys.
Result<MarkedString> PrettyPrint(Runtime& rt, const Value& value);

}  // namespace perdure::text::jinja
