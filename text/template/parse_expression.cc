#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "text/template/parser.h"
#include "text/template/runtime.h"

namespace perdure::text::jinja {
namespace {

// Binding strength, weakest first.
enum Level {
  kOrLevel,
  kAndLevel,
  kNotLevel,
  kCompareLevel,
  kAddLevel,
  kConcatLevel,
  kMulLevel,
  kPowLevel
};

struct Infix {
  int level = -1;
  ExprKind kind = ExprKind::kBinary;
  Op op = Op::kAdd;
};

Infix InfixOf(const Token& token, const Token& next) {
  if (token.type == TokenType::kName) {
    if (token.text == "or") return {kOrLevel, ExprKind::kOr};
    if (token.text == "and") return {kAndLevel, ExprKind::kAnd};
    if (token.text == "in") return {kCompareLevel, ExprKind::kCompare};
    if (token.text == "not" && next.type == TokenType::kName && next.text == "in")
      return {kCompareLevel, ExprKind::kCompare};
    return {};
  }
  if (token.type != TokenType::kOperator) return {};
  const std::string_view op = token.text;
  if (op == "+") return {kAddLevel, ExprKind::kBinary, Op::kAdd};
  if (op == "-") return {kAddLevel, ExprKind::kBinary, Op::kSub};
  if (op == "~") return {kConcatLevel, ExprKind::kConcat};
  if (op == "*") return {kMulLevel, ExprKind::kBinary, Op::kMul};
  if (op == "/") return {kMulLevel, ExprKind::kBinary, Op::kDiv};
  if (op == "//") return {kMulLevel, ExprKind::kBinary, Op::kFloorDiv};
  if (op == "%") return {kMulLevel, ExprKind::kBinary, Op::kMod};
  if (op == "**") return {kPowLevel, ExprKind::kBinary, Op::kPow};
  if (op == "==" || op == "!=" || op == "<" || op == "<=" || op == ">" || op == ">=")
    return {kCompareLevel, ExprKind::kCompare};
  return {};
}

class DepthGuard {
 public:
  explicit DepthGuard(int* depth) : depth_(depth) { ++*depth_; }
  ~DepthGuard() { --*depth_; }
  bool TooDeep() const { return *depth_ > limits::kTemplateDepthMax; }

