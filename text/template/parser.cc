#include "text/template/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "text/template/unicode.h"

namespace perdure::text::jinja {
namespace {

// What transformers' environment knows beside the tags below but a chat template has no use for.
constexpr std::string_view kRefusedTags[] = {"block",  "extends", "include",
                                             "import", "from",    "autoescape"};

}  // namespace

tl::unexpected<Error> Parser::ErrorAt(const Token& at, std::string_view what) const {
  return Err(ErrorCode::bad_model, fmt::format("{}, line {}: {}", ast_->name, at.line, what));
}

tl::unexpected<Error> Parser::Unexpected(std::string_view expected) const {
  return ErrorAt(Current(), fmt::format("expected {}, found {}", expected, Describe(Current())));
}

bool Parser::SkipOp(std::string_view op) {
  if (!IsOp(op)) return false;
  Advance();
  return true;
}

bool Parser::SkipName(std::string_view name) {
  if (!IsName(name)) return false;
  Advance();
  return true;
}

Status Parser::ExpectOp(std::string_view op) {
  if (!SkipOp(op)) return Unexpected(fmt::format("'{}'", op));
  return {};
}

Status Parser::ExpectName(std::string_view name) {
  if (!SkipName(name)) return Unexpected(fmt::format("'{}'", name));
  return {};
}

Status Parser::ExpectType(TokenType type, std::string_view what) {
  if (Current().type != type) return Unexpected(what);
  Advance();
  return {};
}

Result<std::string> Parser::TakeName(std::string_view what) {
  if (Current().type != TokenType::kName) return Unexpected(what);
  std::string name = Current().text;
  Advance();
  return name;
}

Result<std::string> Parser::TakeDottedName(std::string_view what) {
  ASSIGN_OR_RETURN(std::string name, TakeName(what));
  while (SkipOp(".")) {
    ASSIGN_OR_RETURN(const std::string part, TakeName("a name"));
    name += "." + part;
  }
  return name;
}

Stmt* Parser::NewStmt(Block* into, StmtKind kind, const Token& at) {
  ast_->statements.push_back(std::make_unique<Stmt>());
  Stmt* stmt = ast_->statements.back().get();
  stmt->kind = kind;
  stmt->line = at.line;
  into->push_back(stmt);
  return stmt;
}

Result<Block> Parser::ParseAll() { return ParseBody({}, nullptr); }

// Statements up to one of the tags `ends`, whose name is then the current token.
Result<Block> Parser::ParseBody(std::initializer_list<std::string_view> ends,
                                const Token* opening) {
  if (opening != nullptr) {
    SkipOp(":");
    RETURN_IF_ERROR(ExpectType(TokenType::kBlockEnd, "'%}'"));
  }
  if (++depth_ > limits::kTemplateDepthMax)
    return ErrorAt(Current(),
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  Block body;
  while (true) {
    const Token& token = Current();
    if (token.type == TokenType::kEnd) {
      if (opening != nullptr)
        return ErrorAt(*opening, fmt::format("'{}' is not closed; expected '{}'", opening->text,
                                             *(ends.end() - 1)));
      break;
    }
    if (token.type == TokenType::kData) {
      NewStmt(&body, StmtKind::kData, token)->text = MarkedString(token.text);
      Advance();
    } else if (token.type == TokenType::kVariableBegin) {
      Advance();
      Stmt* print = NewStmt(&body, StmtKind::kPrint, token);
      ASSIGN_OR_RETURN(print->expr, ParseTuple(true));
      RETURN_IF_ERROR(ExpectType(TokenType::kVariableEnd, "'}}'"));
    } else {
      RETURN_IF_ERROR(ExpectType(TokenType::kBlockBegin, "'{%'"));
      if (Current().type == TokenType::kName &&
          std::find(ends.begin(), ends.end(), Current().text) != ends.end())
        break;
      RETURN_IF_ERROR(ParseStatement(&body));
      RETURN_IF_ERROR(ExpectType(TokenType::kBlockEnd, "'%}'"));
    }
  }
  --depth_;
  return body;
}

Status Parser::ParseStatement(Block* into) {
  const Token& tag = Current();
  if (tag.type != TokenType::kName) return Unexpected("a tag's name");
  const std::string& name = tag.text;
  if (std::find(std::begin(kRefusedTags), std::end(kRefusedTags), name) != std::end(kRefusedTags))
    return ErrorAt(tag, fmt::format("the tag '{}' is not supported in chat templates", name));
  Advance();
  if (name == "if") return ParseIf(into, tag);
  if (name == "for") return ParseFor(into, tag);
  if (name == "set") return ParseSet(into, tag);
  if (name == "macro") return ParseMacro(into, tag);
  if (name == "call") return ParseCallBlock(into, tag);
  if (name == "filter") return ParseFilterBlock(into, tag);
  if (name == "with") return ParseWith(into, tag);
  if (name == "print") return ParsePrint(into);
  if (name == "do") {
    Stmt* stmt = NewStmt(into, StmtKind::kDo, tag);
    ASSIGN_OR_RETURN(stmt->expr, ParseTuple(true));
    return {};
  }
  if (name == "break" || name == "continue") {
    if (loops_ == 0) return ErrorAt(tag, fmt::format("'{}' outside of a loop", name));
    NewStmt(into, name == "break" ? StmtKind::kBreak : StmtKind::kContinue, tag);
    return {};
  }
  if (name == "generation") {
    Stmt* stmt = NewStmt(into, StmtKind::kGeneration, tag);
    stmt->macro = std::make_unique<MacroNode>();
    RETURN_IF_ERROR(ParseMacroBody(stmt->macro.get(), "endgeneration", tag));
    return ExpectName("endgeneration");
  }
  return ErrorAt(tag, fmt::format("unknown tag '{}'", name));
}

Status Parser::ParseIf(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kIf, tag);
  const Expr* condition = nullptr;
  ASSIGN_OR_RETURN(condition, ParseTuple(false));
  while (true) {
    ASSIGN_OR_RETURN(Block body, ParseBody({"elif", "else", "endif"}, &tag));
    stmt->branches.emplace_back(condition, std::move(body));
    if (SkipName("elif")) {
      ASSIGN_OR_RETURN(condition, ParseTuple(false));
      continue;
    }
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(Block otherwise, ParseBody({"endif"}, &tag));
      stmt->branches.emplace_back(nullptr, std::move(otherwise));
    }
    return ExpectName("endif");
  }
}

