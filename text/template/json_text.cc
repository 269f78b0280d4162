// Python's json.dumps.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/json_escape.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

std::string EscapeUtf16(char32_t c) {
  if (c < 0x10000) return fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  const uint32_t v = static_cast<uint32_t>(c) - 0x10000;
  return fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (v >> 10), 0xdc00 + (v & 0x3ff));
}

class Writer {
 public:
  Writer(Runtime& rt, const JsonStyle& style, MarkedString* out)
      : rt_(rt), style_(style), out_(out) {}

  Status Write(const Value& value, int level) {
    RETURN_IF_ERROR(rt_.Charge(1));
    RETURN_IF_ERROR(rt_.Fits(out_->bytes()));
    switch (value.kind()) {
      case Kind::kNone:
        out_->Append("null");
        return {};
      case Kind::kBool:
        out_->Append(value.bool_value() ? "true" : "false");
        return {};
      case Kind::kInt:
        out_->Append(IntText(value.integral()));
        return {};
      case Kind::kFloat:
        out_->Append(FloatText(value.number()));
        return {};
      case Kind::kString:
        return WriteString(value.string());
      case Kind::kSequence:
        return WriteArray(value.items(), level);
      case Kind::kDict:
        return WriteObject(value.dict(), level);
      default:
        return Fail(fmt::format("Object of type {} is not JSON serializable", TypeName(value)));
    }
  }

 private:
  static std::string FloatText(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value);
  }

  Status WriteString(const MarkedString& text) {
    RETURN_IF_ERROR(rt_.Fits(out_->bytes() + text.bytes() + 2));
    out_->Append("\"");
    MarkCursor marks(text);
    const std::string_view all = text.text();
    for (size_t at = 0; at < all.size();) {
      const size_t begin = at;
      const char32_t c = NextCodePoint(all, &at);
      const bool input = marks.At(begin);
      if (const std::string_view escape = ShortJsonEscape(c); !escape.empty())
        out_->Append(escape, input);
      else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7f))
        out_->Append(EscapeUtf16(c), input);
      else
        out_->Append(all.substr(begin, at - begin), input);
    }
    out_->Append("\"");
    return {};
  }

  void NewLine(int level) {
    if (!style_.has_indent) return;
    out_->Append("\n");
    for (int i = 0; i < level; ++i) out_->Append(style_.indent);
  }

  Status WriteArray(const std::vector<Value>& items, int level) {
    out_->Append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_->Append(style_.item_separator);
      NewLine(level + 1);
      RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    if (!items.empty()) NewLine(level);
    out_->Append("]");
    return {};
  }

  Status WriteKey(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return WriteString(key.string());
      case Kind::kNone:
      case Kind::kBool:
      case Kind::kInt:
      case Kind::kFloat:
        out_->Append("\"");
        RETURN_IF_ERROR(Write(key, 0));
        out_->Append("\"");
        return {};
      default:
        return Fail(fmt::format("JSON keys must be strings, numbers, booleans or none, not {}",
                                TypeName(key)));
    }
  }

  Result<std::vector<const Dict::Entry*>> Entries(const Dict& dict) {
    std::vector<const Dict::Entry*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (!style_.sort_keys) return entries;
    Status status;
    std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
      if (!status) return false;
      auto less = LessThan(rt_, a->key, b->key);
      if (!less) status = Err(less.error());
      return less && *less;
    });
    RETURN_IF_ERROR(std::move(status));
    return entries;
  }

  Status WriteObject(const Dict& dict, int level) {
    ASSIGN_OR_RETURN(const auto entries, Entries(dict));
    out_->Append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_->Append(style_.item_separator);
      NewLine(level + 1);
      RETURN_IF_ERROR(WriteKey(entries[i]->key));
      out_->Append(style_.key_separator);
      RETURN_IF_ERROR(Write(entries[i]->value, level + 1));
    }
    if (!entries.empty()) NewLine(level);
    out_->Append("}");
    return {};
  }

  Runtime& rt_;
  const JsonStyle& style_;
  MarkedString* out_;
};

}  // namespace

Status AppendJson(Runtime& rt, const Value& value, const JsonStyle& style, MarkedString* out) {
  return Writer(rt, style, out).Write(value, 0);
}

}  // namespace perdure::text::jinja
