// Iteration, items, slices and attributes.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "text/template/operators.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

constexpr std::string_view kDictMutators[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListMutators[] = {"append", "clear",  "extend",  "insert",
                                              "pop",    "remove", "reverse", "sort"};

template <size_t n>
bool IsOneOf(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value NoAttribute(const Value& value, std::string_view name) {
  return Value::Undefined(
      value.IsNone() ? fmt::format("'None' has no attribute '{}'", name)
                     : fmt::format("'{} object' has no attribute '{}'", TypeName(value), name));
}

Value LoopAttribute(const LoopObject& loop, std::string_view name) {
  const auto number = [](size_t n) { return Value::Integer(static_cast<Int>(n)); };
  const size_t length = loop.items.size();
  if (name == "index") return number(loop.index0 + 1);
  if (name == "index0") return number(loop.index0);
  if (name == "first") return Value::Bool(loop.index0 == 0);
  if (name == "last") return Value::Bool(loop.index0 + 1 >= length);
  if (name == "length") return number(length);
  if (name == "revindex") return number(length - loop.index0);
  if (name == "revindex0") return number(length - loop.index0 - 1);
  if (name == "depth") return Value::Integer(loop.depth0 + 1);
  if (name == "depth0") return Value::Integer(loop.depth0);
  if (name == "previtem")
    return loop.index0 == 0 ? Value::Undefined("there is no previous item")
                            : loop.items[loop.index0 - 1];
  if (name == "nextitem")
    return loop.index0 + 1 >= length ? Value::Undefined("there is no next item")
                                     : loop.items[loop.index0 + 1];
  return Value();
}

// The attribute that Python's object itself has; absent where it has none.
Result<Value> OwnAttribute(const Value& value, std::string_view name) {
  const bool dunder = name.size() > 4 && name.starts_with("__") && name.ends_with("__");
  const bool mutates = (value.IsDict() && IsOneOf(kDictMutators, name)) ||
                       (value.IsList() && IsOneOf(kListMutators, name));
  if (dunder || mutates)
    return Value::Undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", name, TypeName(value)));
  if (const NamespaceObject* space = AsNamespace(value)) {
    const Value* found = space->attributes.Find(name);
    return found != nullptr ? *found : Value();
  }
  if (const LoopObject* loop = AsLoop(value)) {
    if (Value attribute = LoopAttribute(*loop, name); !attribute.IsAbsent()) return attribute;
  }
  if (value.IsSequence() && value.sequence().is_group) {
    if (name == "grouper") return value.items()[0];
    if (name == "list") return value.items()[1];
  }
  if (const auto* cycler = ObjectAs<CyclerObject>(value, ObjectType::kCycler);
      cycler != nullptr && name == "current")
    return cycler->items[cycler->at];
  if (const Function method = FindMethod(value, name)) {
    auto bound = std::make_shared<FunctionObject>();
    ASSIGN_OR_RETURN(bound->depth, DepthAbove({value}));
    bound->name = name;
    bound->function = method;
    bound->self = value;
    return Value::FromObject(std::move(bound));
  }
  return Value();
}

// Where Python's index lands; nothing when it is out of range.
std::optional<size_t> ResolveIndex(Int index, size_t size) {
  if (index < 0) index += static_cast<Int>(size);
  if (index < 0 || index >= static_cast<Int>(size)) return std::nullopt;
  return static_cast<size_t>(index);
}

Value RangeItem(const RangeObject& range, size_t i) {
  return Value::Integer(range.start + range.step * static_cast<Int>(i));
}

// obj[key] without the fallback to attributes; absent where Python would raise a TypeError or
// LookupError.
Result<Value> OwnItem(Runtime& rt, const Value& value, const Value& key) {
  if (value.IsDict()) {
    if (!IsHashable(key)) return Value();
    const Value* found = key.IsString() ? value.dict().Find(key.text()) : value.dict().Find(key);
    return found != nullptr ? *found : Value();
  }
  if (!key.IsIntegral()) return Value();
  if (value.IsString()) {
    RETURN_IF_ERROR(rt.ChargeFor(value));
    const std::string& text = value.text();
    const bool ascii = IsAscii(text);
    const auto index = ResolveIndex(key.integral(), ascii ? text.size() : CountCodePoints(text));
    if (!index) return Value();
    const size_t begin = ascii ? *index : OffsetOfCodePoint(text, *index);
    size_t end = begin;
    NextCodePoint(text, &end);
    return rt.NewString(value.string().Slice(begin, end));
  }
  if (value.IsSequence()) {
    const auto index = ResolveIndex(key.integral(), value.items().size());
    return index ? value.items()[*index] : Value();
  }
  if (const RangeObject* range = AsRange(value)) {
    const auto index = ResolveIndex(key.integral(), range->length);
    return index ? RangeItem(*range, *index) : Value();
  }
  return Value();
}

struct SliceBounds {
  int64_t start = 0;
  int64_t step = 1;
  size_t count = 0;
};

// slice.indices() of Python.
Result<SliceBounds> ResolveSlice(const Value& start, const Value& stop, const Value& step,
                                 size_t length) {
  const auto size = static_cast<Int>(length);
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->IsAbsent() && !bound->IsNone() && !bound->IsIntegral())
      return Fail("slice indices must be integers or none");
  }
  const auto given = [](const Value& v) { return v.IsIntegral(); };
  const Int by = given(step) ? step.integral() : 1;
  if (by == 0) return Fail("slice step cannot be zero");
  const Int low = by < 0 ? -1 : 0;
  const Int high = by < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& v, Int absent) {
    if (!given(v)) return absent;
    Int at = v.integral();
    if (at < 0) at = std::max(at + size, low);
    return std::min(at, high);
  };
  const Int first = clamp(start, by < 0 ? high : low);
  const Int last = clamp(stop, by < 0 ? low : high);
  SliceBounds bounds;
  bounds.start = static_cast<int64_t>(first);
  if (by > 0 && first < last) bounds.count = static_cast<size_t>((last - first - 1) / by + 1);
  if (by < 0 && first > last) bounds.count = static_cast<size_t>((first - last - 1) / -by + 1);
  // A step beyond the length is taken at most once.
  bounds.step = static_cast<int64_t>(std::clamp<Int>(by, -size - 1, size + 1));
  return bounds;
}

