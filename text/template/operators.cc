#include "text/template/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/template/format.h"
#include "text/template/text_functions.h"

namespace perdure::text::jinja {
namespace {

constexpr std::string_view kOpText[] = {"+", "-", "*", "/", "//", "%", "**"};

tl::unexpected<Error> Unsupported(Op op, const Value& a, const Value& b) {
  return Fail(fmt::format("unsupported operand types for {}: '{}' and '{}'",
                          kOpText[static_cast<int>(op)], TypeName(a), TypeName(b)));
}

tl::unexpected<Error> Overflow() { return Fail("an integer result is too large"); }

Result<Value> Power(Int base, Int exponent) {
  if (exponent < 0) {
    if (base == 0) return Fail("0 cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Int result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Integer(result);
}

Result<Value> IntArithmetic(Op op, Int a, Int b) {
  Int result = 0;
  switch (op) {
    case Op::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case Op::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case Op::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value::Integer(result);
    case Op::kPow:
      return Power(a, b);
    case Op::kDiv:
      if (b == 0) return Fail("division by zero");
      return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case Op::kFloorDiv:
    case Op::kMod: {
      if (b == 0) return Fail("integer division or modulo by zero");
      if (b == -1) {  // the one quotient that can overflow
        if (op == Op::kMod) return Value::Integer(0);
        if (__builtin_sub_overflow(Int{0}, a, &result)) return Overflow();
        return Value::Integer(result);
      }
      Int quotient = a / b;
      Int rest = a % b;
      if (rest != 0 && (rest < 0) != (b < 0)) {
        rest += b;
        --quotient;
      }
      return Value::Integer(op == Op::kMod ? rest : quotient);
    }
  }
  return Overflow();
}

Result<Value> FloatArithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return Value::Float(a + b);
    case Op::kSub:
      return Value::Float(a - b);
    case Op::kMul:
      return Value::Float(a * b);
    case Op::kDiv:
      if (b == 0) return Fail("float division by zero");
      return Value::Float(a / b);
    case Op::kPow: {
      if (a == 0 && b < 0) return Fail("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b))
        return Fail("the result of ** is not a real number");
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b))
        return Fail("a float result is too large");
      return Value::Float(result);
    }
    case Op::kFloorDiv:
    case Op::kMod: {
      if (b == 0) return Fail("float floor division or modulo by zero");
      double rest = std::fmod(a, b);
      double quotient = (a - rest) / b;
      if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
          rest += b;
          quotient -= 1;
        }
      } else {
        rest = std::copysign(0.0, b);
      }
      if (op == Op::kMod) return Value::Float(rest);
      if (quotient == 0) return Value::Float(std::copysign(0.0, a / b));
      double whole = std::floor(quotient);
      if (quotient - whole > 0.5) whole += 1;
      return Value::Float(whole);
    }
  }
  return Fail("unknown operator");
}

Result<Value> Repeat(Runtime& rt, const Value& value, Int times) {
  if (times < 0) times = 0;
  const size_t size = value.IsString() ? value.string().bytes() : value.items().size();
  if (size == 0) times = 0;
  if (!FitsInt64(times)) return Fail("a repetition count is too large");
  size_t total = 0;
  if (__builtin_mul_overflow(size, static_cast<size_t>(times), &total))
    return Fail("a repetition is too large");
  if (value.IsString()) {
    RETURN_IF_ERROR(rt.Fits(total));
    MarkedString result;
    result.Reserve(value.string().size() * static_cast<size_t>(times));
    for (Int i = 0; i < times; ++i) result.Append(value.string());
    result.set_escaped(value.string().escaped());
    return rt.NewString(std::move(result));
  }
  RETURN_IF_ERROR(rt.Fits(total < SIZE_MAX / 16 ? total * 16 : SIZE_MAX / 2));
  RETURN_IF_ERROR(rt.Charge(static_cast<int64_t>(total / 8)));
  std::vector<Value> items;
  items.reserve(total);
  for (Int i = 0; i < times; ++i)
    items.insert(items.end(), value.items().begin(), value.items().end());
  return value.IsTuple() ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
}

