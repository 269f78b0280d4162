#include "text/template/pretty_print.h"

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

constexpr Int kWidth = 80;

// What has no order is ordered by the name of its type.
bool IsBefore(Runtime& rt, const Value& a, const Value& b) {
  const Result<bool> less = LessThan(rt, a, b);
  return less ? *less : TypeName(a) < TypeName(b);
}

bool IsNested(const Value& value) {
  return value.IsDict() || (value.IsSequence() && !value.sequence().is_group);
}

// The value with all its dicts in the order of their keys.
Result<Value> InOrder(Runtime& rt, const Value& value) {
  RETURN_IF_ERROR(rt.Charge(1));
  if (!IsNested(value)) return value;
  if (value.IsSequence()) {
    std::vector<Value> items;
    for (const Value& item : value.items()) {
      ASSIGN_OR_RETURN(Value ordered, InOrder(rt, item));
      items.push_back(std::move(ordered));
    }
    return value.IsTuple() ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
  }
  RETURN_IF_ERROR(rt.ProduceItems(2 * value.dict().size()));
  std::vector<Dict::Entry> entries = value.dict().entries();
  std::stable_sort(entries.begin(), entries.end(),
                   [&](const auto& a, const auto& b) { return IsBefore(rt, a.key, b.key); });
  Dict dict;
  for (Dict::Entry& entry : entries) {
    ASSIGN_OR_RETURN(Value ordered, InOrder(rt, entry.value));
    RETURN_IF_ERROR(dict.Set(std::move(entry.key), std::move(ordered)));
  }
  return Value::FromDict(std::make_shared<const Dict>(std::move(dict)));
}

Result<MarkedString> Repr(Runtime& rt, const Value& value) {
  MarkedString text;
  RETURN_IF_ERROR(AppendRepr(rt, value, &text));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  return text;
}

Int WidthOf(const MarkedString& text) { return static_cast<Int>(CountCodePoints(text.text())); }

// Behind the word at `at` and the white space that follows it.
size_t WordEnd(std::string_view line, size_t at) {
  bool in_space = false;
  while (at < line.size()) {
    size_t next = at;
    const bool space = IsSpace(NextCodePoint(line, &next));
    if (in_space && !space) break;
    in_space = space;
    at = next;
  }
  return at;
}

class Printer {
 public:
  explicit Printer(Runtime& rt) : rt_(rt) {}

  // `indent`: of the lines to come; `allowance`: what must fit behind the value.
  Status Print(const Value& value, Int indent, Int allowance, bool outermost = false) {
    ASSIGN_OR_RETURN(const MarkedString repr, Repr(rt_, value));
    const bool fits = WidthOf(repr) <= kWidth - indent - allowance;
    if (!fits && value.IsDict()) return PrintDict(value.dict(), indent, allowance);
    if (!fits && IsNested(value)) return PrintSequence(value, indent, allowance);
    if (!fits && value.IsString() && !value.string().escaped() && !value.string().empty())
      return PrintString(value.string(), indent, allowance, outermost);
    return Append(repr);
  }

  MarkedString Take() { return std::move(out_); }

 private:
  Status Append(const MarkedString& text) {
    RETURN_IF_ERROR(rt_.Fits(out_.bytes() + text.bytes()));
    out_.Append(text);
    return {};
  }

  Status NewLine(Int indent) {
    RETURN_IF_ERROR(rt_.Fits(out_.bytes() + static_cast<size_t>(indent) + 1));
    out_.Append("\n" + std::string(static_cast<size_t>(indent), ' '));
    return {};
  }

  Status PrintDict(const Dict& dict, Int indent, Int allowance) {
    out_.Append("{");
    ++indent;
    const auto& entries = dict.entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool last = i + 1 == entries.size();
      ASSIGN_OR_RETURN(const MarkedString key, Repr(rt_, entries[i].key));
      RETURN_IF_ERROR(Append(key));
      out_.Append(": ");
      RETURN_IF_ERROR(Print(entries[i].value, indent + WidthOf(key) + 2, last ? allowance + 1 : 1));
      if (last) break;
      out_.Append(",");
      RETURN_IF_ERROR(NewLine(indent));
    }
    out_.Append("}");
    return {};
  }

  Status PrintSequence(const Value& value, Int indent, Int allowance) {
    const auto& items = value.items();
    const std::string_view end = !value.IsTuple() ? "]" : items.size() == 1 ? ",)" : ")";
    out_.Append(value.IsTuple() ? "(" : "[");
    ++indent;
    for (size_t i = 0; i < items.size(); ++i) {
      const bool last = i + 1 == items.size();
      RETURN_IF_ERROR(Print(items[i], indent, last ? allowance + static_cast<Int>(end.size()) : 1));
      if (last) break;
      out_.Append(",");
      RETURN_IF_ERROR(NewLine(indent));
    }
    out_.Append(end);
    return {};
  }

  // As literals below each other: the text's lines, those too long broken between words.
  Status PrintString(const MarkedString& text, Int indent, Int allowance, bool outermost) {
    if (outermost) {
      ++indent;
      ++allowance;
    }
    std::vector<MarkedString> literals;
    ASSIGN_OR_RETURN(const std::vector<MarkedString> lines, SplitLines(rt_, text, true));
    for (size_t i = 0; i < lines.size(); ++i)
      RETURN_IF_ERROR(
          AddLiterals(lines[i], kWidth - indent, i + 1 == lines.size() ? allowance : 0, &literals));
    const bool bracketed = outermost && literals.size() > 1;
    if (bracketed) out_.Append("(");
    for (size_t i = 0; i < literals.size(); ++i) {
      if (i > 0) RETURN_IF_ERROR(NewLine(indent));
      RETURN_IF_ERROR(Append(literals[i]));
    }
    if (bracketed) out_.Append(")");
    return {};
  }

  // `allowance`: behind the line's last literal.
  Status AddLiterals(const MarkedString& line, Int width, Int allowance,
                     std::vector<MarkedString>* literals) {
    const auto add = [&](MarkedString literal) -> Status {
      RETURN_IF_ERROR(rt_.ProduceObjects(1));
      RETURN_IF_ERROR(rt_.Produce(literal.bytes()));
      literals->push_back(std::move(literal));
      return {};
    };
    ASSIGN_OR_RETURN(MarkedString repr, Repr(rt_, Value::String(line)));
    if (WidthOf(repr) <= width - allowance) return add(std::move(repr));
    MarkedString literal;
    size_t begin = 0;
    for (size_t end = 0, next = 0; end < line.size(); end = next) {
      next = WordEnd(line.text(), end);
      if (next == line.size()) width -= allowance;
      ASSIGN_OR_RETURN(repr, Repr(rt_, Value::String(line.Slice(begin, next))));
      if (WidthOf(repr) > width && begin < end) {
        RETURN_IF_ERROR(add(std::move(literal)));
        begin = end;
        ASSIGN_OR_RETURN(repr, Repr(rt_, Value::String(line.Slice(begin, next))));
      }
      literal = std::move(repr);
    }
    return add(std::move(literal));
  }

  Runtime& rt_;
  MarkedString out_;
};

}  // namespace

Result<MarkedString> PrettyPrint(Runtime& rt, const Value& value) {
  ASSIGN_OR_RETURN(const Value ordered, InOrder(rt, value));
  Printer printer(rt);
  RETURN_IF_ERROR(printer.Print(ordered, 0, 0, true));
  return printer.Take();
}

}  // namespace perdure::text::jinja