Result<Value> SliceString(Runtime& rt, const MarkedString& text, const Value& start,
                          const Value& stop, const Value& step) {
  const bool ascii = IsAscii(text.text());
  const size_t length = ascii ? text.size() : CountCodePoints(text.text());
  ASSIGN_OR_RETURN(const SliceBounds bounds, ResolveSlice(start, stop, step, length));
  if (bounds.count == 0) return Value::String(text.Slice(0, 0));
  if (bounds.step == 1) {
    const auto first = static_cast<size_t>(bounds.start);
    if (ascii) return rt.NewString(text.Slice(first, first + bounds.count));
    const size_t begin = OffsetOfCodePoint(text.text(), first);
    const size_t end =
        begin + OffsetOfCodePoint(std::string_view(text.text()).substr(begin), bounds.count);
    return rt.NewString(text.Slice(begin, end));
  }
  std::vector<size_t> offsets;
  RETURN_IF_ERROR(rt.Fits(8 * length));
  for (size_t at = 0; at < text.size(); NextCodePoint(text.text(), &at)) offsets.push_back(at);
  offsets.push_back(text.size());
  MarkedString result;
  int64_t at = bounds.start;
  for (size_t i = 0; i < bounds.count; ++i, at += bounds.step)
    result.AppendSlice(text, offsets[static_cast<size_t>(at)],
                       offsets[static_cast<size_t>(at) + 1]);
  result.set_escaped(text.escaped());
  return rt.NewString(std::move(result));
}

}  // namespace

Result<std::vector<Value>> Iterate(Runtime& rt, const Value& value) {
  RETURN_IF_ERROR(rt.ChargeFor(value));
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined:
      return items;
    case Kind::kSequence:
      return value.items();
    case Kind::kDict:
      for (const auto& entry : value.dict().entries()) items.push_back(entry.key);
      return items;
    case Kind::kString: {
      const MarkedString& text = value.string();
      RETURN_IF_ERROR(rt.Charge(static_cast<int64_t>(text.size())));
      RETURN_IF_ERROR(rt.ProduceObjects(text.size()));
      for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        NextCodePoint(text.text(), &at);
        MarkedString character = text.Slice(begin, at);
        character.set_escaped(false);  // as Python's str.__iter__
        items.push_back(Value::String(std::move(character)));
      }
      return items;
    }
    case Kind::kObject:
      if (const RangeObject* range = AsRange(value)) {
        RETURN_IF_ERROR(rt.ProduceItems(range->length));
        items.reserve(range->length);
        for (size_t i = 0; i < range->length; ++i) items.push_back(RangeItem(*range, i));
        return items;
      }
      if (IteratorObject* iterator = AsIterator(value)) {
        items.assign(iterator->items.begin() + static_cast<std::ptrdiff_t>(iterator->next),
                     iterator->items.end());
        iterator->next = iterator->items.size();
        if (iterator->failure) return Err(*iterator->failure);
        return items;
      }
      if (const DictViewObject* view = AsDictView(value)) {
        for (const auto& entry : view->dict->entries()) {
          switch (view->part) {
            case DictViewObject::Part::kKeys:
              items.push_back(entry.key);
              break;
            case DictViewObject::Part::kValues:
              items.push_back(entry.value);
              break;
            case DictViewObject::Part::kItems: {
              ASSIGN_OR_RETURN(Value pair, rt.NewTuple({entry.key, entry.value}));
              items.push_back(std::move(pair));
              break;
            }
          }
        }
        return items;
      }
      break;
    default:
      break;
  }
  return Fail(fmt::format("'{}' object is not iterable", TypeName(value)));
}