Result<Value> Join(Runtime& rt, const Value& a, const Value& b) {
  if (a.IsString()) {
    RETURN_IF_ERROR(rt.Fits(a.string().bytes() + b.string().bytes()));
    MarkedString text;
    text.Reserve(a.string().size() + b.string().size());
    // What is added to escaped text is escaped, on both sides.
    const bool escaped = a.string().escaped() || b.string().escaped();
    text.Append(escaped ? Escaped(a.string()) : a.string());
    text.Append(escaped ? Escaped(b.string()) : b.string());
    text.set_escaped(escaped);
    return rt.NewString(std::move(text));
  }
  RETURN_IF_ERROR(rt.ChargeFor(a));
  RETURN_IF_ERROR(rt.ChargeFor(b));
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.IsTuple() ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
}

bool SameSequenceKind(const Value& a, const Value& b) {
  return a.IsSequence() && b.IsSequence() && a.IsTuple() == b.IsTuple();
}

}  // namespace

tl::unexpected<Error> FailUndefined(const Value& value) {
  return Fail(std::string(value.undefined_message()));
}

Result<Value> Arithmetic(Runtime& rt, Op op, const Value& a, const Value& b) {
  if (op == Op::kMod && a.IsString()) return PercentFormat(rt, a.string(), b);
  if (a.IsUndefined()) return FailUndefined(a);
  if (b.IsUndefined()) return FailUndefined(b);
  if (a.IsIntegral() && b.IsIntegral()) return IntArithmetic(op, a.integral(), b.integral());
  if (a.IsNumber() && b.IsNumber()) return FloatArithmetic(op, a.number(), b.number());
  if (op == Op::kAdd && ((a.IsString() && b.IsString()) || SameSequenceKind(a, b)))
    return Join(rt, a, b);
  if (op == Op::kMul) {
    if ((a.IsString() || a.IsSequence()) && b.IsIntegral()) return Repeat(rt, a, b.integral());
    if ((b.IsString() || b.IsSequence()) && a.IsIntegral()) return Repeat(rt, b, a.integral());
  }
  return Unsupported(op, a, b);
}

Result<Value> Negate(const Value& value) {
  if (value.IsUndefined()) return FailUndefined(value);
  if (value.IsFloat()) return Value::Float(-value.number());
  if (!value.IsIntegral())
    return Fail(fmt::format("bad operand type for unary -: '{}'", TypeName(value)));
  Int result = 0;
  if (__builtin_sub_overflow(Int{0}, value.integral(), &result)) return Overflow();
  return Value::Integer(result);
}

Result<Value> Plus(const Value& value) {
  if (value.IsUndefined()) return FailUndefined(value);
  if (value.IsFloat()) return value;
  if (!value.IsIntegral())
    return Fail(fmt::format("bad operand type for unary +: '{}'", TypeName(value)));
  return Value::Integer(value.integral());
}

Result<bool> Equals(Runtime& rt, const Value& a, const Value& b) {
  RETURN_IF_ERROR(rt.Charge(1));
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.integral() == b.integral();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      if (a.text().size() != b.text().size()) return false;
      RETURN_IF_ERROR(rt.ChargeFor(a));
      return a.text() == b.text();
    case Kind::kSequence:
      if (!SameSequenceKind(a, b) || a.items().size() != b.items().size()) return false;
      for (size_t i = 0; i < a.items().size(); ++i) {
        ASSIGN_OR_RETURN(const bool equal, Equals(rt, a.items()[i], b.items()[i]));
        if (!equal) return false;
      }
      return true;
    case Kind::kDict:
      if (a.dict().size() != b.dict().size()) return false;
      for (const auto& entry : a.dict().entries()) {
        const Value* other = b.dict().Find(entry.key);
        if (other == nullptr) return false;
        ASSIGN_OR_RETURN(const bool equal, Equals(rt, entry.value, *other));
        if (!equal) return false;
      }
      return true;
    case Kind::kObject: {
      const RangeObject* x = AsRange(a);
      const RangeObject* y = AsRange(b);
      if (x != nullptr && y != nullptr) {
        return x->length == y->length &&
               (x->length == 0 || (x->start == y->start && (x->length == 1 || x->step == y->step)));
      }
      return a.object() == b.object();
    }
    default:
      return true;  // none, undefined
  }
}

