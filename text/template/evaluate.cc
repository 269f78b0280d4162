// Expressions.
#include <fmt/format.h>

#include <algorithm>

#include "text/template/filters.h"
#include "text/template/interpreter.h"
#include "text/template/interpreter_guards.h"
#include "text/template/repr.h"

namespace perdure::text::jinja {

tl::unexpected<Error> Interpreter::Located(Error error, int line, const Expr* expr) {
  if (located_) return Err(std::move(error));
  located_ = true;
  constexpr size_t kShownBytes = 100;
  std::string where;
  if (expr != nullptr) {
    std::string text = ast_.source.substr(expr->begin, expr->end - expr->begin);
    if (text.size() > kShownBytes) {
      size_t end = kShownBytes;
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
      text = text.substr(0, end) + "…";
    }
    std::replace(text.begin(), text.end(), '\n', ' ');
    where = fmt::format(" (in `{}`)", text);
  }
  error.message = fmt::format("{}, line {}: {}{}", ast_.name, line, error.message, where);
  return Err(std::move(error));
}

Result<Value> Interpreter::Eval(const Expr& expr) {
  const DepthGuard guard(&depth_);
  Result<Value> result;
  if (guard.TooDeep()) {
    result =
        Fail(fmt::format("evaluation nested deeper than {} levels", limits::kTemplateEvalDepthMax));
  } else if (Status charged = Charge(1); !charged) {
    result = Err(std::move(charged.error()));
  } else {
    result = Dispatch(expr);
  }
  if (!result) return Located(std::move(result.error()), expr.line, &expr);
  return result;
}

Result<Value> Interpreter::Dispatch(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.constant;
    case ExprKind::kName:
      return LookUp(expr);
    case ExprKind::kCaptured:
      return captured_;
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalItems(expr);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kGetAttr:
    case ExprKind::kGetItem:
      return EvalGetItem(expr);
    case ExprKind::kSlice:
      return EvalSlice(expr);
    case ExprKind::kCall:
      return EvalCall(expr, nullptr);
    case ExprKind::kFilter:
      return EvalFilter(expr);
    case ExprKind::kTest:
      return EvalTest(expr);
    case ExprKind::kNot:
    case ExprKind::kAnd:
    case ExprKind::kOr:
    case ExprKind::kNeg:
    case ExprKind::kPos:
      return EvalLogic(expr);
    case ExprKind::kBinary:
      return EvalBinary(expr);
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kConcat:
      return EvalConcat(expr);
    case ExprKind::kConditional:
      return EvalConditional(expr);
  }
  return Fail("unknown expression");
}

Value Interpreter::LookUp(const Expr& expr) const {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [name, value] : scope->variables)
      if (name == expr.name) return value;
  }
  const Value& value = root_[static_cast<size_t>(expr.name)];
  if (!value.IsAbsent()) return value;
  return Value::Undefined(fmt::format("'{}' is undefined", expr.text));
}

Result<Value> Interpreter::EvalItems(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.items.size());
  for (const Expr* item : expr.items) {
    ASSIGN_OR_RETURN(Value value, Eval(*item));
    items.push_back(std::move(value));
  }
  return expr.kind == ExprKind::kList ? NewList(std::move(items)) : NewTuple(std::move(items));
}

Result<Value> Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    ASSIGN_OR_RETURN(Value key, Eval(*expr.items[i]));
    RETURN_IF_ERROR(ChargeFor(key));
    ASSIGN_OR_RETURN(Value value, Eval(*expr.items[i + 1]));
    RETURN_IF_ERROR(dict.Set(std::move(key), std::move(value)));
  }
  RETURN_IF_ERROR(ProduceItems(2 * dict.size()));
  return Value::FromDict(std::make_shared<const Dict>(std::move(dict)));
}

Result<Value> Interpreter::EvalGetItem(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value object, Eval(*expr.a));
  if (expr.kind == ExprKind::kGetAttr) return GetAttribute(*this, object, expr.text);
  ASSIGN_OR_RETURN(const Value key, Eval(*expr.b));
  RETURN_IF_ERROR(ChargeFor(key));
  return GetItem(*this, object, key);
}

Result<Value> Interpreter::EvalSlice(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value object, Eval(*expr.a));
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.items[i] == nullptr) continue;
    ASSIGN_OR_RETURN(bounds[i], Eval(*expr.items[i]));
    if (bounds[i].IsUndefined()) return FailUndefined(bounds[i]);
  }
  return GetSlice(*this, object, bounds[0], bounds[1], bounds[2]);
}

