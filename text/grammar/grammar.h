// Grammars: which bytes an answer may consist of.
//
// A grammar is a graph of nodes. Its leaves are automata (a string, a number, white space, a text
// up to some mark); sequence, choice, repetition and recursion lie above them. Everything it
// accepts is valid UTF-8 if the literals in it are. From whatever a grammar has let begin, its end
// can be reached.
//
//   GrammarBuilder b;
//   const auto value = b.Json(...);                     // see json_schema.h for schemas
//   b.Build(b.Sequence({b.TextUntil({"<tool_call>"}), value, b.Literal("</tool_call>")}))
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/grammar/automaton.h"

namespace perdure::text {

// Immutable and thread-safe; shared by all sequences that it constrains.
class Grammar {
 public:
  enum class Kind : uint8_t { kEmpty, kLeaf, kSequence, kChoice, kRepeat, kRule };
  static constexpr uint32_t kNoBound = 0xFFFFFFFF;

  struct Node {
    Kind kind = Kind::kEmpty;
    // Leaf: index of its automaton. Sequence, choice: index of the first part in parts().
    // Repeat: the repeated node. Rule: the node that it stands for.
    uint32_t first = 0;
    uint32_t count = 0;  // of parts
    // Repeat: how often. Leaf: how many characters a JSON string has, if `counted`.
    uint32_t min = 0;
    uint32_t max = kNoBound;
    bool counted = false;
  };

  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<uint32_t>& parts() const { return parts_; }
  const std::vector<AutomatonPtr>& automata() const { return automata_; }
  uint32_t root() const { return root_; }
  // Automata that others share are counted, too.
  size_t memory_bytes() const;

 private:
  friend class GrammarBuilder;
  std::vector<Node> nodes_;
  std::vector<uint32_t> parts_;
  std::vector<AutomatonPtr> automata_;
  uint32_t root_ = 0;
};

using GrammarPtr = std::shared_ptr<const Grammar>;

// A part of the grammar that a builder makes; only for that builder.
struct Expression {
  uint32_t node = 0;
};

// Makes one grammar. Errors (invalid_request) of parts are kept and returned by Build, the first
// one; where a part tells of its own, it may be asked for with `status`. Not thread-safe.
class GrammarBuilder {
 public:
  static constexpr uint32_t kNoBound = Grammar::kNoBound;

  GrammarBuilder();

  Expression Empty() const { return {kEmptyNode}; }
  // What nothing matches. A choice leaves it out; a grammar that needs it cannot be built.
  Expression Never() const { return {kNeverNode}; }
  Expression Literal(std::string_view bytes);
  // One of these texts, at least one.
  Expression Texts(std::vector<std::string> texts);
  // Texts that a pattern of ECMA-262 matches as a whole (pattern.h).
  Expression Regex(std::string_view pattern);
  Expression Match(AutomatonPtr automaton);
  // A JSON string of `min` to `max` characters.
  Expression JsonString(uint32_t min = 0, uint32_t max = kNoBound);
  // Text that ends with the first of `triggers` to appear in it, which belongs to it.
  Expression TextUntil(const std::vector<std::string>& triggers);
  // Text in which none of `strings` appears.
  Expression TextWithout(const std::vector<std::string>& strings);
  // None, one blank, or a newline and some indentation.
  Expression WhiteSpace();
  // Any JSON value, any JSON object.
  Expression JsonValue();
  Expression JsonObject();

  Expression Sequence(std::vector<Expression> parts);
  Expression Choice(std::vector<Expression> parts);
  Expression Optional(Expression part) { return Choice({part, Empty()}); }
  // `part` matches no empty text.
  Expression Repeat(Expression part, uint32_t min, uint32_t max);
  // A rule may be used before it is defined, also within itself, but not as its own beginning.
  Expression DeclareRule();
  void DefineRule(Expression rule, Expression body);

  AutomatonBudget* budget() { return &budget_; }
  const Status& status() const { return status_; }

  // invalid_request for a grammar that nothing satisfies ("can never be satisfied"), that begins
  // with itself, or that is too large. The builder is used up.
  Result<GrammarPtr> Build(Expression root);

 private:
  static constexpr uint32_t kEmptyNode = 0;
  static constexpr uint32_t kNeverNode = 1;  // a rule without a definition

  Expression Add(Grammar::Node node);
  Expression AddParts(Grammar::Kind kind, const std::vector<Expression>& parts);
  Expression Leaf(Result<AutomatonPtr> automaton);
  void Fail(Error error);

  std::vector<bool> FindProductive() const;
  std::vector<bool> FindNullable() const;
  Status CheckBeginnings(const std::vector<bool>& nullable) const;

  std::shared_ptr<Grammar> grammar_;
  AutomatonBudget budget_;
  Status status_;
  std::optional<Expression> json_value_, json_object_, white_space_;
  std::unordered_map<std::string, Expression> literals_;
};

}  // namespace perdure::text
