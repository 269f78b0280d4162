// `value is name(arguments)`.
#include <fmt/format.h>

#include "text/template/methods.h"
#include "text/template/operators.h"
#include "text/template/repr.h"
#include "text/template/runtime.h"

namespace perdure::text::jinja {
namespace {

using Predicate = bool (*)(const Value& value);

template <Predicate predicate>
Result<Value> Simple(Runtime&, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("the test", args, {}));
  return Value::Bool(predicate(value));
}

bool IsDefined(const Value& v) { return !v.IsUndefined(); }
bool IsUndefinedTest(const Value& v) { return v.IsUndefined(); }
bool IsNoneTest(const Value& v) { return v.IsNone(); }
bool IsBoolean(const Value& v) { return v.IsBool(); }
bool IsFalseTest(const Value& v) { return v.IsBool() && !v.bool_value(); }
bool IsTrueTest(const Value& v) { return v.IsBool() && v.bool_value(); }
bool IsInteger(const Value& v) { return v.IsInt(); }
bool IsFloatTest(const Value& v) { return v.IsFloat(); }
bool IsNumberTest(const Value& v) { return v.IsNumber(); }
bool IsStringTest(const Value& v) { return v.IsString(); }
bool IsMapping(const Value& v) { return v.IsDict(); }
bool IsEscaped(const Value& v) { return v.IsString() && v.string().escaped(); }

bool IsSequenceTest(const Value& v) {
  return v.IsString() || v.IsSequence() || v.IsDict() || v.IsUndefined() || AsRange(v) != nullptr;
}
bool IsIterable(const Value& v) {
  if (v.IsObject()) {
    const ObjectType type = v.object()->type;
    return type == ObjectType::kRange || type == ObjectType::kIterator ||
           type == ObjectType::kDictView || type == ObjectType::kLoop ||
           type == ObjectType::kCycler;
  }
  return v.IsString() || v.IsSequence() || v.IsDict() || v.IsUndefined();
}
bool IsCallable(const Value& v) {
  if (v.IsUndefined()) return true;  // Undefined has __call__
  if (!v.IsObject()) return false;
  const ObjectType type = v.object()->type;
  return type == ObjectType::kFunction || type == ObjectType::kMacro || type == ObjectType::kLoop ||
         type == ObjectType::kJoiner;
}

Result<Value> Remainder(Runtime& rt, const Value& value, const Value& divisor, Int wanted) {
  ASSIGN_OR_RETURN(const Value rest, Arithmetic(rt, Op::kMod, value, divisor));
  ASSIGN_OR_RETURN(const bool equal, Equals(rt, rest, Value::Integer(wanted)));
  return Value::Bool(equal);
}
Result<Value> Odd(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("odd", args, {}));
  return Remainder(rt, value, Value::Integer(2), 1);
}
Result<Value> Even(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("even", args, {}));
  return Remainder(rt, value, Value::Integer(2), 0);
}
Result<Value> DivisibleBy(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("divisibleby", args, {"num"}, 1));
  return Remainder(rt, value, bound[0], 0);
}

template <CompareOp op>
Result<Value> Comparison(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("the comparison", args, {"other"}, 1));
  ASSIGN_OR_RETURN(const bool holds, Compare(rt, op, value, bound[0]));
  return Value::Bool(holds);
}

Result<Value> SameAs(Runtime& rt, const Value& value, const Args& args) {
  ASSIGN_OR_RETURN(const auto bound, Bind("sameas", args, {"other"}, 1));
  const Value& other = bound[0];
  if (value.kind() != other.kind()) return Value::Bool(false);
  switch (value.kind()) {
    case Kind::kUndefined:
      return Value::Bool(false);  // each look-up makes a new one
    case Kind::kSequence:
      return Value::Bool(&value.sequence() == &other.sequence());
    case Kind::kDict:
      return Value::Bool(&value.dict() == &other.dict());
    case Kind::kObject:
      return Value::Bool(value.object() == other.object());
    default: {
      ASSIGN_OR_RETURN(const bool equal, Equals(rt, value, other));
      return Value::Bool(equal);
    }
  }
}

template <bool upper>
Result<Value> CaseTest(Runtime& rt, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind(upper ? "upper" : "lower", args, {}));
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(rt, value));
  RETURN_IF_ERROR(rt.ChargeForCharacters(text));
  return Value::Bool(HasCase(text.text(), upper));
}

// Names are looked up in a dict.
Status RequireHashable(const Value& value) {
  if (!IsHashable(value)) return Fail(fmt::format("unhashable type: '{}'", TypeName(value)));
  return {};
}
Result<Value> IsFilter(Runtime&, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("filter", args, {}));
  RETURN_IF_ERROR(RequireHashable(value));
  return Value::Bool(value.IsString() && FindFilter(value.text()) != nullptr);
}
Result<Value> IsTest(Runtime&, const Value& value, const Args& args) {
  RETURN_IF_ERROR(Bind("test", args, {}));
  RETURN_IF_ERROR(RequireHashable(value));
  return Value::Bool(value.IsString() && FindTest(value.text()) != nullptr);
}

struct Entry {
  std::string_view name;
  Function function;
};
constexpr Entry kTests[] = {
    {"!=", Comparison<CompareOp::kNe>},
    {"<", Comparison<CompareOp::kLt>},
    {"<=", Comparison<CompareOp::kLe>},
    {"==", Comparison<CompareOp::kEq>},
    {">", Comparison<CompareOp::kGt>},
    {">=", Comparison<CompareOp::kGe>},
    {"boolean", Simple<IsBoolean>},
    {"callable", Simple<IsCallable>},
    {"defined", Simple<IsDefined>},
    {"divisibleby", DivisibleBy},
    {"eq", Comparison<CompareOp::kEq>},
    {"equalto", Comparison<CompareOp::kEq>},
    {"escaped", Simple<IsEscaped>},
    {"even", Even},
    {"false", Simple<IsFalseTest>},
    {"filter", IsFilter},
    {"float", Simple<IsFloatTest>},
    {"ge", Comparison<CompareOp::kGe>},
    {"greaterthan", Comparison<CompareOp::kGt>},
    {"gt", Comparison<CompareOp::kGt>},
    {"in", Comparison<CompareOp::kIn>},
    {"integer", Simple<IsInteger>},
    {"iterable", Simple<IsIterable>},
    {"le", Comparison<CompareOp::kLe>},
    {"lessthan", Comparison<CompareOp::kLt>},
    {"lower", CaseTest<false>},
    {"lt", Comparison<CompareOp::kLt>},
    {"mapping", Simple<IsMapping>},
    {"ne", Comparison<CompareOp::kNe>},
    {"none", Simple<IsNoneTest>},
    {"number", Simple<IsNumberTest>},
    {"odd", Odd},
    {"sameas", SameAs},
    {"sequence", Simple<IsSequenceTest>},
    {"string", Simple<IsStringTest>},
    {"test", IsTest},
    {"true", Simple<IsTrueTest>},
    {"undefined", Simple<IsUndefinedTest>},
    {"upper", CaseTest<true>},
};

}  // namespace

Function FindTest(std::string_view name) {
  for (const Entry& entry : kTests)
    if (entry.name == name) return entry.function;
  return nullptr;
}

}  // namespace perdure::text::jinja
