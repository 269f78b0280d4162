// Numbers within bounds: their digits are compared from the first one on.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/limits.h"
#include "text/grammar/json_automata.h"
#include "text/grammar/regular.h"

namespace perdure::text {
namespace {

using Id = RegularTree::Id;

// A magnitude: no sign, no leading zero but a single one; `fraction` has kGrammarFractionDigits.
struct Decimal {
  std::string whole;
  std::string fraction;
};

bool AllZero(std::string_view digits) {
  return digits.find_first_not_of('0') == std::string_view::npos;
}

// The next larger magnitude of so many decimals.
void Increment(Decimal* decimal) {
  std::string digits = decimal->whole + decimal->fraction;
  size_t at = digits.size();
  while (at > 0 && digits[at - 1] == '9') digits[--at] = '0';
  if (at > 0)
    ++digits[at - 1];
  else
    digits.insert(digits.begin(), '1');
  const size_t whole = digits.size() - decimal->fraction.size();
  decimal->fraction = digits.substr(whole);
  decimal->whole = digits.substr(0, whole);
}

// |value| as it is written shortest, cut or rounded away from zero to `decimals`.
Decimal DecimalOf(double value, size_t decimals, bool away_from_zero) {
  const std::string text = fmt::format("{}", std::fabs(value));  // ddd[.ddd][e±xx]
  std::string digits;
  int exponent = 0;
  size_t point = std::string::npos;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == 'e') {
      exponent = std::atoi(text.c_str() + i + 1);
      break;
    }
    if (text[i] == '.')
      point = digits.size();
    else
      digits += text[i];
  }
  if (point == std::string::npos) point = digits.size();
  int place = static_cast<int>(point) + exponent;  // of the point among the digits
  if (place < 0) {
    digits.insert(0, static_cast<size_t>(-place), '0');
    place = 0;
  }
  if (static_cast<size_t>(place) > digits.size())
    digits.append(static_cast<size_t>(place) - digits.size(), '0');
  Decimal result{digits.substr(0, static_cast<size_t>(place)),
                 digits.substr(static_cast<size_t>(place))};
  const size_t first = result.whole.find_first_not_of('0');
  result.whole = first == std::string::npos ? "0" : result.whole.substr(first);
  const bool rest = result.fraction.size() > decimals && !AllZero(result.fraction.substr(decimals));
  result.fraction.resize(decimals, '0');
  if (rest && away_from_zero) Increment(&result);
  return result;
}

class Digits {
 public:
  Digits(RegularTree* tree, size_t whole_max, size_t decimals_max)
      : tree_(*tree), whole_max_(whole_max), decimals_max_(decimals_max) {}

  Id AtLeast(const Decimal& bound) {
    std::vector<Id> ways;
    // More digits, or as many and larger ones, with any decimals; or the same and its decimals.
    if (bound.whole.size() <= whole_max_) {
      for (size_t size = bound.whole.size() + 1; size <= whole_max_; ++size)
        ways.push_back(tree_.Sequence({AnyWhole(size), AnyDecimals()}));
      ways.push_back(tree_.Sequence({Larger(bound.whole), AnyDecimals()}));
      ways.push_back(tree_.Sequence({tree_.Literal(bound.whole), DecimalsAtLeast(bound.fraction)}));
    }
    return tree_.Choice(std::move(ways));
  }

  Id AtMost(const Decimal& bound) {
    if (bound.whole.size() > whole_max_) return Any();
    std::vector<Id> ways;
    for (size_t size = 1; size < bound.whole.size(); ++size)
      ways.push_back(tree_.Sequence({AnyWhole(size), AnyDecimals()}));
    ways.push_back(tree_.Sequence({Smaller(bound.whole), AnyDecimals()}));
    ways.push_back(tree_.Sequence({tree_.Literal(bound.whole), DecimalsAtMost(bound.fraction)}));
    return tree_.Choice(std::move(ways));
  }

