#include "text/template/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>

#include "base/limits.h"

namespace perdure::text::jinja {
namespace {

// Beyond this many keys a dict is searched by hash.
constexpr size_t kIndexedDictSize = 8;
constexpr size_t kNowhere = static_cast<size_t>(-1);

bool KeysEqual(const Value& a, const Value& b) {
  if (a.IsString() || b.IsString()) return a.IsString() && b.IsString() && a.text() == b.text();
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.integral() == b.integral();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  if (a.IsSequence()) {
    return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end(),
                      KeysEqual);
  }
  if (a.IsObject()) return a.object() == b.object();
  return true;  // none, undefined
}

}  // namespace

std::string LoopObject::Repr() const {
  return fmt::format("<LoopContext {}/{}>", index0 + 1, items.size());
}

std::string_view Value::undefined_message() const {
  const auto& info = std::get<0>(data_);
  return info ? std::string_view(info->message) : std::string_view("the value is undefined");
}

size_t Dict::IndexOf(size_t hash, const Value& key) const {
  if (index_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i)
      if (KeysEqual(entries_[i].key, key)) return i;
    return kNowhere;
  }
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (KeysEqual(entries_[it->second].key, key)) return it->second;
  return kNowhere;
}

const Value* Dict::Find(std::string_view key) const {
  if (index_.empty()) {
    for (const Entry& entry : entries_)
      if (entry.key.IsString() && entry.key.text() == key) return &entry.value;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(std::hash<std::string_view>{}(key));
  for (auto it = begin; it != end; ++it) {
    const Entry& entry = entries_[it->second];
    if (entry.key.IsString() && entry.key.text() == key) return &entry.value;
  }
  return nullptr;
}

const Value* Dict::Find(const Value& key) const {
  const size_t at = IndexOf(HashOf(key), key);
  return at == kNowhere ? nullptr : &entries_[at].value;
}

Status Dict::Set(Value key, Value value) {
  if (!IsHashable(key)) return Fail(fmt::format("unhashable type: '{}'", TypeName(key)));
  const int depth = std::max(DepthOf(key), DepthOf(value)) + 1;
  if (depth > limits::kTemplateValueDepthMax)
    return Fail(fmt::format("values nested deeper than {} levels", limits::kTemplateValueDepthMax));
  depth_ = std::max(depth_, depth);
  const size_t hash = HashOf(key);
  const size_t at = IndexOf(hash, key);
  if (at != kNowhere) {
    entries_[at].value = std::move(value);
    return {};
  }
  entries_.push_back({std::move(key), std::move(value)});
  if (!index_.empty()) {
    index_.emplace(hash, entries_.size() - 1);
  } else if (entries_.size() > kIndexedDictSize) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(HashOf(entries_[i].key), i);
  }
  return {};
}

int DepthOf(const Value& value) {
  switch (value.kind()) {
    case Kind::kSequence:
      return value.sequence().depth;
    case Kind::kDict:
      return value.dict().depth();
    case Kind::kObject:
      return value.object()->depth;
    default:
      return 0;
  }
}

Result<int> DepthAbove(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, DepthOf(item));
  if (depth >= limits::kTemplateValueDepthMax)
    return Fail(fmt::format("values nested deeper than {} levels", limits::kTemplateValueDepthMax));
  return depth + 1;
}

namespace {
Result<Value> MakeSequence(std::vector<Value> items, bool is_tuple, bool is_group = false) {
  ASSIGN_OR_RETURN(const int depth, DepthAbove(items));
  return Value::FromSequence(
      std::make_shared<const Sequence>(Sequence{std::move(items), is_tuple, depth, is_group}));
}
}  // namespace

Result<Value> MakeList(std::vector<Value> items) { return MakeSequence(std::move(items), false); }
Result<Value> MakeTuple(std::vector<Value> items) { return MakeSequence(std::move(items), true); }
Result<Value> MakeGroup(Value grouper, Value list) {
  return MakeSequence({std::move(grouper), std::move(list)}, true, true);
}

