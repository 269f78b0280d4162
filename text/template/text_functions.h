// String work shared by filters and methods. All keep the marks of each byte.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "text/template/runtime.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

// Where `part` begins in `text` at or behind `from`; npos. In linear time, unlike
// std::string_view::find.
size_t FindText(std::string_view text, std::string_view part, size_t from = 0);
// The same for the last place. Charges for parts whose search could take long.
Result<size_t> FindTextBackwards(Runtime& rt, std::string_view text, std::string_view part);

enum class Side { kBoth, kLeft, kRight };
// `chars`: a set of code points; white space where absent.
MarkedString Strip(const MarkedString& text, const std::optional<std::string_view>& chars,
                   Side side);
// `count` < 0: all.
Result<MarkedString> ReplaceAll(Runtime& rt, const MarkedString& text, const MarkedString& from,
                                const MarkedString& to, Int count);
Result<MarkedString> JoinAll(Runtime& rt, const MarkedString& separator,
                             const std::vector<Value>& items, bool strings_only);
// HTML's five special characters as entities; text that counts as escaped stays as it is.
MarkedString Escaped(const MarkedString& text);
Result<std::vector<MarkedString>> SplitLines(Runtime& rt, const MarkedString& text, bool keep_ends);
Result<Value> StringList(Runtime& rt, std::vector<MarkedString> parts);

// Arguments with a type; `what` stands in errors. Absent gives the default.
Result<Int> IntArg(const Value& value, Int absent, std::string_view what);
Result<MarkedString> StringArg(const Value& value, std::string_view what);

}  // namespace perdure::text::jinja
