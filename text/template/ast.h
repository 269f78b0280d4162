// A parsed template. Nodes are owned by their Ast and immutable once parsed.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/template/operators.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

enum class ExprKind {
  kConst,
  kName,
  kCaptured,  // the text of the filter or set block around it
  kList,
  kTuple,
  kDict,
  kGetAttr,
  kGetItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNot,
  kNeg,
  kPos,
  kBinary,
  kAnd,
  kOr,
  kCompare,
  kConcat,
  kConditional
};

struct Expr;

struct CallArgs {
  std::vector<const Expr*> positional;
  std::vector<std::pair<std::string, const Expr*>> named;
  const Expr* rest = nullptr;        // *expr
  const Expr* named_rest = nullptr;  // **expr
};

// Which fields a kind uses:
//   kConst constant · kName name, text · kList, kTuple, kAnd, kOr, kConcat items
//   kDict items (key, value, key, value, …) · kGetAttr a, text · kGetItem a, b
//   kSlice a, items (start, stop, step; null where omitted) · kCall a, args
//   kFilter, kTest a, text, function, args · kNot, kNeg, kPos a · kBinary op, a, b
//   kCompare a, comparisons · kConditional a (condition), b (then), c (else or null)
struct Expr {
  ExprKind kind = ExprKind::kConst;
  int line = 0;
  // Its text in the source.
  size_t begin = 0;
  size_t end = 0;
  // Levels of evaluation below it; left operands of kBinary are evaluated in a loop.
  int depth = 0;

  const Expr* a = nullptr;
  const Expr* b = nullptr;
  const Expr* c = nullptr;
  std::vector<const Expr*> items;
  Value constant;
  int name = 0;
  std::string text;
  Op op = Op::kAdd;
  std::vector<std::pair<CompareOp, const Expr*>> comparisons;
  Function function = nullptr;
  CallArgs args;
};

enum class StmtKind {
  kData,
  kPrint,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kGeneration,
  kBreak,
  kContinue,
  kDo
};

struct Stmt;
using Block = std::vector<const Stmt*>;

// Where an assignment goes: a name, a namespace's attribute, or a tuple of targets.
struct Target {
  enum class Kind { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  int name = 0;  // of the variable, or of the namespace
  std::string text;
  std::string attribute;
  std::vector<Target> parts;
};

struct MacroNode {
  std::string name;  // "" for a call block's
  std::vector<int> parameters;
  std::vector<std::string> parameter_names;
  // Of the last parameters.
  std::vector<const Expr*> defaults;
  Block body;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

// Which fields a kind uses:
//   kData text · kPrint expr · kIf branches (condition, null for else; body)
//   kFor target, expr, condition (or null), body, else_body, recursive
//   kSet target, expr · kSetBlock target, expr (filters or null), body
//   kMacro name, macro · kCallBlock expr (a kCall), macro · kFilterBlock expr, body
//   kWith assignments, body · kGeneration macro · kDo expr
struct Stmt {
  StmtKind kind = StmtKind::kData;
  int line = 0;
  MarkedString text;
  const Expr* expr = nullptr;
  const Expr* condition = nullptr;
  Target target;
  Block body;
  Block else_body;
  bool recursive = false;
  int name = 0;
  std::vector<std::pair<const Expr*, Block>> branches;
  std::vector<std::pair<Target, const Expr*>> assignments;
  std::unique_ptr<MacroNode> macro;
};

struct Ast {
  std::string name;
  std::string source;  // normalized
  Block body;
  std::vector<std::string> names;  // by number
  std::unordered_map<std::string, int> name_numbers;
  int loop_name = 0, caller_name = 0, varargs_name = 0, kwargs_name = 0;
  std::vector<std::unique_ptr<Expr>> expressions;
  std::vector<std::unique_ptr<Stmt>> statements;

  int NameNumber(const std::string& text) {
    const auto [it, added] = name_numbers.try_emplace(text, static_cast<int>(names.size()));
    if (added) names.push_back(text);
    return it->second;
  }
};

}  // namespace perdure::text::jinja