Result<std::vector<Value>> IterateLazily(Runtime& rt, const Value& value,
                                         std::shared_ptr<const Error>* failure) {
  if (IteratorObject* iterator = AsIterator(value))
    *failure = std::exchange(iterator->failure, nullptr);
  return Iterate(rt, value);
}

Result<size_t> Length(Runtime& rt, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return size_t{0};
    case Kind::kString:
      RETURN_IF_ERROR(rt.ChargeFor(value));
      return CountCodePoints(value.text());
    case Kind::kSequence:
      return value.items().size();
    case Kind::kDict:
      return value.dict().size();
    case Kind::kObject:
      if (const RangeObject* range = AsRange(value)) return range->length;
      if (const DictViewObject* view = AsDictView(value)) return view->dict->size();
      if (const LoopObject* loop = AsLoop(value)) return loop->items.size();
      break;
    default:
      break;
  }
  return Fail(fmt::format("object of type '{}' has no len()", TypeName(value)));
}

Result<Value> GetAttribute(Runtime& rt, const Value& value, std::string_view name) {
  if (value.IsUndefined()) return FailUndefined(value);
  ASSIGN_OR_RETURN(Value own, OwnAttribute(value, name));
  if (!own.IsAbsent()) return own;
  if (value.IsDict()) {
    if (const Value* found = value.dict().Find(name)) return *found;
  }
  (void)rt;
  return NoAttribute(value, name);
}

Result<Value> GetItem(Runtime& rt, const Value& value, const Value& key) {
  if (value.IsUndefined()) return FailUndefined(value);
  ASSIGN_OR_RETURN(Value item, OwnItem(rt, value, key));
  if (!item.IsAbsent()) return item;
  if (key.IsString()) {
    ASSIGN_OR_RETURN(Value own, OwnAttribute(value, key.text()));
    if (!own.IsAbsent()) return own;
    return NoAttribute(value, key.text());
  }
  return Value::Undefined(fmt::format(
      "{} object has no element {}", TypeName(value),
      key.IsIntegral() ? IntText(key.integral()) : fmt::format("of type '{}'", TypeName(key))));
}

Result<Value> GetSlice(Runtime& rt, const Value& value, const Value& start, const Value& stop,
                       const Value& step) {
  if (value.IsUndefined()) return FailUndefined(value);
  RETURN_IF_ERROR(rt.ChargeFor(value));
  if (value.IsString()) return SliceString(rt, value.string(), start, stop, step);
  const RangeObject* range = AsRange(value);
  if (!value.IsSequence() && range == nullptr)
    return Fail(fmt::format("'{}' object cannot be sliced", TypeName(value)));
  const size_t length = range != nullptr ? range->length : value.items().size();
  ASSIGN_OR_RETURN(const SliceBounds bounds, ResolveSlice(start, stop, step, length));
  if (range != nullptr) {
    auto part = std::make_shared<RangeObject>();
    part->start = range->start + range->step * bounds.start;
    part->step = range->step * bounds.step;
    part->length = bounds.count;
    part->stop = part->start + part->step * static_cast<Int>(bounds.count);
    return Value::FromObject(std::move(part));
  }
  std::vector<Value> items;
  items.reserve(bounds.count);
  int64_t at = bounds.start;
  for (size_t i = 0; i < bounds.count; ++i, at += bounds.step)
    items.push_back(value.items()[static_cast<size_t>(at)]);
  return value.IsTuple() ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
}

}  // namespace perdure::text::jinja