Status Parser::ParseFor(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kFor, tag);
  ++loops_;  // the target cannot be `loop`
  ASSIGN_OR_RETURN(stmt->target, ParseTarget(false));
  --loops_;
  RETURN_IF_ERROR(ExpectName("in"));
  ASSIGN_OR_RETURN(stmt->expr, ParseTuple(false, "recursive"));
  if (SkipName("if")) {
    ASSIGN_OR_RETURN(stmt->condition, ParseExpression());
  }
  stmt->recursive = SkipName("recursive");
  ++loops_;
  ASSIGN_OR_RETURN(stmt->body, ParseBody({"else", "endfor"}, &tag));
  --loops_;
  if (SkipName("else")) {
    ASSIGN_OR_RETURN(stmt->else_body, ParseBody({"endfor"}, &tag));
  }
  return ExpectName("endfor");
}

Status Parser::ParseSet(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kSet, tag);
  ASSIGN_OR_RETURN(stmt->target, ParseTarget(true));
  if (SkipOp("=")) {
    ASSIGN_OR_RETURN(stmt->expr, ParseTuple(true));
    return {};
  }
  stmt->kind = StmtKind::kSetBlock;
  if (IsOp("|")) {
    const size_t first = at_;
    ASSIGN_OR_RETURN(stmt->expr, Finish(NewExpr(ExprKind::kCaptured, first)));
    while (SkipOp("|")) {
      ASSIGN_OR_RETURN(stmt->expr, ParseFilter(stmt->expr, first));
    }
  }
  const int loops = std::exchange(loops_, 0);  // what is captured cannot be left
  ASSIGN_OR_RETURN(stmt->body, ParseBody({"endset"}, &tag));
  loops_ = loops;
  return ExpectName("endset");
}

