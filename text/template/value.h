// Values of a rendering, with the meaning that Python gives them: integers, floats, code-point
// strings, lists, tuples and insertion-ordered dicts, all immutable, and a few kinds of objects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/template/marked_string.h"

namespace perdure::text::jinja {

// Wide enough for every 64-bit JSON number, signed or not; results beyond it are errors.
using Int = __int128;

class Value;
class Dict;
struct Object;

struct Sequence {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
  // One of groupby's pairs, whose parts have names.
  bool is_group = false;
};

// Why a value is undefined: what operations on it report.
struct UndefinedInfo {
  std::string message;
};

enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kSequence, kDict, kObject };

class Value {
 public:
  // Absent: an argument that was not passed, a variable that was never set.
  Value() = default;

  static Value None() { return Value(NoneTag{}); }
  static Value Bool(bool value) { return Value(value); }
  static Value Integer(Int value) { return Value(value); }
  static Value Float(double value) { return Value(value); }
  static Value String(MarkedString text) {
    return Value(std::make_shared<const MarkedString>(std::move(text)));
  }
  static Value String(std::string_view text, bool input = false) {
    return String(MarkedString(std::string(text), input));
  }
  static Value Undefined(std::string message) {
    return Value(std::make_shared<const UndefinedInfo>(UndefinedInfo{std::move(message)}));
  }
  static Value FromObject(std::shared_ptr<Object> object) { return Value(std::move(object)); }
  static Value FromDict(std::shared_ptr<const Dict> dict) { return Value(std::move(dict)); }
  static Value FromSequence(std::shared_ptr<const Sequence> items) {
    return Value(std::move(items));
  }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool IsAbsent() const { return IsUndefined() && std::get<0>(data_) == nullptr; }
  bool IsUndefined() const { return kind() == Kind::kUndefined; }
  bool IsNone() const { return kind() == Kind::kNone; }
  bool IsBool() const { return kind() == Kind::kBool; }
  bool IsInt() const { return kind() == Kind::kInt; }
  bool IsFloat() const { return kind() == Kind::kFloat; }
  bool IsString() const { return kind() == Kind::kString; }
  bool IsSequence() const { return kind() == Kind::kSequence; }
  bool IsTuple() const { return IsSequence() && sequence().is_tuple; }
  bool IsList() const { return IsSequence() && !sequence().is_tuple; }
  bool IsDict() const { return kind() == Kind::kDict; }
  bool IsObject() const { return kind() == Kind::kObject; }
  // Python's bool is an int.
  bool IsIntegral() const { return IsInt() || IsBool(); }
  bool IsNumber() const { return IsIntegral() || IsFloat(); }

  // Each needs its kind.
  bool bool_value() const { return std::get<bool>(data_); }
  Int integral() const { return IsBool() ? Int{bool_value()} : std::get<Int>(data_); }
  double number() const {
    return IsFloat() ? std::get<double>(data_) : static_cast<double>(integral());
  }
  const MarkedString& string() const { return *std::get<5>(data_); }
  const std::string& text() const { return string().text(); }
  const Sequence& sequence() const { return *std::get<6>(data_); }
  const std::vector<Value>& items() const { return sequence().items; }
  const Dict& dict() const { return *std::get<7>(data_); }
  const std::shared_ptr<const Dict>& dict_ptr() const { return std::get<7>(data_); }
  const std::shared_ptr<Object>& object() const { return std::get<8>(data_); }
  std::string_view undefined_message() const;

 private:
  struct NoneTag {};
  using Data = std::variant<std::shared_ptr<const UndefinedInfo>, NoneTag, bool, Int, double,
                            std::shared_ptr<const MarkedString>, std::shared_ptr<const Sequence>,
                            std::shared_ptr<const Dict>, std::shared_ptr<Object>>;
  template <class T>
  explicit Value(T value) : data_(std::in_place_type<T>, std::move(value)) {}

  Data data_;
};

// Insertion-ordered, keys compared as Python does (1 == 1.0 == True).
class Dict {
 public:
  struct Entry {
    Value key;
    Value value;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }
  const Value* Find(std::string_view key) const;
  // `key` must be hashable.
  const Value* Find(const Value& key) const;
  // A key that is there keeps its place. Lists and dicts cannot be keys (bad_template).
  Status Set(Value key, Value value);

 private:
  size_t IndexOf(size_t hash, const Value& key) const;

  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, size_t> index_;  // hash → entry, once there are many
  int depth_ = 1;
};

