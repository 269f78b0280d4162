// Tokens to Ast. Grammar as in Jinja 3.1 with loop controls and transformers' {% generation %};
// blocks, inheritance, includes and imports are refused.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/template/ast.h"
#include "text/template/lexer.h"

namespace perdure::text::jinja {

// Errors are bad_model: "name, line N: …".
Result<std::unique_ptr<Ast>> ParseTemplate(std::string_view source, std::string_view name);

// The two halves of the parser share this: parser.cc has the statements, parse_expression.cc the
// expressions.
class Parser {
 public:
  Parser(Ast* ast, std::vector<Token> tokens) : ast_(ast), tokens_(std::move(tokens)) {}
  Result<Block> ParseAll();

 private:
  using ExprResult = Result<const Expr*>;

  const Token& Current() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void Advance() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool IsOp(std::string_view op) const {
    return Current().type == TokenType::kOperator && Current().text == op;
  }
  bool IsName(std::string_view name) const {
    return Current().type == TokenType::kName && Current().text == name;
  }
  bool SkipOp(std::string_view op);
  bool SkipName(std::string_view name);
  Status ExpectOp(std::string_view op);
  Status ExpectName(std::string_view name);
  Status ExpectType(TokenType type, std::string_view what);
  Result<std::string> TakeName(std::string_view what);
  Result<std::string> TakeDottedName(std::string_view what);
  tl::unexpected<Error> ErrorAt(const Token& at, std::string_view what) const;
  tl::unexpected<Error> Unexpected(std::string_view expected) const;

  // Statements.
  Result<Block> ParseBody(std::initializer_list<std::string_view> ends, const Token* opening);
  Status ParseStatement(Block* into);
  Status ParseIf(Block* into, const Token& tag);
  Status ParseFor(Block* into, const Token& tag);
  Status ParseSet(Block* into, const Token& tag);
  Status ParseMacro(Block* into, const Token& tag);
  Status ParseCallBlock(Block* into, const Token& tag);
  Status ParseFilterBlock(Block* into, const Token& tag);
  Status ParseWith(Block* into, const Token& tag);
  Status ParsePrint(Block* into);
  Status ParseSignature(MacroNode* macro);
  Status ParseMacroBody(MacroNode* macro, std::string_view end, const Token& tag);
  Result<Target> ParseTarget(bool with_namespace);
  Result<Target> ParseSingleTarget(bool with_namespace);
  Stmt* NewStmt(Block* into, StmtKind kind, const Token& at);

  // Expressions.
  ExprResult ParseExpression(bool with_conditional = true);
  ExprResult ParseTuple(bool with_conditional, std::string_view end_name = {},
                        bool in_parentheses = false);
  ExprResult ParseBinary(int min_level);
  ExprResult ParseCompare(const Expr* left, size_t first);
  ExprResult ParseUnary(bool with_filters);
  ExprResult ParsePrimary();
  ExprResult ParseListLiteral();
  ExprResult ParseDictLiteral();
  ExprResult ParsePostfix(const Expr* node, size_t first);
  ExprResult ParseFilters(const Expr* node, size_t first);
  ExprResult ParseFilter(const Expr* node, size_t first);
  ExprResult ParseTest(const Expr* node, size_t first);
  ExprResult ParseSubscript(const Expr* node, size_t first);
  Result<const Expr*> ParseCall(const Expr* node, size_t first);
  Status ParseArgs(Expr* call);
  bool AtTupleEnd(std::string_view end_name) const;
  // A node that began at token `first` and ends before the current one.
  Expr* NewExpr(ExprKind kind, size_t first);
  // Sets end and depth; an error when it is nested too deeply.
  ExprResult Finish(Expr* expr);

  Ast* ast_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
  std::vector<MacroNode*> macros_;
};

}  // namespace perdure::text::jinja
