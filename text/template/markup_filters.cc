// Filters for HTML, XML and URLs.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/filters.h"
#include "text/template/html_text.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"

namespace perdure::text::jinja {
namespace {

Result<Value> Escape(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("escape", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  return rt.NewString(Escaped(text));
}

Result<Value> ForceEscape(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("forceescape", args, {}));
  ASSIGN_OR_RETURN(MarkedString text, ToStr(rt, value));
  text.set_escaped(false);
  return rt.NewString(Escaped(text));
}

Result<Value> Safe(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("safe", args, {}));
  ASSIGN_OR_RETURN(MarkedString text, ToStr(rt, value));
  text.set_escaped(true);
  return rt.NewString(std::move(text));
}

Result<Value> StripTagsFilter(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("striptags", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  RETURN_IF_ERROR(rt.Fits(2 * text.bytes()));
  return rt.NewString(StripTags(text));
}

// Every byte but RFC 3986's unreserved ones as %XX; '/' stays in paths, a space is '+' in queries.
MarkedString UrlQuote(const MarkedString& text, bool in_query) {
  MarkedString out;
  MarkCursor marks(text);
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text.text()[at];
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !in_query);
    if (plain)
      out.Append(std::string_view(&c, 1), marks.At(at));
    else if (c == ' ' && in_query)
      out.Append("+", marks.At(at));
    else
      out.Append(fmt::format("%{:02X}", static_cast<unsigned char>(c)), marks.At(at));
  }
  return out;
}

Result<Value> UrlEncode(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("urlencode", args, {}));
  const bool one = value.IsString() || value.IsNumber() || value.IsNone() ||
                   (value.IsObject() && AsRange(value) == nullptr && AsIterator(value) == nullptr &&
                    AsDictView(value) == nullptr);
  if (one) {
    ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
    return rt.NewString(UrlQuote(text, false));
  }
  std::vector<Value> pairs;
  if (value.IsDict()) {
    for (const auto& entry : value.dict().entries()) {
      ASSIGN_OR_RETURN(Value pair, rt.NewTuple({entry.key, entry.value}));
      pairs.push_back(std::move(pair));
    }
  } else {
    ASSIGN_OR_RETURN(pairs, Iterate(rt, value));
  }
  MarkedString out;
  for (const Value& pair : pairs) {
    ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(rt, pair));
    if (parts.size() != 2) return Fail("urlencode needs pairs of key and value");
    if (!out.empty()) out.Append("&");
    ASSIGN_OR_RETURN(const MarkedString key, ToStr(rt, parts[0]));
    ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, parts[1]));
    RETURN_IF_ERROR(rt.Fits(out.bytes() + 3 * (key.bytes() + text.bytes())));
    out.Append(UrlQuote(key, true));
    out.Append("=");
    out.Append(UrlQuote(text, true));
  }
  return rt.NewString(std::move(out));
}

Result<Value> XmlAttr(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("xmlattr", args, {"autospace"}));
  if (value.IsUndefined()) return FailUndefined(value);
  if (!value.IsDict()) return Fail(fmt::format("xmlattr needs a dict, not {}", TypeName(value)));
  MarkedString out;
  for (const auto& [key, attribute] : value.dict().entries()) {
    if (attribute.IsNone() || attribute.IsUndefined()) continue;
    ASSIGN_OR_RETURN(const MarkedString name, StringArg(key, "xmlattr: a name"));
    if (name.text().find_first_of(" \t\n\r\f\v/>=") != std::string::npos)
      return Fail(fmt::format("xmlattr: invalid character in the name '{}'", name.text()));
    ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, attribute));
    RETURN_IF_ERROR(rt.Fits(out.bytes() + 5 * (name.bytes() + text.bytes())));
    if (!out.empty() || bound[0].IsAbsent() || IsTrue(bound[0])) out.Append(" ");
    out.Append(Escaped(name));
    out.Append("=\"");
    out.Append(Escaped(text));
    out.Append("\"");
  }
  return rt.NewString(std::move(out));
}

constexpr FilterEntry kFilters[] = {
    {"e", Escape},
    {"escape", Escape},
    {"forceescape", ForceEscape},
    {"safe", Safe},
    {"striptags", StripTagsFilter},
    {"urlencode", UrlEncode},
    {"xmlattr", XmlAttr},
};

}  // namespace

Function FindMarkupFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