  Id Any() {
    std::vector<Id> ways;
    for (size_t size = 1; size <= whole_max_; ++size) ways.push_back(AnyWhole(size));
    return tree_.Sequence({tree_.Choice(std::move(ways)), AnyDecimals()});
  }

 private:
  Id Range(char first, char last) {
    if (first > last) return tree_.Never();
    return tree_.ByteRange(static_cast<uint8_t>(first), static_cast<uint8_t>(last));
  }
  Id AnyDigits(size_t min, size_t max) {
    return tree_.Repeat(Range('0', '9'), static_cast<uint32_t>(min), static_cast<uint32_t>(max));
  }
  Id AnyWhole(size_t size) {
    if (size == 1) return Range('0', '9');
    return tree_.Sequence({Range('1', '9'), AnyDigits(size - 1, size - 1)});
  }
  Id AnyDecimals() {
    if (decimals_max_ == 0) return tree_.Empty();
    return tree_.Optional(tree_.Sequence({tree_.Byte('.'), AnyDigits(1, decimals_max_)}));
  }
  // As many digits as `bound`, and a larger (smaller) number.
  Id Larger(std::string_view bound) {
    std::vector<Id> ways;
    for (size_t i = 0; i < bound.size(); ++i)
      ways.push_back(tree_.Sequence({tree_.Literal(bound.substr(0, i)),
                                     Range(static_cast<char>(bound[i] + 1), '9'),
                                     AnyDigits(bound.size() - i - 1, bound.size() - i - 1)}));
    return tree_.Choice(std::move(ways));
  }
  Id Smaller(std::string_view bound) {
    std::vector<Id> ways;
    for (size_t i = 0; i < bound.size(); ++i) {
      const char least = i == 0 && bound.size() > 1 ? '1' : '0';
      ways.push_back(tree_.Sequence({tree_.Literal(bound.substr(0, i)),
                                     Range(least, static_cast<char>(bound[i] - 1)),
                                     AnyDigits(bound.size() - i - 1, bound.size() - i - 1)}));
    }
    return tree_.Choice(std::move(ways));
  }
  Id DecimalsAtLeast(std::string_view bound) {
    if (AllZero(bound)) return AnyDecimals();
    std::vector<Id> ways;
    for (size_t i = 0; i < bound.size(); ++i) {
      ways.push_back(tree_.Sequence({tree_.Literal(bound.substr(0, i)),
                                     Range(static_cast<char>(bound[i] + 1), '9'),
                                     AnyDigits(0, decimals_max_ - i - 1)}));
      // What is left of the bound is nothing: the same digits are enough.
      if (AllZero(bound.substr(i + 1))) {
        ways.push_back(tree_.Sequence(
            {tree_.Literal(bound.substr(0, i + 1)), AnyDigits(0, decimals_max_ - i - 1)}));
        break;
      }
    }
    return tree_.Sequence({tree_.Byte('.'), tree_.Choice(std::move(ways))});
  }
  Id DecimalsAtMost(std::string_view bound) {
    if (decimals_max_ == 0) return tree_.Empty();
    std::vector<Id> ways;
    for (size_t i = 0; i < bound.size(); ++i) {
      ways.push_back(tree_.Sequence({tree_.Literal(bound.substr(0, i)),
                                     Range('0', static_cast<char>(bound[i] - 1)),
                                     AnyDigits(0, decimals_max_ - i - 1)}));
      ways.push_back(tree_.Literal(bound.substr(0, i + 1)));  // shorter is less
    }
    return tree_.Optional(tree_.Sequence({tree_.Byte('.'), tree_.Choice(std::move(ways))}));
  }

  RegularTree& tree_;
  size_t whole_max_;
  size_t decimals_max_;
};

