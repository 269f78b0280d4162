// tojson as transformers defines it, and from_json.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "text/template/filters.h"
#include "text/template/json_value.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"

namespace perdure::text::jinja {
namespace {

Result<Value> ToJson(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  JsonStyle style;
  style.ensure_ascii = IsTrue(bound[0]);
  style.sort_keys = IsTrue(bound[3]);
  const Value& indent = bound[1];
  if (!indent.IsAbsent() && !indent.IsNone()) {
    style.has_indent = true;
    style.item_separator = MarkedString(",");
    if (indent.IsString()) {
      style.indent = indent.string();
    } else {
      ASSIGN_OR_RETURN(const Int width, IntArg(indent, 0, "tojson: indent"));
      if (width > 1000) return Fail("tojson: the indent is too large");
      if (width > 0) style.indent = MarkedString(std::string(static_cast<size_t>(width), ' '));
    }
  }
  if (!bound[2].IsAbsent() && !bound[2].IsNone()) {
    ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(rt, bound[2]));
    if (parts.size() != 2) return Fail("tojson: separators must be two strings");
    ASSIGN_OR_RETURN(style.item_separator, StringArg(parts[0], "tojson: a separator"));
    ASSIGN_OR_RETURN(style.key_separator, StringArg(parts[1], "tojson: a separator"));
  }
  MarkedString text;
  RETURN_IF_ERROR(AppendJson(rt, value, style, &text));
  return rt.NewString(std::move(text));
}

Result<Value> FromJsonFilter(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("from_json", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, StringArg(value, "from_json: the value"));
  // A value takes two bytes of text or more.
  RETURN_IF_ERROR(rt.Produce(8 * text.size()));
  ASSIGN_OR_RETURN(const Json json,
                   ParseJson(text.text(), "from_json's text", ErrorCode::bad_template));
  return ValueFromJson(json, text.AnyInput());
}

constexpr FilterEntry kFilters[] = {
    {"from_json", FromJsonFilter}, {"fromjson", FromJsonFilter}, {"tojson", ToJson}};

}  // namespace

Function FindJsonFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
