// Filters over sequences and mappings, and default.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/limits.h"
#include "text/template/filters.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/text_functions.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

Result<Value> Default(Runtime&, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("default", args, {"default_value", "boolean"}));
  const bool use = value.IsUndefined() || (IsTrue(bound[1]) && !IsTrue(value));
  if (!use) return value;
  return bound[0].IsAbsent() ? Value::String("") : bound[0];
}

Result<Value> LengthFilter(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("length", args, {}));
  ASSIGN_OR_RETURN(const size_t length, Length(rt, value));
  return Value::Integer(static_cast<Int>(length));
}

Result<Value> List(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("list", args, {}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, value));
  return rt.NewList(std::move(items));
}

Result<Value> Items(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("items", args, {}));
  if (value.IsUndefined()) return rt.NewIterator({});
  if (!value.IsDict()) return Fail("can only get item pairs from a mapping");
  std::vector<Value> items;
  for (const auto& entry : value.dict().entries()) {
    ASSIGN_OR_RETURN(Value pair, rt.NewTuple({entry.key, entry.value}));
    items.push_back(std::move(pair));
  }
  return rt.NewIterator(std::move(items));
}

Result<Value> First(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("first", args, {}));
  if (IteratorObject* iterator = AsIterator(value);
      iterator != nullptr && iterator->next < iterator->items.size())
    return iterator->items[iterator->next++];
  if (value.IsSequence() && !value.items().empty()) return value.items().front();
  if (value.IsString() && !value.string().empty()) {
    size_t end = 0;
    NextCodePoint(value.text(), &end);
    MarkedString character = value.string().Slice(0, end);
    character.set_escaped(false);
    return rt.NewString(std::move(character));
  }
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  if (items.empty()) return Value::Undefined("no first item, the sequence was empty");
  return items.front();
}

// Python's reversed(): what has no length and order cannot be reversed.
Status RequireReversible(const Value& value) {
  const bool reversible = value.IsUndefined() || value.IsSequence() || value.IsString() ||
                          value.IsDict() || AsRange(value) != nullptr ||
                          AsDictView(value) != nullptr;
  if (!reversible) return Fail(fmt::format("'{}' object is not reversible", TypeName(value)));
  return {};
}

Result<Value> Last(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("last", args, {}));
  RETURN_IF_ERROR(RequireReversible(value));
  if (value.IsSequence() && !value.items().empty()) return value.items().back();
  if (value.IsString() && !value.string().empty()) return GetItem(rt, value, Value::Integer(-1));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  if (items.empty()) return Value::Undefined("no last item, the sequence was empty");
  return items.back();
}

Result<Value> Reverse(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("reverse", args, {}));
  if (value.IsString()) return GetSlice(rt, value, Value(), Value(), Value::Integer(-1));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, value));
  std::reverse(items.begin(), items.end());
  // What reversed() does not take is made a list first.
  return AsIterator(value) != nullptr ? rt.NewList(std::move(items))
                                      : rt.NewIterator(std::move(items));
}

Result<Value> Join(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("join", args, {"d", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, value));
  MarkedString separator;
  if (!bound[0].IsAbsent()) {
    ASSIGN_OR_RETURN(separator, ToStr(rt, bound[0]));
  }
  if (!bound[1].IsAbsent()) {
    for (Value& item : items) {
      ASSIGN_OR_RETURN(item, GetPath(rt, item, bound[1], Value()));
    }
  }
  ASSIGN_OR_RETURN(MarkedString text, JoinAll(rt, separator, items, false));
  return rt.NewString(std::move(text));
}

// Stable, ascending or descending by keys[i]; gives the order.
Result<std::vector<size_t>> SortedOrder(Runtime& rt, const std::vector<Value>& keys,
                                        bool descending) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Status status;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!status) return false;
    Result<bool> less =
        descending ? LessThan(rt, keys[b], keys[a]) : LessThan(rt, keys[a], keys[b]);
    if (!less) status = Err(less.error());
    return less && *less;
  });
  RETURN_IF_ERROR(std::move(status));
  return order;
}

Result<std::vector<Value>> InOrder(std::vector<Value> items, const std::vector<size_t>& order) {
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (const size_t i : order) sorted.push_back(std::move(items[i]));
  return sorted;
}

