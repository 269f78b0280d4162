#include "text/grammar/free_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <deque>

#include "base/limits.h"
#include "text/grammar/regular.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

constexpr uint16_t kDead = AutomatonRows::kDead;

// Aho and Corasick's automaton: in which state some of `strings` have just appeared.
struct Finder {
  std::vector<std::array<uint16_t, 256>> next;
  std::vector<bool> found;
};

Result<Finder> MakeFinder(const std::vector<std::string>& strings, AutomatonBudget* budget) {
  if (strings.size() > limits::kGrammarTriggersMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("more than {} strings that end a text", limits::kGrammarTriggersMax));
  Finder finder;
  const auto add = [&] {
    finder.next.emplace_back().fill(kDead);
    finder.found.push_back(false);
    return static_cast<uint16_t>(finder.next.size() - 1);
  };
  add();
  for (const std::string& text : strings) {
    if (text.empty() || text.size() > limits::kGrammarTriggerBytesMax || !IsValidUtf8(text))
      return Err(ErrorCode::invalid_request,
                 fmt::format("a string that ends a text must be UTF-8 of 1 to {} bytes",
                             limits::kGrammarTriggerBytesMax));
    uint16_t state = 0;
    for (const char c : text) {
      if (finder.next.size() >= limits::kAutomatonStatesMax || !budget->Spend(64))
        return AutomatonTooLarge();
      uint16_t to = finder.next[state][static_cast<uint8_t>(c)];
      if (to == kDead) {
        to = add();
        finder.next[state][static_cast<uint8_t>(c)] = to;
      }
      state = to;
    }
    finder.found[state] = true;
  }
  // Where a string does not go on, the longest end of what was read that begins one does.
  std::vector<uint16_t> border(finder.next.size(), 0);
  std::deque<uint16_t> open;
  for (uint16_t& to : finder.next[0]) {
    if (to == kDead)
      to = 0;
    else
      open.push_back(to);
  }
  while (!open.empty()) {
    const uint16_t state = open.front();
    open.pop_front();
    if (finder.found[border[state]]) finder.found[state] = true;
    for (size_t byte = 0; byte < 256; ++byte) {
      uint16_t& to = finder.next[state][byte];
      const uint16_t fallback = finder.next[border[state]][byte];
      if (to == kDead) {
        to = fallback;
      } else {
        border[to] = fallback;
        open.push_back(to);
      }
    }
  }
  return finder;
}

// Texts whose strings appear at their very end, or nowhere.
Result<AutomatonPtr> Compile(const std::vector<std::string>& strings, bool until,
                             AutomatonBudget* budget) {
  ASSIGN_OR_RETURN(const Finder finder, MakeFinder(strings, budget));
  AutomatonRows rows;
  for (size_t state = 0; state < finder.next.size(); ++state) {
    rows.Add(until == finder.found[state]);
    if (finder.found[state]) continue;
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint16_t to = finder.next[state][byte];
      if (until || !finder.found[to]) rows.next[state][byte] = to;
    }
  }
  ASSIGN_OR_RETURN(const AutomatonPtr bytes, Automaton::Make(std::move(rows), budget));
  RegularTree tree;
  const auto text = tree.Repeat(tree.Characters(CodePointSet::All()), 0, RegularTree::kNoBound);
  ASSIGN_OR_RETURN(const AutomatonPtr utf8, tree.Compile(text, Spelling::kUtf8, budget));
  return Intersect(*bytes, *utf8, budget);
}

}  // namespace

Result<AutomatonPtr> CompileTextUntil(const std::vector<std::string>& strings,
                                      AutomatonBudget* budget) {
  return Compile(strings, true, budget);
}

Result<AutomatonPtr> CompileTextWithout(const std::vector<std::string>& strings,
                                        AutomatonBudget* budget) {
  return Compile(strings, false, budget);
}

}  // namespace perdure::text