Status Parser::ParseFilterBlock(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kFilterBlock, tag);
  const size_t first = at_;
  ASSIGN_OR_RETURN(stmt->expr, Finish(NewExpr(ExprKind::kCaptured, first)));
  do {
    ASSIGN_OR_RETURN(stmt->expr, ParseFilter(stmt->expr, first));
  } while (SkipOp("|"));
  const int loops = std::exchange(loops_, 0);  // what is captured cannot be left
  ASSIGN_OR_RETURN(stmt->body, ParseBody({"endfilter"}, &tag));
  loops_ = loops;
  return ExpectName("endfilter");
}

Status Parser::ParseSignature(MacroNode* macro) {
  RETURN_IF_ERROR(ExpectOp("("));
  while (!IsOp(")")) {
    if (!macro->parameters.empty()) RETURN_IF_ERROR(ExpectOp(","));
    ASSIGN_OR_RETURN(std::string name, TakeName("a parameter's name"));
    const int number = ast_->NameNumber(name);
    if (std::find(macro->parameters.begin(), macro->parameters.end(), number) !=
        macro->parameters.end())
      return ErrorAt(Current(), fmt::format("the parameter '{}' is there twice", name));
    macro->parameters.push_back(number);
    macro->parameter_names.push_back(std::move(name));
    if (SkipOp("=")) {
      ASSIGN_OR_RETURN(const Expr* value, ParseExpression());
      macro->defaults.push_back(value);
    } else if (!macro->defaults.empty()) {
      return ErrorAt(Current(), "a parameter without default follows one with a default");
    }
  }
  Advance();
  return {};
}

Status Parser::ParseMacro(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kMacro, tag);
  stmt->macro = std::make_unique<MacroNode>();
  ASSIGN_OR_RETURN(stmt->macro->name, TakeName("a macro's name"));
  stmt->name = ast_->NameNumber(stmt->macro->name);
  RETURN_IF_ERROR(ParseSignature(stmt->macro.get()));
  RETURN_IF_ERROR(ParseMacroBody(stmt->macro.get(), "endmacro", tag));
  return ExpectName("endmacro");
}

// What a macro's body is left by is its end alone.
Status Parser::ParseMacroBody(MacroNode* macro, std::string_view end, const Token& tag) {
  macros_.push_back(macro);
  const int loops = std::exchange(loops_, 0);
  ASSIGN_OR_RETURN(macro->body, ParseBody({end}, &tag));
  loops_ = loops;
  macros_.pop_back();
  return {};
}

Status Parser::ParseCallBlock(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kCallBlock, tag);
  stmt->macro = std::make_unique<MacroNode>();
  if (IsOp("(")) RETURN_IF_ERROR(ParseSignature(stmt->macro.get()));
  ASSIGN_OR_RETURN(stmt->expr, ParseExpression());
  if (stmt->expr->kind != ExprKind::kCall) return ErrorAt(tag, "'call' needs a call");
  RETURN_IF_ERROR(ParseMacroBody(stmt->macro.get(), "endcall", tag));
  return ExpectName("endcall");
}

