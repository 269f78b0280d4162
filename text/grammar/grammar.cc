#include "text/grammar/grammar.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "text/grammar/free_text.h"
#include "text/grammar/json_automata.h"
#include "text/grammar/pattern.h"

namespace perdure::text {

using Kind = Grammar::Kind;
using Node = Grammar::Node;

size_t Grammar::memory_bytes() const {
  size_t bytes = sizeof(Grammar) + nodes_.size() * sizeof(Node) + parts_.size() * 4;
  for (const AutomatonPtr& automaton : automata_) bytes += 16 + automaton->memory_bytes();
  return bytes;
}

GrammarBuilder::GrammarBuilder() : grammar_(std::make_shared<Grammar>()) {
  grammar_->nodes_ = {{.kind = Kind::kEmpty}, {.kind = Kind::kRule, .first = kNeverNode}};
}

void GrammarBuilder::Fail(Error error) {
  if (status_) status_ = Err(std::move(error));
}

Expression GrammarBuilder::Add(Node node) {
  auto& nodes = grammar_->nodes_;
  if (nodes.size() + grammar_->parts_.size() >= limits::kGrammarNodesMax) {
    Fail({ErrorCode::invalid_request,
          fmt::format("too large: it takes more than {} parts", limits::kGrammarNodesMax), "", 0});
    return Never();
  }
  nodes.push_back(node);
  return {static_cast<uint32_t>(nodes.size() - 1)};
}

Expression GrammarBuilder::AddParts(Kind kind, const std::vector<Expression>& parts) {
  const Expression made = Add({.kind = kind,
                               .first = static_cast<uint32_t>(grammar_->parts_.size()),
                               .count = static_cast<uint32_t>(parts.size())});
  if (made.node == kNeverNode) return made;
  for (const Expression part : parts) grammar_->parts_.push_back(part.node);
  return made;
}

Expression GrammarBuilder::Leaf(Result<AutomatonPtr> automaton) {
  if (!automaton) {
    Fail(std::move(automaton).error());
    return Never();
  }
  return Match(std::move(*automaton));
}

Expression GrammarBuilder::Match(AutomatonPtr automaton) {
  if (automaton->empty()) return Never();
  grammar_->automata_.push_back(std::move(automaton));
  return Add({.kind = Kind::kLeaf, .first = static_cast<uint32_t>(grammar_->automata_.size() - 1)});
}

Expression GrammarBuilder::Literal(std::string_view bytes) {
  if (bytes.empty()) return Empty();
  const auto [known, is_new] = literals_.try_emplace(std::string(bytes));
  if (is_new) known->second = Leaf(Automaton::OfTexts({std::string(bytes)}, &budget_));
  return known->second;
}

Expression GrammarBuilder::Texts(std::vector<std::string> texts) {
  return Leaf(Automaton::OfTexts(std::move(texts), &budget_));
}

Expression GrammarBuilder::Regex(std::string_view pattern) {
  return Leaf(CompilePattern(pattern, &budget_));
}

Expression GrammarBuilder::JsonString(uint32_t min, uint32_t max) {
  const Expression made = Match(JsonAutomata::Get().string);
  if (min == 0 && max == kNoBound) return made;
  if (min > max) return Never();
  Node& node = grammar_->nodes_[made.node];
  if (node.kind != Kind::kLeaf) return made;
  node.counted = true;
  node.min = min;
  node.max = max;
  return made;
}

Expression GrammarBuilder::TextUntil(const std::vector<std::string>& triggers) {
  return Leaf(CompileTextUntil(triggers, &budget_));
}

Expression GrammarBuilder::TextWithout(const std::vector<std::string>& strings) {
  return Leaf(CompileTextWithout(strings, &budget_));
}

Expression GrammarBuilder::WhiteSpace() {
  if (!white_space_) white_space_ = Match(JsonAutomata::Get().white_space);
  return *white_space_;
}

Expression GrammarBuilder::JsonValue() {
  if (json_value_) return *json_value_;
  json_value_ = DeclareRule();
  json_object_ = DeclareRule();
  const JsonAutomata& json = JsonAutomata::Get();
  const Expression space = WhiteSpace();
  const Expression comma = Sequence({Literal(","), space});
  const Expression member = Sequence({Match(json.string), Literal(":"), space, *json_value_});
  const auto list = [&](std::string_view open, Expression item, std::string_view close) {
    return Sequence(
        {Literal(open), space,
         Choice({Literal(close), Sequence({item, Repeat(Sequence({comma, item}), 0, kNoBound),
                                           space, Literal(close)})})});
  };
  DefineRule(*json_object_, list("{", member, "}"));
  DefineRule(*json_value_, Choice({*json_object_, list("[", *json_value_, "]"), Match(json.string),
                                   Match(json.number), Texts({"true", "false", "null"})}));
  return *json_value_;
}

Expression GrammarBuilder::JsonObject() {
  JsonValue();
  return *json_object_;
}

Expression GrammarBuilder::Sequence(std::vector<Expression> parts) {
  std::erase_if(parts, [](Expression part) { return part.node == kEmptyNode; });
  for (const Expression part : parts)
    if (part.node == kNeverNode) return Never();
  if (parts.empty()) return Empty();
  if (parts.size() == 1) return parts[0];
  return AddParts(Kind::kSequence, parts);
}

Expression GrammarBuilder::Choice(std::vector<Expression> parts) {
  std::erase_if(parts, [](Expression part) { return part.node == kNeverNode; });
  if (parts.empty()) return Never();
  if (parts.size() == 1) return parts[0];
  return AddParts(Kind::kChoice, parts);
}

Expression GrammarBuilder::Repeat(Expression part, uint32_t min, uint32_t max) {
  if (min > max) return Never();
  if (max == 0) return Empty();
  if (part.node == kNeverNode) return min == 0 ? Empty() : Never();
  if (min == 1 && max == 1) return part;
  return Add({.kind = Kind::kRepeat, .first = part.node, .min = min, .max = max});
}

Expression GrammarBuilder::DeclareRule() {
  const Expression made = Add({.kind = Kind::kRule});
  // A rule that stands for itself is one without a definition.
  if (made.node != kNeverNode) grammar_->nodes_[made.node].first = made.node;
  return made;
}

void GrammarBuilder::DefineRule(Expression rule, Expression body) {
  if (rule.node == kNeverNode) return;  // failed before
  Node& node = grammar_->nodes_[rule.node];
  CHECK(node.kind == Kind::kRule && node.first == rule.node);
  node.first = body.node;
}

}  // namespace perdure::text
