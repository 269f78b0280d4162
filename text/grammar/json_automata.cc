#include "text/grammar/json_automata.h"

#include "base/check.h"
#include "base/limits.h"
#include "text/grammar/regular.h"

namespace perdure::text {
namespace {

using Id = RegularTree::Id;
constexpr uint32_t kNoBound = RegularTree::kNoBound;

AutomatonPtr Must(const Result<AutomatonPtr>& made) {
  CHECK(made.has_value());
  return *made;
}

Id HexDigit(RegularTree& tree) {
  ByteSet set;
  set.AddRange('0', '9');
  set.AddRange('a', 'f');
  set.AddRange('A', 'F');
  return tree.Bytes(set);
}

// One of the bytes in `members`.
Id OneOf(RegularTree& tree, std::string_view members) {
  ByteSet set;
  for (const char c : members) set.Add(static_cast<uint8_t>(c));
  return tree.Bytes(set);
}

AutomatonPtr MakeString(AutomatonBudget* budget) {
  RegularTree tree;
  const Id hex = HexDigit(tree);
  const Id u = tree.Byte('u');
  const Id backslash = tree.Byte('\\');
  const Id d = OneOf(tree, "dD");
  const Id unit = tree.Choice({tree.Sequence({OneOf(tree, "0123456789abcefABCEF"), hex, hex, hex}),
                               tree.Sequence({d, OneOf(tree, "01234567"), hex, hex}),
                               // A pair of surrogates.
                               tree.Sequence({d, OneOf(tree, "89abAB"), hex, hex, backslash, u, d,
                                              OneOf(tree, "cdefCDEF"), hex, hex})});
  const Id escape = tree.Sequence(
      {backslash, tree.Choice({OneOf(tree, "\"\\/bfnrt"), tree.Sequence({u, unit})})});
  const Id raw =
      tree.Characters(CodePointSet::All().Without(0, 0x1F).Without('"', '"').Without('\\', '\\'));
  const Id quote = tree.Byte('"');
  const Id all =
      tree.Sequence({quote, tree.Repeat(tree.Choice({raw, escape}), 0, kNoBound), quote});
  return Must(tree.Compile(all, Spelling::kUtf8, budget));
}

AutomatonPtr MakeNumber(bool integer, AutomatonBudget* budget) {
  RegularTree tree;
  const Id digit = tree.ByteRange('0', '9');
  const Id whole = tree.Sequence(
      {tree.Optional(tree.Byte('-')),
       tree.Choice({tree.Byte('0'),
                    tree.Sequence({tree.ByteRange('1', '9'),
                                   tree.Repeat(digit, 0, limits::kGrammarIntegerDigits - 1)})})});
  const Id fraction =
      tree.Sequence({tree.Byte('.'), tree.Repeat(digit, 1, limits::kGrammarFractionDigits)});
  const Id exponent = tree.Sequence({OneOf(tree, "eE"), tree.Optional(OneOf(tree, "+-")),
                                     tree.Repeat(digit, 1, limits::kGrammarExponentDigits)});
  const Id all =
      integer ? whole : tree.Sequence({whole, tree.Optional(fraction), tree.Optional(exponent)});
  return Must(tree.Compile(all, Spelling::kUtf8, budget));
}

AutomatonPtr MakeWhiteSpace(AutomatonBudget* budget) {
  RegularTree tree;
  const Id indent = tree.Repeat(OneOf(tree, " \t"), 0, limits::kGrammarIndentMax);
  const Id all =
      tree.Optional(tree.Choice({tree.Byte(' '), tree.Sequence({tree.Byte('\n'), indent})}));
  return Must(tree.Compile(all, Spelling::kUtf8, budget));
}

}  // namespace

const JsonAutomata& JsonAutomata::Get() {
  static const JsonAutomata automata = [] {
    AutomatonBudget budget;
    JsonAutomata made;
    made.string = MakeString(&budget);
    made.plain_string = Must(PlainStringsOfLength(0, kNoBound, &budget));
    made.integer = MakeNumber(true, &budget);
    made.number = MakeNumber(false, &budget);
    made.white_space = MakeWhiteSpace(&budget);
    return made;
  }();
  return automata;
}

uint16_t InsideState(const Automaton& string) { return string.Next(Automaton::kStart, '"'); }

Result<AutomatonPtr> PlainStringsOfLength(uint32_t min, uint32_t max, AutomatonBudget* budget) {
  // Written out, so many characters would take too many states.
  if (min > limits::kPatternRepeatMax || (max != kNoBound && max > limits::kPatternRepeatMax))
    return AutomatonTooLarge();
  RegularTree tree;
  const Id quote = tree.Byte('"');
  const Id any = tree.Characters(CodePointSet::All());
  return tree.Compile(tree.Sequence({quote, tree.Repeat(any, min, max), quote}), Spelling::kJson,
                      budget);
}

}  // namespace perdure::text
