#include "text/template/repr.h"

#include <fmt/format.h>

#include "text/template/operators.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

Status AppendStringRepr(Runtime& rt, const MarkedString& text, MarkedString* out) {
  RETURN_IF_ERROR(rt.Fits(out->bytes() + text.bytes() + 2));
  const bool has_single = text.text().find('\'') != std::string::npos;
  const bool has_double = text.text().find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  const std::string_view quote_text(&quote, 1);
  if (text.escaped()) out->Append("Markup(");
  out->Append(quote_text);
  MarkCursor marks(text);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = NextCodePoint(text.text(), &at);
    const bool input = marks.At(begin);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out->Append("\\", input);
      out->Append(std::string_view(text.text()).substr(begin, at - begin), input);
    } else if (c == '\n') {
      out->Append("\\n", input);
    } else if (c == '\r') {
      out->Append("\\r", input);
    } else if (c == '\t') {
      out->Append("\\t", input);
    } else if (IsPrintable(c)) {
      out->Append(std::string_view(text.text()).substr(begin, at - begin), input);
    } else if (c < 0x100) {
      out->Append(fmt::format("\\x{:02x}", static_cast<uint32_t>(c)), input);
    } else if (c < 0x10000) {
      out->Append(fmt::format("\\u{:04x}", static_cast<uint32_t>(c)), input);
    } else {
      out->Append(fmt::format("\\U{:08x}", static_cast<uint32_t>(c)), input);
    }
  }
  out->Append(quote_text);
  if (text.escaped()) out->Append(")");
  return {};
}

Status AppendDictRepr(Runtime& rt, const Dict& dict, MarkedString* out) {
  out->Append("{");
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) out->Append(", ");
    first = false;
    RETURN_IF_ERROR(AppendRepr(rt, key, out));
    out->Append(": ");
    RETURN_IF_ERROR(AppendRepr(rt, value, out));
  }
  out->Append("}");
  return {};
}

Status AppendItemsRepr(Runtime& rt, const std::vector<Value>& items, MarkedString* out) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out->Append(", ");
    first = false;
    RETURN_IF_ERROR(AppendRepr(rt, item, out));
  }
  return {};
}

Status AppendObjectRepr(Runtime& rt, const Value& value, MarkedString* out) {
  if (const RangeObject* range = AsRange(value)) {
    out->Append(fmt::format("range({}, {}", IntText(range->start), IntText(range->stop)));
    if (range->step != 1) out->Append(", " + IntText(range->step));
    out->Append(")");
    return {};
  }
  if (const DictViewObject* view = AsDictView(value)) {
    ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
    out->Append(fmt::format("{}([", TypeName(value)));
    (void)view;
    RETURN_IF_ERROR(AppendItemsRepr(rt, items, out));
    out->Append("])");
    return {};
  }
  // A namespace may hold itself, so its attributes are not shown.
  if (const LoopObject* loop = AsLoop(value)) {
    out->Append(fmt::format("<LoopContext {}/{}>", loop->index0 + 1, loop->items.size()));
    return {};
  }
  const std::string own = value.object()->Repr();
  out->Append(own.empty() ? fmt::format("<{} object>", TypeName(value)) : own);
  return {};
}

}  // namespace

Status AppendRepr(Runtime& rt, const Value& value, MarkedString* out) {
  RETURN_IF_ERROR(rt.Charge(1));
  RETURN_IF_ERROR(rt.Fits(out->bytes()));
  switch (value.kind()) {
    case Kind::kUndefined:
      out->Append("Undefined");
      return {};
    case Kind::kNone:
      out->Append("None");
      return {};
    case Kind::kBool:
      out->Append(value.bool_value() ? "True" : "False");
      return {};
    case Kind::kInt:
      out->Append(IntText(value.integral()));
      return {};
    case Kind::kFloat:
      out->Append(FloatRepr(value.number()));
      return {};
    case Kind::kString:
      return AppendStringRepr(rt, value.string(), out);
    case Kind::kSequence:
      out->Append(value.IsTuple() ? "(" : "[");
      RETURN_IF_ERROR(AppendItemsRepr(rt, value.items(), out));
      if (value.IsTuple() && value.items().size() == 1) out->Append(",");
      out->Append(value.IsTuple() ? ")" : "]");
      return {};
    case Kind::kDict:
      return AppendDictRepr(rt, value.dict(), out);
    case Kind::kObject:
      return AppendObjectRepr(rt, value, out);
  }
  return {};
}

Status AppendStr(Runtime& rt, const Value& value, MarkedString* out) {
  if (value.IsString()) {
    RETURN_IF_ERROR(rt.Fits(out->bytes() + value.string().bytes()));
    out->Append(value.string());
    return {};
  }
  if (value.IsUndefined()) return {};
  return AppendRepr(rt, value, out);
}

Result<MarkedString> ToStr(Runtime& rt, const Value& value) {
  if (value.IsString()) return value.string();
  MarkedString out;
  RETURN_IF_ERROR(AppendStr(rt, value, &out));
  return out;
}

}  // namespace perdure::text::jinja