Result<AutomatonPtr> Compile(const NumberBounds& bounds, size_t whole_max, size_t decimals_max,
                             AutomatonBudget* budget) {
  RegularTree tree;
  Digits digits(&tree, whole_max, decimals_max);
  const Id minus = tree.Byte('-');
  const Id any = digits.Any();
  Id at_least = tree.Sequence({tree.Optional(minus), any});
  Id at_most = at_least;
  if (bounds.min) {
    const double min = *bounds.min;
    at_least = min > 0 ? digits.AtLeast(DecimalOf(min, decimals_max, true)) : any;
    if (min < 0) {
      const Id below = digits.AtMost(DecimalOf(min, decimals_max, false));
      at_least = tree.Choice({any, tree.Sequence({minus, below})});
    }
  }
  if (bounds.max) {
    const double max = *bounds.max;
    if (max < 0)
      at_most = tree.Sequence({minus, digits.AtLeast(DecimalOf(max, decimals_max, true))});
    else
      at_most = tree.Choice(
          {tree.Sequence({minus, any}), digits.AtMost(DecimalOf(max, decimals_max, false))});
  }
  ASSIGN_OR_RETURN(const AutomatonPtr low, tree.Compile(at_least, Spelling::kUtf8, budget));
  ASSIGN_OR_RETURN(const AutomatonPtr high, tree.Compile(at_most, Spelling::kUtf8, budget));
  return Intersect(*low, *high, budget);
}

}  // namespace

Result<AutomatonPtr> CompileIntegers(const NumberBounds& bounds, AutomatonBudget* budget) {
  NumberBounds whole = bounds;
  if (whole.min) whole.min = std::ceil(*whole.min);
  if (whole.max) whole.max = std::floor(*whole.max);
  return Compile(whole, limits::kGrammarIntegerDigits, 0, budget);
}

Result<AutomatonPtr> CompileNumbers(const NumberBounds& bounds, AutomatonBudget* budget) {
  return Compile(bounds, limits::kGrammarDecimalDigits, limits::kGrammarFractionDigits, budget);
}

Result<AutomatonPtr> CompileMultiples(int64_t units, int decimals, AutomatonBudget* budget) {
  // A state for each: sign read; remainder of the digits so far and how many are decimals.
  AutomatonRows rows;
  const auto count = static_cast<size_t>(units);
  const auto places = static_cast<size_t>(decimals);
  const size_t states = count * (places + 2) + 4;
  if (states > limits::kAutomatonStatesMax || !budget->Spend(static_cast<int64_t>(states) * 16))
    return AutomatonTooLarge();
  const auto ends_well = [&](size_t remainder, size_t written) {
    int64_t value = static_cast<int64_t>(remainder);
    for (size_t i = written; i < places; ++i) value = value * 10 % units;
    return value == 0;
  };
  rows.Add(false);  // 0: nothing read
  rows.Add(false);  // 1: a minus
  rows.Add(true);   // 2: a zero
  const auto whole = [&](size_t r) { return static_cast<uint16_t>(3 + r); };
  for (size_t r = 0; r < count; ++r) rows.Add(ends_well(r, 0));
  const auto fraction = [&](size_t written, size_t r) {  // 0 written: the point
    return static_cast<uint16_t>(3 + count * (1 + written) + r);
  };
  for (size_t written = 0; places > 0 && written <= places; ++written)
    for (size_t r = 0; r < count; ++r) rows.Add(written > 0 && ends_well(r, written));
  rows.next[0]['-'] = 1;
  for (const size_t from : {size_t{0}, size_t{1}}) {
    rows.next[from]['0'] = 2;
    for (size_t digit = 1; digit <= 9; ++digit) rows.next[from]['0' + digit] = whole(digit % count);
  }
  if (places > 0) rows.next[2]['.'] = fraction(0, 0);
  for (size_t r = 0; r < count; ++r) {
    for (size_t digit = 0; digit <= 9; ++digit) {
      rows.next[whole(r)]['0' + digit] = whole((r * 10 + digit) % count);
      for (size_t written = 0; written < places; ++written)
        rows.next[fraction(written, r)]['0' + digit] =
            fraction(written + 1, (r * 10 + digit) % count);
    }
    if (places > 0) rows.next[whole(r)]['.'] = fraction(0, r);
  }
  return Automaton::Make(std::move(rows), budget);
}

}  // namespace perdure::text
