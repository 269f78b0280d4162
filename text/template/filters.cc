#include "text/template/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/template/operators.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {

Function FindFilter(std::string_view name) {
  for (const auto find : {FindStringFilter, FindSequenceFilter, FindSelectFilter, FindNumberFilter,
                          FindMarkupFilter, FindJsonFilter}) {
    if (const Function function = find(name)) return function;
  }
  return nullptr;
}

tl::unexpected<Error> UnknownFilter(std::string_view name) {
  // Jinja's own that no chat needs: another result each time, links of HTML.
  constexpr std::string_view kLeftOut[] = {"random", "urlize"};
  if (std::find(std::begin(kLeftOut), std::end(kLeftOut), name) != std::end(kLeftOut))
    return Fail(fmt::format("the filter '{}' is not supported in chat templates", name));
  return Fail(fmt::format("no filter named '{}'", name));
}

Result<Value> GetPath(Runtime& rt, Value value, const Value& path, const Value& fallback) {
  if (path.IsAbsent() || path.IsNone()) return value;
  if (!path.IsString()) {
    ASSIGN_OR_RETURN(value, GetItem(rt, value, path));
    if (value.IsUndefined() && !fallback.IsAbsent() && !fallback.IsNone()) return fallback;
    return value;
  }
  const std::string_view text = path.text();
  for (size_t begin = 0; begin <= text.size();) {
    RETURN_IF_ERROR(rt.Charge(1));
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    int64_t index = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && read.ec == std::errc() &&
                          read.ptr == part.data() + part.size();
    ASSIGN_OR_RETURN(value,
                     GetItem(rt, value, is_index ? Value::Integer(index) : Value::String(part)));
    if (value.IsUndefined() && !fallback.IsAbsent() && !fallback.IsNone()) value = fallback;
    begin = end + 1;
  }
  return value;
}

Result<Value> IgnoreCase(Runtime& rt, const Value& value) {
  if (!value.IsString()) return value;
  RETURN_IF_ERROR(rt.ChargeForCharacters(value.string()));
  return rt.NewString(MapCase(value.string(), Case::kLower));
}

}  // namespace perdure::text::jinja