 private:
  int* depth_;
};

}  // namespace

Expr* Parser::NewExpr(ExprKind kind, size_t first) {
  ast_->expressions.push_back(std::make_unique<Expr>());
  Expr* expr = ast_->expressions.back().get();
  expr->kind = kind;
  expr->line = tokens_[first].line;
  expr->begin = tokens_[first].begin;
  return expr;
}

Parser::ExprResult Parser::Finish(Expr* expr) {
  expr->end = at_ > 0 ? tokens_[at_ - 1].end : expr->begin;
  int depth = 0;
  const auto below = [&depth](const Expr* child) {
    if (child != nullptr) depth = std::max(depth, child->depth);
  };
  below(expr->b);
  below(expr->c);
  for (const Expr* item : expr->items) below(item);
  for (const auto& comparison : expr->comparisons) below(comparison.second);
  for (const Expr* argument : expr->args.positional) below(argument);
  for (const auto& argument : expr->args.named) below(argument.second);
  below(expr->args.rest);
  below(expr->args.named_rest);
  ++depth;
  if (expr->a != nullptr) {
    const bool in_loop = expr->kind == ExprKind::kBinary && expr->a->kind == ExprKind::kBinary;
    depth = std::max(depth, expr->a->depth + (in_loop ? 0 : 1));
  }
  expr->depth = depth;
  if (depth > limits::kTemplateDepthMax)
    return ErrorAt(tokens_[at_],
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  return expr;
}

Parser::ExprResult Parser::ParseExpression(bool with_conditional) {
  const DepthGuard guard(&depth_);
  if (guard.TooDeep())
    return ErrorAt(Current(),
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  const size_t first = at_;
  ASSIGN_OR_RETURN(const Expr* expr, ParseBinary(kOrLevel));
  if (!with_conditional) return expr;
  while (SkipName("if")) {
    Expr* conditional = NewExpr(ExprKind::kConditional, first);
    conditional->b = expr;
    ASSIGN_OR_RETURN(conditional->a, ParseBinary(kOrLevel));
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(conditional->c, ParseExpression(true));
    }
    ASSIGN_OR_RETURN(expr, Finish(conditional));
  }
  return expr;
}

bool Parser::AtTupleEnd(std::string_view end_name) const {
  return Current().type == TokenType::kVariableEnd || Current().type == TokenType::kBlockEnd ||
         IsOp(")") || (!end_name.empty() && IsName(end_name));
}

Parser::ExprResult Parser::ParseTuple(bool with_conditional, std::string_view end_name,
                                      bool in_parentheses) {
  const size_t first = at_;
  std::vector<const Expr*> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) RETURN_IF_ERROR(ExpectOp(","));
    if (AtTupleEnd(end_name)) break;
    ASSIGN_OR_RETURN(const Expr* item, ParseExpression(with_conditional));
    items.push_back(item);
    if (!IsOp(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return items[0];
    if (!in_parentheses) return Unexpected("an expression");
  }
  Expr* tuple = NewExpr(ExprKind::kTuple, first);
  tuple->items = std::move(items);
  return Finish(tuple);
}

Parser::ExprResult Parser::ParseBinary(int min_level) {
  const DepthGuard guard(&depth_);
  if (guard.TooDeep())
    return ErrorAt(Current(),
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  const size_t first = at_;
  const Expr* left = nullptr;
  if (min_level <= kNotLevel && IsName("not")) {
    Advance();
    Expr* negation = NewExpr(ExprKind::kNot, first);
    ASSIGN_OR_RETURN(negation->a, ParseBinary(kNotLevel));
    ASSIGN_OR_RETURN(left, Finish(negation));
  } else {
    ASSIGN_OR_RETURN(left, ParseUnary(true));
  }
  while (true) {
    const Infix infix = InfixOf(Current(), Ahead());
    if (infix.level < min_level || infix.level < 0) return left;
    if (infix.kind == ExprKind::kCompare) {
      ASSIGN_OR_RETURN(left, ParseCompare(left, first));
      continue;
    }
    Expr* node = NewExpr(infix.kind, first);
    if (infix.kind == ExprKind::kBinary) {
      Advance();
      node->op = infix.op;
      node->a = left;
      ASSIGN_OR_RETURN(node->b, ParseBinary(infix.level + 1));
    } else {
      node->items.push_back(left);
      while (InfixOf(Current(), Ahead()).level == infix.level) {
        Advance();
        ASSIGN_OR_RETURN(const Expr* operand, ParseBinary(infix.level + 1));
        node->items.push_back(operand);
      }
    }
    ASSIGN_OR_RETURN(left, Finish(node));
  }
}

Parser::ExprResult Parser::ParseCompare(const Expr* left, size_t first) {
  Expr* node = NewExpr(ExprKind::kCompare, first);
  node->a = left;
  while (InfixOf(Current(), Ahead()).kind == ExprKind::kCompare) {
    const std::string op = Current().text;
    Advance();
    CompareOp compare = CompareOp::kIn;
    if (op == "not") {
      Advance();
      compare = CompareOp::kNotIn;
    } else if (op != "in") {
      compare = op == "=="   ? CompareOp::kEq
                : op == "!=" ? CompareOp::kNe
                : op == "<"  ? CompareOp::kLt
                : op == "<=" ? CompareOp::kLe
                : op == ">"  ? CompareOp::kGt
                             : CompareOp::kGe;
    }
    ASSIGN_OR_RETURN(const Expr* operand, ParseBinary(kAddLevel));
    node->comparisons.emplace_back(compare, operand);
  }
  return Finish(node);
}

Parser::ExprResult Parser::ParseUnary(bool with_filters) {
  const DepthGuard guard(&depth_);
  if (guard.TooDeep())
    return ErrorAt(Current(),
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  const size_t first = at_;
  const Expr* node = nullptr;
  if (IsOp("-") || IsOp("+")) {
    Expr* sign = NewExpr(IsOp("-") ? ExprKind::kNeg : ExprKind::kPos, first);
    Advance();
    ASSIGN_OR_RETURN(sign->a, ParseUnary(false));
    ASSIGN_OR_RETURN(node, Finish(sign));
  } else {
    ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  ASSIGN_OR_RETURN(node, ParsePostfix(node, first));
  if (!with_filters) return node;
  return ParseFilters(node, first);
}

Parser::ExprResult Parser::ParsePrimary() {
  const size_t first = at_;
  const Token& token = Current();
  switch (token.type) {
    case TokenType::kName: {
      Advance();
      if (token.text == "true" || token.text == "True" || token.text == "false" ||
          token.text == "False") {
        Expr* node = NewExpr(ExprKind::kConst, first);
        node->constant = Value::Bool(token.text[0] == 't' || token.text[0] == 'T');
        return Finish(node);
      }
      if (token.text == "none" || token.text == "None") {
        Expr* node = NewExpr(ExprKind::kConst, first);
        node->constant = Value::None();
        return Finish(node);
      }
      Expr* node = NewExpr(ExprKind::kName, first);
      node->text = token.text;
      node->name = ast_->NameNumber(token.text);
      for (MacroNode* macro : macros_) {
        const auto& own = macro->parameters;
        if (std::find(own.begin(), own.end(), node->name) != own.end()) continue;
        macro->uses_caller |= node->name == ast_->caller_name;
        macro->uses_varargs |= node->name == ast_->varargs_name;
        macro->uses_kwargs |= node->name == ast_->kwargs_name;
      }
      return Finish(node);
    }
    case TokenType::kString: {
      std::string text;
      for (; Current().type == TokenType::kString; Advance()) text += Current().text;
      Expr* node = NewExpr(ExprKind::kConst, first);
      node->constant = Value::String(std::move(text));
      return Finish(node);
    }
    case TokenType::kInteger:
    case TokenType::kFloat: {
      Advance();
      Expr* node = NewExpr(ExprKind::kConst, first);
      node->constant = token.type == TokenType::kInteger ? Value::Integer(token.integer)
                                                         : Value::Float(token.number);
      return Finish(node);
    }
    default:
      break;
  }
  if (IsOp("(")) {
    Advance();
    ASSIGN_OR_RETURN(const Expr* inner, ParseTuple(true, {}, true));
    RETURN_IF_ERROR(ExpectOp(")"));
    return inner;
  }
  if (IsOp("[")) return ParseListLiteral();
  if (IsOp("{")) return ParseDictLiteral();
  return Unexpected("an expression");
}

Parser::ExprResult Parser::ParseListLiteral() {
  Expr* node = NewExpr(ExprKind::kList, at_);
  Advance();
  while (!IsOp("]")) {
    if (!node->items.empty()) RETURN_IF_ERROR(ExpectOp(","));
    if (IsOp("]")) break;
    ASSIGN_OR_RETURN(const Expr* item, ParseExpression());
    node->items.push_back(item);
  }
  Advance();
  return Finish(node);
}

Parser::ExprResult Parser::ParseDictLiteral() {
  Expr* node = NewExpr(ExprKind::kDict, at_);
  Advance();
  while (!IsOp("}")) {
    if (!node->items.empty()) RETURN_IF_ERROR(ExpectOp(","));
    if (IsOp("}")) break;
    ASSIGN_OR_RETURN(const Expr* key, ParseExpression());
    RETURN_IF_ERROR(ExpectOp(":"));
    ASSIGN_OR_RETURN(const Expr* value, ParseExpression());
    node->items.push_back(key);
    node->items.push_back(value);
  }
  Advance();
  return Finish(node);
}

Parser::ExprResult Parser::ParsePostfix(const Expr* node, size_t first) {
  while (true) {
    if (IsOp(".") || IsOp("[")) {
      ASSIGN_OR_RETURN(node, ParseSubscript(node, first));
    } else if (IsOp("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(node, first));
    } else {
      return node;
    }
  }
}

Parser::ExprResult Parser::ParseFilters(const Expr* node, size_t first) {
  while (true) {
    if (SkipOp("|")) {
      ASSIGN_OR_RETURN(node, ParseFilter(node, first));
    } else if (SkipName("is")) {
      ASSIGN_OR_RETURN(node, ParseTest(node, first));
    } else if (IsOp("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(node, first));
    } else {
      return node;
    }
  }
}

Parser::ExprResult Parser::ParseFilter(const Expr* node, size_t first) {
  Expr* filter = NewExpr(ExprKind::kFilter, first);
  filter->line = Current().line;
  filter->a = node;
  ASSIGN_OR_RETURN(filter->text, TakeDottedName("a filter's name"));
  filter->function = FindFilter(filter->text);
  if (IsOp("(")) RETURN_IF_ERROR(ParseArgs(filter));
  return Finish(filter);
}

Parser::ExprResult Parser::ParseTest(const Expr* node, size_t first) {
  const bool negated = SkipName("not");
  Expr* test = NewExpr(ExprKind::kTest, first);
  test->a = node;
  ASSIGN_OR_RETURN(test->text, TakeDottedName("a test's name"));
  test->function = FindTest(test->text);
  const Token& next = Current();
  const bool argument_follows = (next.type == TokenType::kName && next.text != "else" &&
                                 next.text != "or" && next.text != "and") ||
                                next.type == TokenType::kString ||
                                next.type == TokenType::kInteger ||
                                next.type == TokenType::kFloat || IsOp("[") || IsOp("{");
  if (IsOp("(")) {
    RETURN_IF_ERROR(ParseArgs(test));
  } else if (argument_follows) {
    if (IsName("is")) return ErrorAt(next, "tests cannot be chained with 'is'");
    const size_t argument_first = at_;
    ASSIGN_OR_RETURN(const Expr* argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(argument, argument_first));
    test->args.positional.push_back(argument);
  }
  ASSIGN_OR_RETURN(const Expr* result, Finish(test));
  if (!negated) return result;
  Expr* negation = NewExpr(ExprKind::kNot, first);
  negation->a = result;
  return Finish(negation);
}

Parser::ExprResult Parser::ParseSubscript(const Expr* node, size_t first) {
  if (SkipOp(".")) {
    const Token& token = Current();
    if (token.type == TokenType::kName) {
      Advance();
      Expr* attribute = NewExpr(ExprKind::kGetAttr, first);
      attribute->line = token.line;
      attribute->a = node;
      attribute->text = token.text;
      return Finish(attribute);
    }
    if (token.type != TokenType::kInteger) return Unexpected("a name or number after '.'");
    Expr* index = NewExpr(ExprKind::kConst, at_);
    Advance();
    index->constant = Value::Integer(token.integer);
    Expr* item = NewExpr(ExprKind::kGetItem, first);
    item->a = node;
    ASSIGN_OR_RETURN(item->b, Finish(index));
    return Finish(item);
  }
  const int line = Current().line;
  RETURN_IF_ERROR(ExpectOp("["));
  std::array<const Expr*, 3> parts = {};
  size_t colons = 0;
  const size_t inside = at_;
  std::vector<const Expr*> keys;
  while (!IsOp("]")) {
    if (SkipOp(":")) {
      if (++colons > 2) return Unexpected("']'");
      continue;
    }
    if (SkipOp(",")) {
      if (colons > 0) return ErrorAt(tokens_[inside], "a slice cannot be one of several keys");
      if (keys.empty()) return Unexpected("an expression");
      continue;
    }
    if (!keys.empty() && colons == 0 && !(at_ > 0 && tokens_[at_ - 1].text == ","))
      return Unexpected("']'");
    if (parts[colons] != nullptr && keys.size() == 1 && colons > 0) return Unexpected("']'");
    ASSIGN_OR_RETURN(const Expr* part, ParseExpression());
    if (colons == 0) keys.push_back(part);
    parts[colons] = part;
  }
  Advance();
  if (colons > 0 && keys.size() > 1)
    return ErrorAt(tokens_[inside], "a slice cannot be one of several keys");
  Expr* item = NewExpr(colons > 0 ? ExprKind::kSlice : ExprKind::kGetItem, first);
  item->line = line;
  item->a = node;
  if (colons > 0) {
    item->items.assign(parts.begin(), parts.end());
  } else if (keys.size() == 1) {
    item->b = keys[0];
  } else {
    Expr* tuple = NewExpr(ExprKind::kTuple, inside);  // x[] is x[()]
    tuple->items = std::move(keys);
    ASSIGN_OR_RETURN(item->b, Finish(tuple));
  }
  return Finish(item);
}

Result<const Expr*> Parser::ParseCall(const Expr* node, size_t first) {
  Expr* call = NewExpr(ExprKind::kCall, first);
  call->line = Current().line;
  call->a = node;
  RETURN_IF_ERROR(ParseArgs(call));
  return Finish(call);
}

Status Parser::ParseArgs(Expr* call) {
  RETURN_IF_ERROR(ExpectOp("("));
  CallArgs& args = call->args;
  bool first = true;
  while (!IsOp(")")) {
    if (!first) {
      RETURN_IF_ERROR(ExpectOp(","));
      if (IsOp(")")) break;
    }
    first = false;
    if (SkipOp("*")) {
      if (args.rest != nullptr || args.named_rest != nullptr) return Unexpected("one '*' argument");
      ASSIGN_OR_RETURN(args.rest, ParseExpression());
    } else if (SkipOp("**")) {
      if (args.named_rest != nullptr) return Unexpected("one '**' argument");
      ASSIGN_OR_RETURN(args.named_rest, ParseExpression());
    } else if (Current().type == TokenType::kName && Ahead().type == TokenType::kOperator &&
               Ahead().text == "=") {
      if (args.named_rest != nullptr) return Unexpected("')'");
      std::string name = Current().text;
      Advance();
      Advance();
      for (const auto& named : args.named)
        if (named.first == name) return Unexpected(fmt::format("'{}' only once", name));
      ASSIGN_OR_RETURN(const Expr* value, ParseExpression());
      args.named.emplace_back(std::move(name), value);
    } else {
      if (args.rest != nullptr || args.named_rest != nullptr || !args.named.empty())
        return Unexpected("a keyword argument");
      ASSIGN_OR_RETURN(const Expr* value, ParseExpression());
      args.positional.push_back(value);
    }
  }
  Advance();
  return {};
}

}  // namespace perdure::text::jinja
