#include "text/template/interpreter.h"

#include <fmt/format.h>

#include "base/limits.h"
#include "text/template/interpreter_guards.h"
#include "text/template/repr.h"

namespace perdure::text::jinja {

Interpreter::Interpreter(const Ast& ast, const TemplateTime& time)
    : Runtime(time), ast_(ast), root_(ast.names.size()) {
  for (size_t i = 0; i < ast.names.size(); ++i) {
    const Function function = FindGlobal(ast.names[i]);
    if (function == nullptr) continue;
    auto object = std::make_shared<FunctionObject>();
    object->name = ast.names[i];
    object->function = function;
    root_[i] = Value::FromObject(std::move(object));
  }
}

Interpreter::~Interpreter() {
  for (const auto& scope : captured_scopes_) scope->variables.clear();
  for (const auto& object : owned_) {
    if (object->type == ObjectType::kNamespace)
      static_cast<NamespaceObject&>(*object).attributes = Dict();
    else if (object->type == ObjectType::kLoop)
      static_cast<LoopObject&>(*object).changed = Value();
  }
}

void Interpreter::SetVariable(const std::string& name, Value value) {
  const auto it = ast_.name_numbers.find(name);
  if (it != ast_.name_numbers.end()) root_[static_cast<size_t>(it->second)] = std::move(value);
}

Result<MarkedString> Interpreter::Run() {
  MarkedString text;
  out_ = &text;
  RETURN_IF_ERROR(ExecBlock(ast_.body));
  return text;
}

Result<Interpreter::Flow> Interpreter::ExecBlock(const Block& block) {
  for (const Stmt* stmt : block) {
    RETURN_IF_ERROR(Charge(1));
    Result<Flow> flow = Exec(*stmt);
    if (!flow) return Located(std::move(flow.error()), stmt->line, nullptr);
    if (*flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Status Interpreter::RunBlock(const Block& block) {
  RETURN_IF_ERROR(ExecBlock(block));
  return {};
}

Result<Interpreter::Flow> Interpreter::Exec(const Stmt& stmt) {
  const DepthGuard guard(&depth_);
  if (guard.TooDeep())
    return Fail(
        fmt::format("evaluation nested deeper than {} levels", limits::kTemplateEvalDepthMax));
  Status status;
  switch (stmt.kind) {
    case StmtKind::kData:
      status = Produce(stmt.text.size());
      if (status) out_->Append(stmt.text);
      break;
    case StmtKind::kPrint:
      status = ExecPrint(stmt);
      break;
    case StmtKind::kIf:
      return ExecIf(stmt);
    case StmtKind::kFor:
      return ExecFor(stmt);
    case StmtKind::kSet:
      status = ExecSet(stmt);
      break;
    case StmtKind::kSetBlock:
      status = ExecSetBlock(stmt);
      break;
    case StmtKind::kMacro:
      status = ExecMacro(stmt);
      break;
    case StmtKind::kCallBlock:
      status = ExecCallBlock(stmt);
      break;
    case StmtKind::kFilterBlock:
      status = ExecFilterBlock(stmt);
      break;
    case StmtKind::kWith:
      return ExecWith(stmt);
    case StmtKind::kGeneration:
      status = ExecGeneration(stmt);
      break;
    case StmtKind::kDo:
      RETURN_IF_ERROR(Eval(*stmt.expr));
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  RETURN_IF_ERROR(std::move(status));
  return Flow::kNormal;
}

Status Interpreter::ExecPrint(const Stmt& stmt) {
  ASSIGN_OR_RETURN(const Value value, Eval(*stmt.expr));
  return Print(value);
}

Status Interpreter::Print(const Value& value) {
  if (value.IsString()) {
    RETURN_IF_ERROR(Produce(value.string().bytes()));
    out_->Append(value.string());
    return {};
  }
  ASSIGN_OR_RETURN(const MarkedString text, ToStr(*this, value));
  RETURN_IF_ERROR(Produce(text.bytes()));
  out_->Append(text);
  return {};
}

Status Interpreter::PrintText(const Value& value) {
  if (!value.IsString()) return Fail(fmt::format("the block gives {}, not text", TypeName(value)));
  return Print(value);
}

Result<Interpreter::Flow> Interpreter::ExecIf(const Stmt& stmt) {
  for (const auto& [condition, body] : stmt.branches) {
    if (condition != nullptr) {
      ASSIGN_OR_RETURN(const Value value, Eval(*condition));
      if (!IsTrue(value)) continue;
    }
    return ExecBlock(body);
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::ExecFor(const Stmt& stmt) {
  ASSIGN_OR_RETURN(const Value iterable, Eval(*stmt.expr));
  RETURN_IF_ERROR(RunLoop(stmt, iterable, 0));
  return Flow::kNormal;
}

Result<std::vector<Value>> Interpreter::FilterLoopItems(const Stmt& stmt,
                                                        std::vector<Value> items) {
  std::vector<Value> kept;
  const ScopeGuard scope(this, scope_);
  for (Value& item : items) {
    scope_->variables.clear();
    RETURN_IF_ERROR(Assign(stmt.target, item));
    ASSIGN_OR_RETURN(const Value keep, Eval(*stmt.condition));
    if (IsTrue(keep)) kept.push_back(std::move(item));
  }
  return kept;
}

Status Interpreter::RunLoop(const Stmt& stmt, const Value& iterable, int depth0) {
  ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(*this, iterable));
  if (stmt.condition != nullptr) {
    ASSIGN_OR_RETURN(items, FilterLoopItems(stmt, std::move(items)));
  }
  std::shared_ptr<LoopObject> loop;
  if (stmt.recursive) {
    auto recursive = std::make_shared<RecursiveLoop>();
    recursive->node = &stmt;
    recursive->closure = scope_;
    if (scope_) captured_scopes_.push_back(scope_);
    loop = std::move(recursive);
  } else {
    loop = std::make_shared<LoopObject>();
  }
  ASSIGN_OR_RETURN(loop->depth, DepthAbove(items));
  loop->items = std::move(items);
  loop->depth0 = depth0;
  ASSIGN_OR_RETURN(const bool completed, RunRounds(stmt, loop));
  if (completed) return {};
  const ScopeGuard scope(this, scope_);
  return RunBlock(stmt.else_body);
}

Result<bool> Interpreter::RunRounds(const Stmt& stmt, const std::shared_ptr<LoopObject>& loop) {
  bool completed = false;
  const Value loop_value = Value::FromObject(loop);
  const std::shared_ptr<Scope> outer = scope_;
  const ScopeGuard scope(this, outer);
  for (size_t i = 0; i < loop->items.size(); ++i) {
    RETURN_IF_ERROR(Charge(1));
    // A macro defined in the last round keeps that round's variables.
    if (scope_.use_count() > 1)
      scope_ = std::make_shared<Scope>(Scope{outer, {}});
    else
      scope_->variables.clear();
    loop->index0 = i;
    scope_->variables.emplace_back(ast_.loop_name, loop_value);
    RETURN_IF_ERROR(Assign(stmt.target, loop->items[i]));
    ASSIGN_OR_RETURN(const Flow flow, ExecBlock(stmt.body));
    if (flow == Flow::kBreak) break;
    completed |= flow == Flow::kNormal;
  }
  return completed;
}

Status Interpreter::ExecSet(const Stmt& stmt) {
  ASSIGN_OR_RETURN(const Value value, Eval(*stmt.expr));
  return Assign(stmt.target, value);
}

Result<Value> Interpreter::Capture(const Block& block) {
  MarkedString text;
  {
    const ScopeGuard scope(this, scope_);
    const OutputGuard output(&out_, &text);
    RETURN_IF_ERROR(ExecBlock(block));
  }
  return Value::String(std::move(text));
}

Status Interpreter::ExecSetBlock(const Stmt& stmt) {
  ASSIGN_OR_RETURN(Value value, Capture(stmt.body));
  if (stmt.expr != nullptr) {
    const Value outer = std::exchange(captured_, std::move(value));
    ASSIGN_OR_RETURN(value, Eval(*stmt.expr));
    captured_ = outer;
  }
  return Assign(stmt.target, value);
}

Status Interpreter::ExecFilterBlock(const Stmt& stmt) {
  ASSIGN_OR_RETURN(Value value, Capture(stmt.body));
  const Value outer = std::exchange(captured_, std::move(value));
  ASSIGN_OR_RETURN(const Value filtered, Eval(*stmt.expr));
  captured_ = outer;
  return PrintText(filtered);
}

Status Interpreter::ExecGeneration(const Stmt& stmt) {
  // To transformers it is a call block: its body is a macro without arguments.
  MacroObject macro;
  macro.node = stmt.macro.get();
  macro.closure = scope_;
  ASSIGN_OR_RETURN(const Value text, CallMacro(macro, Args()));
  return Print(text);
}

Result<Interpreter::Flow> Interpreter::ExecWith(const Stmt& stmt) {
  std::vector<Value> values;
  for (const auto& [target, expr] : stmt.assignments) {
    ASSIGN_OR_RETURN(Value value, Eval(*expr));
    values.push_back(std::move(value));
  }
  const ScopeGuard scope(this, scope_);
  for (size_t i = 0; i < values.size(); ++i)
    RETURN_IF_ERROR(Assign(stmt.assignments[i].first, values[i]));
  return ExecBlock(stmt.body);
}

std::string Interpreter::MacroObject::Repr() const {
  return node->name.empty() ? "<Macro anonymous>" : fmt::format("<Macro '{}'>", node->name);
}

Result<Value> Interpreter::MakeMacro(const MacroNode& node) {
  RETURN_IF_ERROR(ProduceObjects(2));
  auto macro = std::make_shared<MacroObject>();
  macro->node = &node;
  macro->closure = scope_;
  if (scope_) captured_scopes_.push_back(scope_);
  return Value::FromObject(std::move(macro));
}

Status Interpreter::ExecMacro(const Stmt& stmt) {
  ASSIGN_OR_RETURN(Value macro, MakeMacro(*stmt.macro));
  Store(stmt.name, std::move(macro));
  return {};
}

Status Interpreter::ExecCallBlock(const Stmt& stmt) {
  ASSIGN_OR_RETURN(const Value caller, MakeMacro(*stmt.macro));
  ASSIGN_OR_RETURN(const Value result, EvalCall(*stmt.expr, &caller));
  return PrintText(result);
}

void Interpreter::Store(int name, Value value) {
  if (!scope_) {
    root_[static_cast<size_t>(name)] = std::move(value);
    return;
  }
  for (auto& [number, held] : scope_->variables) {
    if (number != name) continue;
    held = std::move(value);
    return;
  }
  scope_->variables.emplace_back(name, std::move(value));
}

Status Interpreter::Assign(const Target& target, const Value& value) {
  switch (target.kind) {
    case Target::Kind::kName:
      Store(target.name, value);
      return {};
    case Target::Kind::kAttribute: {
      Expr name;
      name.name = target.name;
      name.text = target.text;
      const Value holder = LookUp(name);
      NamespaceObject* space = AsNamespace(holder);
      if (space == nullptr) return Fail("cannot assign attribute on non-namespace object");
      return space->attributes.Set(Value::String(target.attribute), value);
    }
    case Target::Kind::kTuple:
      break;
  }
  ASSIGN_OR_RETURN(const std::vector<Value> parts, Iterate(*this, value));
  if (parts.size() != target.parts.size())
    return Fail(
        fmt::format("cannot unpack {} value(s) into {} names", parts.size(), target.parts.size()));
  for (size_t i = 0; i < parts.size(); ++i) RETURN_IF_ERROR(Assign(target.parts[i], parts[i]));
  return {};
}

Result<Value> Interpreter::Call(const Value& callee, const Args& args) {
  RETURN_IF_ERROR(Charge(1));
  if (callee.IsUndefined()) return FailUndefined(callee);
  if (callee.IsObject()) {
    Object* object = callee.object().get();
    switch (object->type) {
      case ObjectType::kFunction: {
        const auto* function = static_cast<const FunctionObject*>(object);
        RETURN_IF_ERROR(ChargeFor(function->self));
        return function->function(*this, function->self, args);
      }
      case ObjectType::kMacro:
        return CallMacro(*static_cast<const MacroObject*>(object), args);
      case ObjectType::kLoop:
        if (const auto* loop = dynamic_cast<const RecursiveLoop*>(object))
          return CallLoop(*loop, args);
        return Fail("the loop must be marked 'recursive' to be called");
      case ObjectType::kJoiner: {
        auto* joiner = static_cast<JoinerObject*>(object);
        if (std::exchange(joiner->used, true)) return joiner->separator;
        return Value::String("");
      }
      default:
        break;
    }
  }
  return Fail(fmt::format("'{}' object is not callable", TypeName(callee)));
}

Result<Value> Interpreter::CallLoop(const RecursiveLoop& loop, const Args& args) {
  ASSIGN_OR_RETURN(const std::vector<Value> bound, Bind("loop", args, {"iterable"}, 1));
  MarkedString text;
  {
    const std::shared_ptr<Scope> saved = std::exchange(scope_, loop.closure);
    const OutputGuard output(&out_, &text);
    const Status status = RunLoop(*loop.node, bound[0], loop.depth0 + 1);
    scope_ = saved;
    if (!status) return Err(status.error());
  }
  return Value::String(std::move(text));
}

Result<Value> Interpreter::CallMacro(const MacroObject& macro, const Args& args) {
  const MacroNode& node = *macro.node;
  const std::string what =
      node.name.empty() ? "the call block" : fmt::format("macro '{}'", node.name);
  const size_t count = node.parameters.size();
  std::vector<Value> values(count);
  for (size_t i = 0; i < std::min(count, args.positional.size()); ++i)
    values[i] = args.positional[i];
  Value caller = Value::Undefined("No caller defined");
  Dict rest;
  for (const auto& [name, value] : args.named) {
    const auto it = std::find(node.parameter_names.begin(), node.parameter_names.end(), name);
    const auto i = static_cast<size_t>(it - node.parameter_names.begin());
    if (i < count && values[i].IsAbsent() && i >= args.positional.size()) {
      values[i] = value;
    } else if (name == "caller" && node.uses_caller) {
      caller = value;
    } else if (node.uses_kwargs) {
      RETURN_IF_ERROR(rest.Set(Value::String(name), value));
    } else {
      return Fail(fmt::format("{} takes no keyword argument '{}'", what, name));
    }
  }
  std::vector<Value> more;
  if (args.positional.size() > count) {
    if (!node.uses_varargs)
      return Fail(fmt::format("{} takes not more than {} argument(s)", what, count));
    more.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(count),
                args.positional.end());
  }
  const ScopeGuard scope(this, macro.closure);
  if (node.uses_caller) Store(ast_.caller_name, caller);
  if (node.uses_kwargs)
    Store(ast_.kwargs_name, Value::FromDict(std::make_shared<const Dict>(std::move(rest))));
  if (node.uses_varargs) {
    ASSIGN_OR_RETURN(Value tuple, NewTuple(std::move(more)));
    Store(ast_.varargs_name, std::move(tuple));
  }
  const size_t first_default = count - node.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    Value value = values[i];
    if (value.IsAbsent() && i >= first_default) {
      ASSIGN_OR_RETURN(value, Eval(*node.defaults[i - first_default]));
    } else if (value.IsAbsent()) {
      value =
          Value::Undefined(fmt::format("parameter '{}' was not provided", node.parameter_names[i]));
    }
    Store(node.parameters[i], std::move(value));
  }
  MarkedString text;
  {
    const OutputGuard output(&out_, &text);
    RETURN_IF_ERROR(ExecBlock(node.body));
  }
  return Value::String(std::move(text));
}

}  // namespace perdure::text::jinja