std::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kSequence:
      return value.IsTuple() ? "tuple" : "list";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      break;
  }
  switch (value.object()->type) {
    case ObjectType::kRange:
      return "range";
    case ObjectType::kIterator:
      return "generator";
    case ObjectType::kDictView:
      switch (AsDictView(value)->part) {
        case DictViewObject::Part::kKeys:
          return "dict_keys";
        case DictViewObject::Part::kValues:
          return "dict_values";
        case DictViewObject::Part::kItems:
          return "dict_items";
      }
      return "dict_items";
    case ObjectType::kNamespace:
      return "Namespace";
    case ObjectType::kFunction:
      return "function";
    case ObjectType::kMacro:
      return "Macro";
    case ObjectType::kLoop:
      return "LoopContext";
    case ObjectType::kCycler:
      return "Cycler";
    case ObjectType::kJoiner:
      return "Joiner";
  }
  return "object";
}

bool IsHashable(const Value& value) {
  if (value.IsDict() || value.IsList()) return false;
  if (const DictViewObject* view = AsDictView(value))
    return view->part == DictViewObject::Part::kValues;
  if (value.IsTuple()) return std::all_of(value.items().begin(), value.items().end(), IsHashable);
  return true;
}

size_t HashOf(const Value& value) {
  switch (value.kind()) {
    case Kind::kString:
      return std::hash<std::string_view>{}(value.text());
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      // Equal numbers of different kinds are equal as doubles.
      return std::hash<double>{}(value.number());
    case Kind::kSequence: {
      size_t hash = 0x9e3779b9;
      for (const Value& item : value.items()) hash = hash * 1'000'003 ^ HashOf(item);
      return hash;
    }
    case Kind::kObject:
      return std::hash<const void*>{}(value.object().get());
    default:
      return static_cast<size_t>(value.kind());
  }
}

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.bool_value();
    case Kind::kInt:
      return value.integral() != 0;
    case Kind::kFloat:
      return value.number() != 0;
    case Kind::kString:
      return !value.string().empty();
    case Kind::kSequence:
      return !value.items().empty();
    case Kind::kDict:
      return value.dict().size() > 0;
    case Kind::kObject:
      if (const RangeObject* range = AsRange(value)) return range->length > 0;
      if (const DictViewObject* view = AsDictView(value)) return view->dict->size() > 0;
      return true;
  }
  return true;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  // d.ddde±xx: digits and exponent, laid out as float.__repr__ does.
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const bool negative = text.front() == '-';
  const size_t e = text.find('e');
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  int exponent = 0;
  const size_t sign_at = e + 1;
  std::from_chars(text.data() + sign_at + (text[sign_at] == '+'), text.data() + text.size(),
                  exponent);
  std::string out = negative ? "-" : "";
  if (exponent >= -4 && exponent < 16) {
    if (exponent < 0) {
      out += "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
    } else {
      const auto whole = static_cast<size_t>(exponent) + 1;
      if (digits.size() <= whole)
        out += digits + std::string(whole - digits.size(), '0') + ".0";
      else
        out += digits.substr(0, whole) + "." + digits.substr(whole);
    }
    return out;
  }
  out += digits.substr(0, 1);
  if (digits.size() > 1) out += "." + digits.substr(1);
  return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
}

std::string IntText(Int value) {
  if (value == 0) return "0";
  const bool negative = value < 0;
  auto magnitude = static_cast<unsigned __int128>(value);
  if (negative) magnitude = -magnitude;
  std::string digits;
  for (; magnitude > 0; magnitude /= 10) digits += static_cast<char>('0' + int(magnitude % 10));
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

bool FitsInt64(Int value) {
  return value >= std::numeric_limits<int64_t>::min() &&
         value <= std::numeric_limits<int64_t>::max();
}

}  // namespace perdure::text::jinja