Result<Value> SortKey(Runtime& rt, const Value& item, const Value& path, bool case_sensitive) {
  ASSIGN_OR_RETURN(Value key, GetPath(rt, item, path, Value()));
  if (case_sensitive) return key;
  return IgnoreCase(rt, key);
}

Result<Value> Sort(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind("sort", args, {"reverse", "case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, value));
  // "a,b" sorts by several attributes.
  std::vector<Value> paths;
  if (bound[2].IsString()) {
    const std::string& text = bound[2].text();
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      RETURN_IF_ERROR(rt.ProduceObjects(1));
      paths.push_back(Value::String(std::string_view(text).substr(begin, end - begin)));
      begin = end + 1;
    }
  } else {
    paths.push_back(bound[2]);
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> parts;
    for (const Value& path : paths) {
      ASSIGN_OR_RETURN(Value part, SortKey(rt, item, path, IsTrue(bound[1])));
      parts.push_back(std::move(part));
    }
    ASSIGN_OR_RETURN(Value key, MakeList(std::move(parts)));
    keys.push_back(std::move(key));
  }
  ASSIGN_OR_RETURN(const auto order, SortedOrder(rt, keys, IsTrue(bound[0])));
  ASSIGN_OR_RETURN(std::vector<Value> sorted, InOrder(std::move(items), order));
  return rt.NewList(std::move(sorted));
}

Result<Value> DictSort(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("dictsort", args, {"case_sensitive", "by", "reverse"}));
  if (value.IsUndefined()) return FailUndefined(value);
  if (!value.IsDict()) return Fail(fmt::format("dictsort needs a dict, not {}", TypeName(value)));
  size_t part = 0;
  if (!bound[1].IsAbsent()) {
    if (!bound[1].IsString() || (bound[1].text() != "key" && bound[1].text() != "value"))
      return Fail("dictsort: by must be \"key\" or \"value\"");
    part = bound[1].text() == "value" ? 1 : 0;
  }
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const auto& entry : value.dict().entries()) {
    ASSIGN_OR_RETURN(Value pair, rt.NewTuple({entry.key, entry.value}));
    Value key = pair.items()[part];
    if (!IsTrue(bound[0])) {
      ASSIGN_OR_RETURN(key, IgnoreCase(rt, key));
    }
    items.push_back(std::move(pair));
    keys.push_back(std::move(key));
  }
  ASSIGN_OR_RETURN(const auto order, SortedOrder(rt, keys, IsTrue(bound[2])));
  ASSIGN_OR_RETURN(std::vector<Value> sorted, InOrder(std::move(items), order));
  return rt.NewList(std::move(sorted));
}

Result<Value> Unique(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("unique", args, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  Dict seen;
  std::vector<Value> unique;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, SortKey(rt, item, bound[1], IsTrue(bound[0])));
    if (!IsHashable(key)) return Fail(fmt::format("unhashable type: '{}'", TypeName(key)));
    RETURN_IF_ERROR(rt.ChargeFor(key));
    if (seen.Find(key) != nullptr) continue;
    RETURN_IF_ERROR(seen.Set(std::move(key), Value::None()));
    unique.push_back(item);
  }
  return rt.NewIterator(std::move(unique));
}

Result<Value> GroupBy(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind("groupby", args, {"attribute", "default", "case_sensitive"}, 1));
  const bool case_sensitive = IsTrue(bound[2]);
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(rt, value));
  std::vector<Value> keys;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, GetPath(rt, item, bound[0], bound[1]));
    if (!case_sensitive) {
      ASSIGN_OR_RETURN(key, IgnoreCase(rt, key));
    }
    keys.push_back(std::move(key));
  }
  ASSIGN_OR_RETURN(const auto order, SortedOrder(rt, keys, false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < order.size();) {
    const Value& key = keys[order[begin]];
    // The group's key as its first element has it.
    ASSIGN_OR_RETURN(Value grouper, GetPath(rt, items[order[begin]], bound[0], bound[1]));
    std::vector<Value> members;
    for (; begin < order.size(); ++begin) {
      ASSIGN_OR_RETURN(const bool same, Equals(rt, keys[order[begin]], key));
      if (!same && !members.empty()) break;
      members.push_back(items[order[begin]]);
    }
    ASSIGN_OR_RETURN(Value list, rt.NewList(std::move(members)));
    ASSIGN_OR_RETURN(Value group, MakeGroup(std::move(grouper), std::move(list)));
    groups.push_back(std::move(group));
  }
  return rt.NewList(std::move(groups));
}