Status Interpreter::EvalArgs(const CallArgs& args, Args* out) {
  out->positional.reserve(args.positional.size());
  for (const Expr* expr : args.positional) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    // What is called may look at all of it.
    RETURN_IF_ERROR(ChargeFor(value));
    out->positional.push_back(std::move(value));
  }
  if (args.rest != nullptr) {
    ASSIGN_OR_RETURN(const Value rest, Eval(*args.rest));
    ASSIGN_OR_RETURN(const std::vector<Value> values, Iterate(*this, rest));
    out->positional.insert(out->positional.end(), values.begin(), values.end());
  }
  for (const auto& [name, expr] : args.named) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    RETURN_IF_ERROR(ChargeFor(value));
    out->named.emplace_back(name, std::move(value));
  }
  if (args.named_rest != nullptr) {
    ASSIGN_OR_RETURN(const Value rest, Eval(*args.named_rest));
    if (!rest.IsDict()) return Fail("the argument after ** must be a mapping");
    for (const auto& [key, value] : rest.dict().entries()) {
      if (!key.IsString()) return Fail("keywords must be strings");
      out->named.emplace_back(key.text(), value);
    }
  }
  return {};
}

Result<Value> Interpreter::EvalCall(const Expr& expr, const Value* caller) {
  Args args;
  // A method call needs no bound method in between.
  if (expr.a->kind == ExprKind::kGetAttr) {
    ASSIGN_OR_RETURN(const Value self, Eval(*expr.a->a));
    const Function method = self.IsUndefined() || AsNamespace(self) != nullptr
                                ? nullptr
                                : FindMethod(self, expr.a->text);
    if (method != nullptr) {
      RETURN_IF_ERROR(EvalArgs(expr.args, &args));
      RETURN_IF_ERROR(ChargeFor(self));
      return method(*this, self, args);
    }
    ASSIGN_OR_RETURN(const Value callee, GetAttribute(*this, self, expr.a->text));
    RETURN_IF_ERROR(EvalArgs(expr.args, &args));
    if (caller != nullptr) args.named.emplace_back("caller", *caller);
    return Call(callee, args);
  }
  ASSIGN_OR_RETURN(const Value callee, Eval(*expr.a));
  RETURN_IF_ERROR(EvalArgs(expr.args, &args));
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  return Call(callee, args);
}

Result<Value> Interpreter::EvalFilter(const Expr& expr) {
  if (expr.function == nullptr) return UnknownFilter(expr.text);
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.a));
  Args args;
  RETURN_IF_ERROR(EvalArgs(expr.args, &args));
  RETURN_IF_ERROR(ChargeFor(value));
  return expr.function(*this, value, args);
}

Result<Value> Interpreter::EvalTest(const Expr& expr) {
  if (expr.function == nullptr) return Fail(fmt::format("no test named '{}'", expr.text));
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.a));
  Args args;
  RETURN_IF_ERROR(EvalArgs(expr.args, &args));
  return expr.function(*this, value, args);
}

Result<Value> Interpreter::EvalBinary(const Expr& expr) {
  // Long chains (a + b + c …) lean to the left: they are unrolled, not recursed into.
  std::vector<const Expr*> chain;
  const Expr* leftmost = &expr;
  for (; leftmost->kind == ExprKind::kBinary; leftmost = leftmost->a) chain.push_back(leftmost);
  ASSIGN_OR_RETURN(Value value, Eval(*leftmost));
  for (auto it = chain.rbegin(); it != chain.rend(); ++it) {
    ASSIGN_OR_RETURN(const Value right, Eval(*(*it)->b));
    RETURN_IF_ERROR(Charge(1));
    Result<Value> result = Arithmetic(*this, (*it)->op, value, right);
    if (!result) return Located(std::move(result.error()), (*it)->line, *it);
    value = std::move(*result);
  }
  return value;
}

Result<Value> Interpreter::EvalLogic(const Expr& expr) {
  if (expr.kind == ExprKind::kAnd || expr.kind == ExprKind::kOr) {
    Value value;
    for (const Expr* item : expr.items) {
      ASSIGN_OR_RETURN(value, Eval(*item));
      if (IsTrue(value) == (expr.kind == ExprKind::kOr)) break;
    }
    return value;
  }
  ASSIGN_OR_RETURN(const Value value, Eval(*expr.a));
  if (expr.kind == ExprKind::kNeg) return Negate(value);
  if (expr.kind == ExprKind::kPos) return Plus(value);
  return Value::Bool(!IsTrue(value));
}

Result<Value> Interpreter::EvalCompare(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Eval(*expr.a));
  for (const auto& [op, operand] : expr.comparisons) {
    ASSIGN_OR_RETURN(Value right, Eval(*operand));
    ASSIGN_OR_RETURN(const bool holds, Compare(*this, op, left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result<Value> Interpreter::EvalConcat(const Expr& expr) {
  MarkedString text;
  for (const Expr* item : expr.items) {
    ASSIGN_OR_RETURN(const Value value, Eval(*item));
    RETURN_IF_ERROR(AppendStr(*this, value, &text));
  }
  return NewString(std::move(text));
}

Result<Value> Interpreter::EvalConditional(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value condition, Eval(*expr.a));
  if (IsTrue(condition)) return Eval(*expr.b);
  if (expr.c != nullptr) return Eval(*expr.c);
  return Value::Undefined("the inline if-expression evaluated to false and has no else");
}

}  // namespace perdure::text::jinja