Result<bool> LessThan(Runtime& rt, const Value& a, const Value& b) {
  RETURN_IF_ERROR(rt.Charge(1));
  if (a.IsUndefined()) return FailUndefined(a);
  if (b.IsUndefined()) return FailUndefined(b);
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.integral() < b.integral();
    return a.number() < b.number();
  }
  // UTF-8 sorts as its code points do.
  if (a.IsString() && b.IsString()) {
    RETURN_IF_ERROR(rt.ChargeFor(a.text().size() < b.text().size() ? a : b));
    return a.text() < b.text();
  }
  if (SameSequenceKind(a, b)) {
    const size_t common = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < common; ++i) {
      ASSIGN_OR_RETURN(const bool equal, Equals(rt, a.items()[i], b.items()[i]));
      if (!equal) return LessThan(rt, a.items()[i], b.items()[i]);
    }
    return a.items().size() < b.items().size();
  }
  return Fail(fmt::format("'<' not supported between instances of '{}' and '{}'", TypeName(a),
                          TypeName(b)));
}

Result<bool> Contains(Runtime& rt, const Value& container, const Value& item) {
  RETURN_IF_ERROR(rt.ChargeFor(container));
  RETURN_IF_ERROR(rt.ChargeFor(item));
  if (container.IsString()) {
    if (!item.IsString())
      return Fail(
          fmt::format("'in <string>' requires string as left operand, not {}", TypeName(item)));
    return FindText(container.text(), item.text()) != std::string::npos;
  }
  const DictViewObject* view = AsDictView(container);
  if (container.IsDict() || (view != nullptr && view->part == DictViewObject::Part::kKeys)) {
    if (!IsHashable(item)) return Fail(fmt::format("unhashable type: '{}'", TypeName(item)));
    const Dict& dict = container.IsDict() ? container.dict() : *view->dict;
    return dict.Find(item) != nullptr;
  }
  if (container.IsSequence()) {
    for (const Value& element : container.items()) {
      ASSIGN_OR_RETURN(const bool equal, Equals(rt, element, item));
      if (equal) return true;
    }
    return false;
  }
  const bool iterable = container.IsUndefined() || AsRange(container) != nullptr ||
                        AsIterator(container) != nullptr || view != nullptr;
  if (!iterable)
    return Fail(fmt::format("argument of type '{}' is not iterable", TypeName(container)));
  ASSIGN_OR_RETURN(const std::vector<Value> elements, Iterate(rt, container));
  for (const Value& element : elements) {
    ASSIGN_OR_RETURN(const bool equal, Equals(rt, element, item));
    if (equal) return true;
  }
  return false;
}

Result<bool> Compare(Runtime& rt, CompareOp op, const Value& a, const Value& b) {
  if (a.IsNumber() && b.IsNumber() && (a.IsFloat() || b.IsFloat())) {
    // NaN compares false to everything, so no operator is the negation of another.
    const double x = a.number();
    const double y = b.number();
    if (op == CompareOp::kLe) return x <= y;
    if (op == CompareOp::kGe) return x >= y;
  }
  const auto negated = [](Result<bool> result) {
    if (result) *result = !*result;
    return result;
  };
  switch (op) {
    case CompareOp::kEq:
      return Equals(rt, a, b);
    case CompareOp::kNe:
      return negated(Equals(rt, a, b));
    case CompareOp::kLt:
      return LessThan(rt, a, b);
    case CompareOp::kGt:
      return LessThan(rt, b, a);
    case CompareOp::kLe:
      return negated(LessThan(rt, b, a));
    case CompareOp::kGe:
      return negated(LessThan(rt, a, b));
    case CompareOp::kIn:
      return Contains(rt, b, a);
    case CompareOp::kNotIn:
      return negated(Contains(rt, b, a));
  }
  return false;
}

}  // namespace perdure::text::jinja