template <bool largest>
Result<Value> Extreme(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound,
                   Bind(largest ? "max" : "min", args, {"case_sensitive", "attribute"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  if (items.empty()) return Value::Undefined("no aggregated item, the sequence was empty");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(Value key, SortKey(rt, items[i], bound[1], IsTrue(bound[0])));
    if (i > 0) {
      ASSIGN_OR_RETURN(const bool better,
                       largest ? LessThan(rt, best_key, key) : LessThan(rt, key, best_key));
      if (!better) continue;
    }
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Result<Value> Sum(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("sum", args, {"attribute", "start"}));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  Value total = bound[1].IsAbsent() ? Value::Integer(0) : bound[1];
  if (total.IsString()) return Fail("sum() cannot sum strings; use join");
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value part, GetPath(rt, item, bound[0], Value()));
    ASSIGN_OR_RETURN(total, Arithmetic(rt, Op::kAdd, total, part));
  }
  return total;
}

Result<Value> Batch(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("batch", args, {"linecount", "fill_with"}, 1));
  ASSIGN_OR_RETURN(const Int count, IntArg(bound[0], 1, "batch: linecount"));
  if (count > limits::kTemplateRangeMax) return Fail("batch: linecount is too large");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  std::vector<Value> batches;
  std::vector<Value> batch;
  const auto flush = [&]() -> Status {
    ASSIGN_OR_RETURN(Value list, rt.NewList(std::exchange(batch, {})));
    batches.push_back(std::move(list));
    return {};
  };
  for (const Value& item : items) {
    if (static_cast<Int>(batch.size()) == count) RETURN_IF_ERROR(flush());
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (!bound[1].IsAbsent() && !bound[1].IsNone()) {
      while (static_cast<Int>(batch.size()) < count) batch.push_back(bound[1]);
    }
    RETURN_IF_ERROR(flush());
  }
  return rt.NewIterator(std::move(batches));
}

Result<Value> SliceFilter(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("slice", args, {"slices", "fill_with"}, 1));
  ASSIGN_OR_RETURN(const Int slices, IntArg(bound[0], 1, "slice: slices"));
  if (slices > limits::kTemplateRangeMax) return Fail("slice: too many slices");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(rt, value));
  if (slices == 0) return Fail("integer division or modulo by zero");
  std::vector<Value> result;
  const auto length = static_cast<Int>(items.size());
  Int offset = 0;
  for (Int i = 0; i < slices; ++i) {
    const Int per_slice = length / slices;
    const Int with_extra = length % slices;
    const Int begin = offset + i * per_slice;
    if (i < with_extra) ++offset;
    const Int end = offset + (i + 1) * per_slice;
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(begin),
                            items.begin() + static_cast<std::ptrdiff_t>(end));
    if (!bound[1].IsAbsent() && !bound[1].IsNone() && i >= with_extra) part.push_back(bound[1]);
    ASSIGN_OR_RETURN(Value list, rt.NewList(std::move(part)));
    result.push_back(std::move(list));
  }
  return rt.NewIterator(std::move(result));
}

Result<Value> Attr(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("attr", args, {"name"}, 1));
  ASSIGN_OR_RETURN(const MarkedString name, StringArg(bound[0], "attr: the name"));
  // Attributes only: the keys of a dict are none.
  if (value.IsDict() && FindMethod(value, name.text()) == nullptr)
    return Value::Undefined(fmt::format("'dict object' has no attribute '{}'", name.text()));
  return GetAttribute(rt, value, name.text());
}

constexpr FilterEntry kFilters[] = {
    {"attr", Attr},
    {"batch", Batch},
    {"count", LengthFilter},
    {"d", Default},
    {"default", Default},
    {"dictsort", DictSort},
    {"first", First},
    {"groupby", GroupBy},
    {"items", Items},
    {"join", Join},
    {"last", Last},
    {"length", LengthFilter},
    {"list", List},
    {"max", Extreme<true>},
    {"min", Extreme<false>},
    {"reverse", Reverse},
    {"slice", SliceFilter},
    {"sort", Sort},
    {"sum", Sum},
    {"unique", Unique},
};

}  // namespace

Function FindSequenceFilter(std::string_view name) {
  for (const FilterEntry& entry : kFilters)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