enum class ObjectType {
  kRange,
  kIterator,
  kDictView,
  kNamespace,
  kFunction,
  kMacro,
  kLoop,
  kCycler,
  kJoiner
};

// `depth` bounds how deep values nest, so that recursion over them (destructors too) is bounded.
struct Object {
  explicit Object(ObjectType object_type) : type(object_type) {}
  virtual ~Object() = default;
  // Python's repr; "" for kinds that repr.cc writes.
  virtual std::string Repr() const { return {}; }
  const ObjectType type;
  int depth = 1;
};

struct RangeObject : Object {
  RangeObject() : Object(ObjectType::kRange) {}
  Int start = 0, stop = 0, step = 1;
  size_t length = 0;
};

// What filters such as map and select give: consumed by the first that reads it.
struct IteratorObject : Object {
  IteratorObject() : Object(ObjectType::kIterator) {}
  std::vector<Value> items;
  size_t next = 0;
  // What computing the element behind the last raised: generators are lazy, so it is an error only
  // for those who read that far.
  std::shared_ptr<const Error> failure;
};

struct DictViewObject : Object {
  enum class Part { kKeys, kValues, kItems };
  DictViewObject() : Object(ObjectType::kDictView) {}
  std::shared_ptr<const Dict> dict;
  Part part = Part::kItems;
};

// The one mutable kind. The interpreter empties all of them at the end, which breaks cycles.
struct NamespaceObject : Object {
  NamespaceObject() : Object(ObjectType::kNamespace) {}
  Dict attributes;
};

struct CyclerObject : Object {
  CyclerObject() : Object(ObjectType::kCycler) {}
  std::vector<Value> items;
  size_t at = 0;
};

struct JoinerObject : Object {
  JoinerObject() : Object(ObjectType::kJoiner) {}
  Value separator;
  bool used = false;
};

// `loop` inside a for loop.
struct LoopObject : Object {
  LoopObject() : Object(ObjectType::kLoop) {}
  std::vector<Value> items;
  size_t index0 = 0;
  int depth0 = 0;
  // The arguments of the last loop.changed(); absent before.
  Value changed;
  std::string Repr() const override;
};

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // An argument's expression cannot give an absent value, so absent means "not passed".
};

class Runtime;
using Function = Result<Value> (*)(Runtime& runtime, const Value& self, const Args& args);

// A global or a bound method.
struct FunctionObject : Object {
  FunctionObject() : Object(ObjectType::kFunction) {}
  std::string name;
  Function function = nullptr;
  Value self;
};

template <class T>
T* ObjectAs(const Value& value, ObjectType type) {
  if (!value.IsObject() || value.object()->type != type) return nullptr;
  return static_cast<T*>(value.object().get());
}
inline const RangeObject* AsRange(const Value& v) {
  return ObjectAs<RangeObject>(v, ObjectType::kRange);
}
inline IteratorObject* AsIterator(const Value& v) {
  return ObjectAs<IteratorObject>(v, ObjectType::kIterator);
}
inline const DictViewObject* AsDictView(const Value& v) {
  return ObjectAs<DictViewObject>(v, ObjectType::kDictView);
}
inline LoopObject* AsLoop(const Value& v) { return ObjectAs<LoopObject>(v, ObjectType::kLoop); }
inline NamespaceObject* AsNamespace(const Value& v) {
  return ObjectAs<NamespaceObject>(v, ObjectType::kNamespace);
}

// An error of the template (bad_template); the interpreter adds name, line and expression.
inline tl::unexpected<Error> Fail(std::string message) {
  return Err(ErrorCode::bad_template, std::move(message));
}

int DepthOf(const Value& value);
// The depth of what holds `items`; an error beyond the bound.
Result<int> DepthAbove(const std::vector<Value>& items);

Result<Value> MakeList(std::vector<Value> items);
Result<Value> MakeTuple(std::vector<Value> items);
Result<Value> MakeGroup(Value grouper, Value list);

// Python's names: "str", "NoneType", "dict", …
std::string_view TypeName(const Value& value);
bool IsHashable(const Value& value);
size_t HashOf(const Value& value);
// Python's bool().
bool IsTrue(const Value& value);

// Python's repr of a float; the digits of an integer.
std::string FloatRepr(double value);
std::string IntText(Int value);
// An integer of at most 64 bits, the range of what counts and sizes may be.
bool FitsInt64(Int value);

}  // namespace perdure::text::jinja
