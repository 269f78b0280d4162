// Runs an Ast once. One object per rendering; not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "text/template/ast.h"
#include "text/template/runtime.h"

namespace perdure::text::jinja {

class Interpreter : public Runtime {
 public:
  Interpreter(const Ast& ast, const TemplateTime& time);
  ~Interpreter() override;

  // A variable of the context, in front of a global of the same name.
  void SetVariable(const std::string& name, Value value);
  Result<MarkedString> Run();

  Result<Value> Call(const Value& callee, const Args& args) override;
  void MarkLocated() override { located_ = true; }

 private:
  // Variables of a loop, macro or block; the outermost ones stand in root_.
  struct Scope {
    std::shared_ptr<Scope> parent;
    std::vector<std::pair<int, Value>> variables;
  };
  struct MacroObject : Object {
    MacroObject() : Object(ObjectType::kMacro) {}
    std::string Repr() const override;
    const MacroNode* node = nullptr;
    std::shared_ptr<Scope> closure;
  };
  struct RecursiveLoop : LoopObject {
    const Stmt* node = nullptr;
    std::shared_ptr<Scope> closure;
  };
  class ScopeGuard;
  class OutputGuard;
  class DepthGuard;
  enum class Flow { kNormal, kBreak, kContinue };

  // Statements (interpreter.cc).
  Result<Flow> ExecBlock(const Block& block);
  // A block that no break or continue can leave.
  Status RunBlock(const Block& block);
  Result<Flow> Exec(const Stmt& stmt);
  Result<Flow> ExecIf(const Stmt& stmt);
  Result<Flow> ExecFor(const Stmt& stmt);
  Status RunLoop(const Stmt& stmt, const Value& iterable, int depth0);
  // Whether a round came to its end: where break and continue cut all of them short, Jinja runs the
  // else block, as it does for an empty loop.
  Result<bool> RunRounds(const Stmt& stmt, const std::shared_ptr<LoopObject>& loop);
  Result<std::vector<Value>> FilterLoopItems(const Stmt& stmt, std::vector<Value> items);
  Status ExecSet(const Stmt& stmt);
  Status ExecSetBlock(const Stmt& stmt);
  Status ExecFilterBlock(const Stmt& stmt);
  Status ExecMacro(const Stmt& stmt);
  Status ExecCallBlock(const Stmt& stmt);
  Result<Flow> ExecWith(const Stmt& stmt);
  Status ExecGeneration(const Stmt& stmt);
  Status ExecPrint(const Stmt& stmt);
  Status Print(const Value& value);
  // What a filter or call block gives must be text.
  Status PrintText(const Value& value);
  Result<Value> Capture(const Block& block);
  Status Assign(const Target& target, const Value& value);
  void Store(int name, Value value);
  Result<Value> MakeMacro(const MacroNode& node);
  Result<Value> CallMacro(const MacroObject& macro, const Args& args);
  Result<Value> CallLoop(const RecursiveLoop& loop, const Args& args);

  // Expressions (evaluate.cc).
  Result<Value> Eval(const Expr& expr);
  Result<Value> Dispatch(const Expr& expr);
  Value LookUp(const Expr& expr) const;
  Result<Value> EvalItems(const Expr& expr);
  Result<Value> EvalDict(const Expr& expr);
  Result<Value> EvalGetItem(const Expr& expr);
  Result<Value> EvalSlice(const Expr& expr);
  Result<Value> EvalCall(const Expr& expr, const Value* caller);
  Result<Value> EvalFilter(const Expr& expr);
  Result<Value> EvalTest(const Expr& expr);
  Result<Value> EvalBinary(const Expr& expr);
  Result<Value> EvalLogic(const Expr& expr);
  Result<Value> EvalCompare(const Expr& expr);
  Result<Value> EvalConcat(const Expr& expr);
  Result<Value> EvalConditional(const Expr& expr);
  Status EvalArgs(const CallArgs& args, Args* out);
  // Adds name, line and the expression's text to an error that has none yet.
  tl::unexpected<Error> Located(Error error, int line, const Expr* expr);

  const Ast& ast_;
  std::vector<Value> root_;
  std::shared_ptr<Scope> scope_;  // null at the top
  MarkedString* out_ = nullptr;
  Value captured_;
  int depth_ = 0;
  bool located_ = false;
  // Scopes that a macro or recursive loop refers to: emptied at the end, as they may hold it.
  std::vector<std::shared_ptr<Scope>> captured_scopes_;
};

}  // namespace perdure::text::jinja
