// "{name.attribute[0]!r:>10}".format(…)
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/template/format.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

class BraceFormatter {
 public:
  // `escaped`: the format counts as escaped HTML, so that what it is filled with is escaped.
  BraceFormatter(Runtime& rt, const Args& args, bool escaped)
      : rt_(rt), args_(args), escaped_(escaped) {}

  // `nested`: a field inside a format specification; Python allows one level.
  Result<MarkedString> Run(const MarkedString& format, bool nested) {
    const std::string_view text = format.text();
    MarkedString out;
    for (size_t at = 0; at < text.size();) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        const size_t next = std::min(text.find_first_of("{}", at), text.size());
        out.AppendSlice(format, at, next);
        at = next;
        continue;
      }
      if (at + 1 < text.size() && text[at + 1] == c && !nested) {
        out.AppendSlice(format, at, at + 1);
        at += 2;
        continue;
      }
      if (c == '}') return Fail("Single '}' encountered in format string");
      size_t end = at + 1;
      for (int depth = 1; end < text.size(); ++end) {
        if (text[end] == '{') ++depth;
        if (text[end] == '}' && --depth == 0) break;
      }
      if (end >= text.size()) return Fail("expected '}' before end of string");
      ASSIGN_OR_RETURN(const MarkedString field, Field(format.Slice(at + 1, end), nested));
      out.Append(field);
      RETURN_IF_ERROR(rt_.Fits(out.bytes()));
      at = end + 1;
    }
    return out;
  }

 private:
  Result<MarkedString> Field(const MarkedString& field, bool nested) {
    const std::string_view text = field.text();
    size_t name_end = 0;
    for (int brackets = 0; name_end < text.size(); ++name_end) {
      if (text[name_end] == '[') ++brackets;
      if (text[name_end] == ']') --brackets;
      if (brackets <= 0 && (text[name_end] == '!' || text[name_end] == ':')) break;
    }
    size_t at = name_end;
    char conversion = 0;
    if (at < text.size() && text[at] == '!') {
      if (at + 1 >= text.size()) return Fail("end of string while looking for conversion");
      conversion = text[at + 1];
      at += 2;
      if (at < text.size() && text[at] != ':')
        return Fail("expected ':' after conversion specifier");
    }
    MarkedString spec;
    if (at < text.size()) spec = field.Slice(at + 1, text.size());
    ASSIGN_OR_RETURN(Value value, Lookup(text.substr(0, name_end)));
    if (spec.text().find('{') != std::string::npos) {
      if (nested) return Fail("Max string recursion exceeded");
      ASSIGN_OR_RETURN(spec, Run(spec, true));
    }
    if (conversion != 0) {
      MarkedString converted;
      if (conversion == 's') {
        RETURN_IF_ERROR(AppendStr(rt_, value, &converted));
      } else if (conversion == 'r' || conversion == 'a') {
        RETURN_IF_ERROR(AppendRepr(rt_, value, &converted));
      } else {
        return Fail(fmt::format("Unknown conversion specifier '{}'", conversion));
      }
      value = Value::String(std::move(converted));
    }
    if (!escaped_) return Format(value, spec);
    if (value.IsString() && value.string().escaped()) {
      if (!spec.empty()) return Fail("a format specification for text that counts as escaped");
      return value.string();
    }
    ASSIGN_OR_RETURN(const MarkedString formatted, Format(value, spec));
    return Escaped(formatted);
  }

  Result<Value> Lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, first_end);
    Value value;
    size_t index = 0;
    const auto parsed = std::from_chars(first.data(), first.data() + first.size(), index);
    const bool numeric =
        !first.empty() && parsed.ec == std::errc() && parsed.ptr == first.data() + first.size();
    // "{.name}": unlike str.format, the sandbox's formatter takes '' for a keyword.
    if (first.empty() && !name.empty()) return Fail("format: no argument ''");
    if (first.empty() || numeric) {
      if (first.empty()) {
        if (manual_) return Fail("cannot switch from manual to automatic field numbering");
        automatic_ = true;
        index = next_++;
      } else {
        if (automatic_) return Fail("cannot switch from automatic to manual field numbering");
        manual_ = true;
      }
      if (index >= args_.positional.size())
        return Fail(fmt::format("format: no positional argument {}", index));
      value = args_.positional[index];
    } else {
      const auto it = std::find_if(args_.named.begin(), args_.named.end(),
                                   [&](const auto& named) { return named.first == first; });
      if (it == args_.named.end()) return Fail(fmt::format("format: no argument '{}'", first));
      value = it->second;
    }
    for (size_t at = first_end; at < name.size();) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        ASSIGN_OR_RETURN(value, GetAttribute(rt_, value, name.substr(at + 1, end - at - 1)));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) return Fail("Missing ']' in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        int64_t number = 0;
        const auto read = std::from_chars(key.data(), key.data() + key.size(), number);
        const bool is_number =
            !key.empty() && read.ec == std::errc() && read.ptr == key.data() + key.size();
        ASSIGN_OR_RETURN(
            value, GetItem(rt_, value, is_number ? Value::Integer(number) : Value::String(key)));
        at = end + 1;
      } else {
        return Fail("Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static Result<FormatSpec> ParseSpec(const MarkedString& marked) {
    const std::string_view text = marked.text();
    FormatSpec spec;
    size_t at = 0;
    const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (!text.empty()) {
      size_t fill_end = 0;
      NextCodePoint(text, &fill_end);
      if (fill_end < text.size() && is_align(text[fill_end])) {
        spec.fill = marked.Slice(0, fill_end);
        spec.align = text[fill_end];
        at = fill_end + 1;
      } else if (is_align(text[0])) {
        spec.align = text[0];
        at = 1;
      }
    }
    const auto peek = [&](std::string_view set) {
      return at < text.size() && set.find(text[at]) != std::string_view::npos;
    };
    if (peek("+- ")) spec.sign = text[at++];
    if (peek("#")) {
      spec.alternate = true;
      ++at;
    }
    if (peek("0")) {
      if (spec.align == 0) {
        spec.fill = MarkedString("0");
        spec.align = '=';
      }
      ++at;
    }
    const auto number = [&](int64_t* out) {
      const auto read = std::from_chars(text.data() + at, text.data() + text.size(), *out);
      const bool ok = read.ec == std::errc();
      at = static_cast<size_t>(read.ptr - text.data());
      return ok;
    };
    if (peek("0123456789") && !number(&spec.width)) return Fail("a format's width is too large");
    if (peek(",_")) spec.grouping = text[at++];
    if (peek(".")) {
      ++at;
      if (!peek("0123456789") || !number(&spec.precision))
        return Fail("Format specifier missing precision");
    }
    if (at < text.size()) spec.type = text[at++];
    if (at < text.size()) return Fail(fmt::format("Invalid format specifier '{}'", text));
    return spec;
  }

  Result<MarkedString> Format(const Value& value, const MarkedString& spec_text) {
    if (spec_text.empty()) return ToStr(rt_, value);
    ASSIGN_OR_RETURN(FormatSpec spec, ParseSpec(spec_text));
    if (value.IsNumber()) {
      if (std::string_view("\0bcdeEfFgGnoxX%", 15).find(spec.type) == std::string_view::npos)
        return Fail(fmt::format("Unknown format code '{}' for {}", spec.type, TypeName(value)));
      if (value.IsIntegral() && spec.precision >= 0 &&
          std::string_view("eEfFgGn%").find(spec.type) == std::string_view::npos)
        return Fail("Precision not allowed in integer format specifier");
      ASSIGN_OR_RETURN(MarkedString text, FormatNumber(value, spec));
      if (spec.align == '=' && spec.fill.text() != "0") {
        // The sign stays in front of the fill.
        const bool has_sign = !text.empty() && (text.text()[0] == '-' || text.text()[0] == '+');
        MarkedString sign = text.Slice(0, has_sign ? 1 : 0);
        spec.width -= static_cast<int64_t>(sign.size());
        ASSIGN_OR_RETURN(const MarkedString padded,
                         Pad(rt_, text.Slice(sign.size(), text.size()), spec, '>'));
        sign.Append(padded);
        return sign;
      }
      return Pad(rt_, std::move(text), spec, '>');
    }
    if (!value.IsString())
      return Fail(
          fmt::format("unsupported format string passed to {}.__format__", TypeName(value)));
    if ((spec.type != 0 && spec.type != 's') || spec.align == '=' || spec.sign != 0 ||
        spec.grouping != 0)
      return Fail(
          fmt::format("Invalid format specifier '{}' for {}", spec_text.text(), TypeName(value)));
    ASSIGN_OR_RETURN(MarkedString text, ToStr(rt_, value));
    if (spec.precision >= 0)
      text = text.Slice(0, OffsetOfCodePoint(text.text(), static_cast<size_t>(spec.precision)));
    return Pad(rt_, std::move(text), spec, '<');
  }

  Runtime& rt_;
  const Args& args_;
  const bool escaped_;
  size_t next_ = 0;
  bool manual_ = false;
  bool automatic_ = false;
};

}  // namespace

Result<Value> BraceFormat(Runtime& rt, const MarkedString& format, const Args& args) {
  RETURN_IF_ERROR(rt.Charge(static_cast<int64_t>(format.size())));
  ASSIGN_OR_RETURN(MarkedString text,
                   BraceFormatter(rt, args, format.escaped()).Run(format, false));
  text.set_escaped(format.escaped());
  return rt.NewString(std::move(text));
}

}  // namespace perdure::text::jinja