Status Parser::ParseWith(Block* into, const Token& tag) {
  Stmt* stmt = NewStmt(into, StmtKind::kWith, tag);
  while (Current().type != TokenType::kBlockEnd) {
    if (!stmt->assignments.empty()) RETURN_IF_ERROR(ExpectOp(","));
    ASSIGN_OR_RETURN(Target target, ParseTarget(false));
    RETURN_IF_ERROR(ExpectOp("="));
    ASSIGN_OR_RETURN(const Expr* value, ParseExpression());
    stmt->assignments.emplace_back(std::move(target), value);
  }
  ASSIGN_OR_RETURN(stmt->body, ParseBody({"endwith"}, &tag));
  return ExpectName("endwith");
}

Status Parser::ParsePrint(Block* into) {
  bool first = true;
  while (Current().type != TokenType::kBlockEnd) {
    if (!first) RETURN_IF_ERROR(ExpectOp(","));
    first = false;
    Stmt* stmt = NewStmt(into, StmtKind::kPrint, Current());
    ASSIGN_OR_RETURN(stmt->expr, ParseExpression());
  }
  return {};
}

Result<Target> Parser::ParseTarget(bool with_namespace) {
  std::vector<Target> parts;
  bool is_tuple = false;
  while (true) {
    ASSIGN_OR_RETURN(Target part, ParseSingleTarget(with_namespace));
    parts.push_back(std::move(part));
    if (!SkipOp(",")) break;
    is_tuple = true;
    if (IsName("in") || IsOp("=") || IsOp(")") || Current().type == TokenType::kBlockEnd) break;
  }
  if (!is_tuple) return std::move(parts[0]);
  Target target;
  target.kind = Target::Kind::kTuple;
  target.parts = std::move(parts);
  return target;
}

Result<Target> Parser::ParseSingleTarget(bool with_namespace) {
  if (++depth_ > limits::kTemplateDepthMax)
    return ErrorAt(Current(),
                   fmt::format("nested deeper than {} levels", limits::kTemplateDepthMax));
  Target target;
  if (SkipOp("(")) {
    ASSIGN_OR_RETURN(target, ParseTarget(with_namespace));
    RETURN_IF_ERROR(ExpectOp(")"));
    --depth_;
    return target;
  }
  const Token& token = Current();
  ASSIGN_OR_RETURN(target.text, TakeName("a variable's name"));
  constexpr std::string_view kConstants[] = {"true", "True", "false", "False", "none", "None"};
  if (std::find(std::begin(kConstants), std::end(kConstants), target.text) != std::end(kConstants))
    return ErrorAt(token, fmt::format("'{}' cannot be assigned to", target.text));
  target.name = ast_->NameNumber(target.text);
  if (with_namespace && SkipOp(".")) {
    target.kind = Target::Kind::kAttribute;
    ASSIGN_OR_RETURN(target.attribute, TakeName("an attribute's name"));
    if (target.attribute.starts_with('_'))
      return ErrorAt(token, "attributes of a namespace cannot start with '_'");
  } else if (target.name == ast_->loop_name && loops_ > 0) {
    return ErrorAt(token, "the loop variable cannot be assigned to");
  }
  --depth_;
  return target;
}

Result<std::unique_ptr<Ast>> ParseTemplate(std::string_view source, std::string_view name) {
  if (source.size() > limits::kTemplateBytesMax)
    return Err(ErrorCode::bad_model, fmt::format("{} has {} bytes; at most {} are allowed", name,
                                                 source.size(), limits::kTemplateBytesMax));
  if (!IsValidUtf8(source)) return Err(ErrorCode::bad_model, fmt::format("{} is not UTF-8", name));
  auto ast = std::make_unique<Ast>();
  ast->name = name;
  ast->source = NormalizeSource(source);
  ast->loop_name = ast->NameNumber("loop");
  ast->caller_name = ast->NameNumber("caller");
  ast->varargs_name = ast->NameNumber("varargs");
  ast->kwargs_name = ast->NameNumber("kwargs");
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(ast->source, name));
  ASSIGN_OR_RETURN(ast->body, Parser(ast.get(), std::move(tokens)).ParseAll());
  return ast;
}

}  // namespace perdure::text::jinja
