#include "text/grammar/pattern.h"

#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/brief.h"
#include "base/limits.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

using Id = RegularTree::Id;

CodePointSet Digits() {
  CodePointSet set;
  set.Add('0', '9');
  return set;
}

CodePointSet WordCharacters() {
  CodePointSet set = Digits();
  set.Add('a', 'z');
  set.Add('A', 'Z');
  set.Add('_', '_');
  return set;
}

// ECMA-262's WhiteSpace and LineTerminator.
CodePointSet Blanks() {
  CodePointSet set;
  set.Add(0x09, 0x0D);
  for (const uint32_t c :
       {0x20u, 0xA0u, 0x1680u, 0x2028u, 0x2029u, 0x202Fu, 0x205Fu, 0x3000u, 0xFEFFu})
    set.Add(c, c);
  set.Add(0x2000, 0x200A);
  return set;
}

CodePointSet AllButLineEnds() {
  return CodePointSet::All().Without('\n', '\n').Without('\r', '\r').Without(0x2028, 0x2029);
}

// ^ and $ are bytes that stand around the text, and nowhere in it.
struct Ends {
  uint8_t begin;
  uint8_t end;
};

// Bytes that UTF-8 does not have.
constexpr Ends kEnds = {0xFE, 0xFF};

enum class Where { kAnywhere, kWhole };

class PatternParser {
 public:
  PatternParser(std::string_view pattern, Where where, RegularTree* tree)
      : pattern_(pattern), where_(where), tree_(tree) {}

  Result<Id> Run() {
    if (pattern_.size() > limits::kPatternBytesMax)
      return Fail(fmt::format("is longer than {} bytes", limits::kPatternBytesMax));
    if (!IsValidUtf8(pattern_)) return Fail("is not UTF-8");
    ASSIGN_OR_RETURN(const Id all, Choice(0));
    if (at_ < pattern_.size()) return Fail("has a \")\" without \"(\"");
    return all;
  }

  tl::unexpected<Error> Fail(std::string_view why) const {
    return Err(ErrorCode::invalid_request,
               fmt::format("pattern \"{}\" {}", Brief(std::string(pattern_), 100), why));
  }

 private:
  tl::unexpected<Error> Unsupported(std::string_view what) const {
    return Fail(fmt::format("uses {}, which is not supported", what));
  }
  bool more() const { return at_ < pattern_.size(); }
  char peek() const { return pattern_[at_]; }
  bool Take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  uint32_t TakeCharacter() {
    const Utf8Char c = DecodeUtf8(pattern_, at_);
    at_ += static_cast<size_t>(c.length);
    return static_cast<uint32_t>(c.code_point);
  }

  Result<Id> Choice(int depth) {
    if (depth > limits::kPatternDepthMax)
      return Fail(fmt::format("has groups nested deeper than {}", limits::kPatternDepthMax));
    std::vector<Id> ways;
    do {
      ASSIGN_OR_RETURN(const Id way, Sequence(depth));
      ways.push_back(way);
    } while (Take("|"));
    return tree_->Choice(std::move(ways));
  }

  Result<Id> Sequence(int depth) {
    std::vector<Id> parts;
    const bool begins = more() && peek() == '^';
    bool ends = false;
    while (more() && peek() != '|' && peek() != ')') {
      ends = peek() == '$';
      ASSIGN_OR_RETURN(const Id part, Term(depth));
      parts.push_back(part);
    }
    if (depth == 0) {
      // Where the pattern does not say ^, something else takes the beginning; so with $.
      if (!begins) parts.insert(parts.begin(), Around(tree_->Byte(kEnds.begin), true));
      if (!ends) parts.push_back(Around(tree_->Byte(kEnds.end), false));
    }
    if (parts.empty()) return tree_->Empty();
    return tree_->Sequence(std::move(parts));
  }

  // A group may still say it: then this is nothing.
  Id Around(Id end, bool before) {
    if (where_ == Where::kWhole) return tree_->Optional(end);
    const Id any = tree_->Repeat(tree_->Characters(CodePointSet::All()), 0, RegularTree::kNoBound);
    return tree_->Optional(
        tree_->Sequence(before ? std::vector<Id>{end, any} : std::vector<Id>{any, end}));
  }

  Result<Id> Term(int depth) {
    if (Take("^")) return NotRepeated(tree_->Byte(kEnds.begin));
    if (Take("$")) return NotRepeated(tree_->Byte(kEnds.end));
    ASSIGN_OR_RETURN(const Id atom, Atom(depth));
    ASSIGN_OR_RETURN(const auto counts, Quantifier());
    if (!counts) return atom;
    if (more() && (peek() == '*' || peek() == '+')) return Fail("has a quantifier too many");
    if (Take("?") && more() && peek() == '?') return Fail("has a quantifier too many");
    return tree_->Repeat(atom, counts->first, counts->second);
  }

  Result<Id> NotRepeated(Id anchor) {
    if (more() && (peek() == '*' || peek() == '+' || peek() == '?'))
      return Fail("repeats \"^\" or \"$\"");
    return anchor;
  }

  using Counts = std::pair<uint32_t, uint32_t>;
  Result<std::optional<Counts>> Quantifier() {
    if (Take("*")) return Counts{0, RegularTree::kNoBound};
    if (Take("+")) return Counts{1, RegularTree::kNoBound};
    if (Take("?")) return Counts{0, 1};
    const size_t begin = at_;
    if (!Take("{")) return std::nullopt;
    const auto min = Number();
    auto max = min;
    if (min && Take(",")) max = Number().value_or(RegularTree::kNoBound);
    if (!min || !Take("}")) {
      at_ = begin;  // a brace like any other character
      return std::nullopt;
    }
    const uint32_t most = *max == RegularTree::kNoBound ? *min : *max;
    if (*min > *max) return Fail("has a repetition with its bounds reversed");
    if (most > limits::kPatternRepeatMax)
      return Fail(fmt::format("repeats more than {} times, the most that is supported",
                              limits::kPatternRepeatMax));
    return Counts{*min, *max};
  }
  std::optional<uint32_t> Number() {
    std::optional<uint32_t> value;
    while (more() && peek() >= '0' && peek() <= '9') {
      const uint32_t digit = static_cast<uint32_t>(peek() - '0');
      // Large numbers stay large: they are refused as such.
      value = std::min<uint32_t>(value.value_or(0) * 10 + digit, 100'000'000);
      ++at_;
    }
    return value;
  }

  Result<Id> Atom(int depth) {
    switch (peek()) {
      case '(':
        return Group(depth);
      case '[': {
        ++at_;
        ASSIGN_OR_RETURN(CodePointSet set, Class());
        return tree_->Characters(std::move(set));
      }
      case '.':
        ++at_;
        return tree_->Characters(AllButLineEnds());
      case '\\': {
        ++at_;
        ASSIGN_OR_RETURN(CodePointSet set, Escape(false));
        return tree_->Characters(std::move(set));
      }
      case '*':
      case '+':
      case '?':
        return Fail(fmt::format("has a \"{}\" with nothing before it", peek()));
      case '{': {
        ASSIGN_OR_RETURN(const auto counts, Quantifier());
        if (counts) return Fail("has a \"{\" with nothing before it");
        break;
      }
      default:
        break;
    }
    const uint32_t c = TakeCharacter();
    CodePointSet set;
    set.Add(c, c);
    return tree_->Characters(std::move(set));
  }

  Result<Id> Group(int depth) {
    ++at_;
    if (Take("?")) {
      if (Take("=") || Take("!")) return Unsupported("lookahead");
      if (Take("<=") || Take("<!")) return Unsupported("lookbehind");
      if (Take("<")) {
        const size_t end = pattern_.find('>', at_);
        if (end == std::string_view::npos) return Fail("has a group whose name does not end");
        at_ = end + 1;
      } else if (!Take(":")) {
        return Unsupported("a group of the kind \"(?\" with flags");
      }
    }
    ASSIGN_OR_RETURN(const Id inside, Choice(depth + 1));
    if (!Take(")")) return Fail("has a \"(\" without \")\"");
    return inside;
  }

  // Behind '['.
  Result<CodePointSet> Class() {
    const bool negated = Take("^");
    CodePointSet set;
    for (;;) {
      if (!more()) return Fail("has a \"[\" without \"]\"");
      if (Take("]")) break;
      ASSIGN_OR_RETURN(const CodePointSet low, ClassMember());
      if (!more() || peek() != '-' || pattern_.substr(at_).starts_with("-]")) {
        set.Add(low);
        continue;
      }
      ++at_;
      if (!more()) return Fail("has a \"[\" without \"]\"");
      ASSIGN_OR_RETURN(const CodePointSet high, ClassMember());
      const auto one = [](const CodePointSet& members) {
        return members.ranges().size() == 1 &&
               members.ranges()[0].first == members.ranges()[0].second;
      };
      if (!one(low) || !one(high)) return Fail("has a range in \"[]\" that ends with a class");
      const uint32_t first = low.ranges()[0].first, last = high.ranges()[0].first;
      if (first > last) return Fail("has a range in \"[]\" with its ends reversed");
      set.Add(first, last);
    }
    return negated ? set.Complement() : set;
  }
  Result<CodePointSet> ClassMember() {
    if (Take("\\")) return Escape(true);
    const uint32_t c = TakeCharacter();
    CodePointSet set;
    set.Add(c, c);
    return set;
  }

  std::optional<uint32_t> Hex(size_t digits) {
    if (at_ + digits > pattern_.size()) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = pattern_[at_ + i];
      int digit = -1;
      if (c >= '0' && c <= '9') digit = c - '0';
      if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
      if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
      if (digit < 0) return std::nullopt;
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    at_ += digits;
    return value;
  }

  // Behind '\'.
  Result<CodePointSet> Escape(bool in_class) {
    if (!more()) return Fail("ends with \"\\\"");
    const auto single = [](uint32_t c) {
      CodePointSet set;
      set.Add(c, c);
      return set;
    };
    const uint32_t c = TakeCharacter();
    switch (c) {
      case 'd':
        return Digits();
      case 'D':
        return Digits().Complement();
      case 'w':
        return WordCharacters();
      case 'W':
        return WordCharacters().Complement();
      case 's':
        return Blanks();
      case 'S':
        return Blanks().Complement();
      case 't':
        return single('\t');
      case 'n':
        return single('\n');
      case 'v':
        return single('\v');
      case 'f':
        return single('\f');
      case 'r':
        return single('\r');
      case 'b':
        if (in_class) return single('\b');
        return Unsupported("\\b");
      case 'B':
        return Unsupported("\\B");
      case 'p':
      case 'P':
        return Unsupported("\\p{…}");
      case 'k':
        return Unsupported("a backreference");
      case '0':
        if (more() && peek() >= '0' && peek() <= '9') return Unsupported("an octal escape");
        return single(0);
      case 'c': {
        if (!more()) return Fail("ends within \"\\c\"");
        const char letter = static_cast<char>(peek() | 0x20);
        if (letter < 'a' || letter > 'z') return Fail("has a \"\\c\" without a letter");
        ++at_;
        return single(static_cast<uint32_t>(letter) & 31);
      }
      case 'x': {
        const auto value = Hex(2);
        if (!value) return Fail("has a \"\\x\" without two hexadecimal digits");
        return single(*value);
      }
      case 'u':
        return UnicodeEscape();
      default:
        break;
    }
    if (c >= '1' && c <= '9') return Unsupported(in_class ? "an octal escape" : "a backreference");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      return Unsupported(fmt::format("\\{}", static_cast<char>(c)));
    return single(c);
  }

  // Behind "\u".
  Result<CodePointSet> UnicodeEscape() {
    uint32_t value = 0;
    if (Take("{")) {
      size_t digits = 0;
      while (const auto digit = Hex(1)) {
        value = std::min<uint32_t>(value * 16 + *digit, 0x110000);
        ++digits;
      }
      if (digits == 0 || !Take("}") || value > 0x10FFFF)
        return Fail("has a \"\\u{\" that is no character");
    } else {
      const auto unit = Hex(4);
      if (!unit) return Fail("has a \"\\u\" without four hexadecimal digits");
      value = *unit;
      if (value >= 0xD800 && value <= 0xDBFF && Take("\\u")) {
        const auto low = Hex(4);
        if (!low || *low < 0xDC00 || *low > 0xDFFF) return Fail("has half of a surrogate pair");
        value = 0x10000 + ((value - 0xD800) << 10) + (*low - 0xDC00);
      }
    }
    if (value >= 0xD800 && value <= 0xDFFF) return Fail("has half of a surrogate pair");
    CodePointSet set;
    set.Add(value, value);
    return set;
  }

  std::string_view pattern_;
  Where where_;
  RegularTree* tree_;
  size_t at_ = 0;
};

// Whatever it matches has one beginning, first of all, and one end, behind all else.
bool IsBetweenEnds(const Automaton& automaton) {
  for (size_t i = 0; i < automaton.states(); ++i) {
    const auto state = static_cast<uint16_t>(i);
    const ByteSet& live = automaton.Live(state);
    const bool begins = state == Automaton::kStart;
    if (begins != live.Has(kEnds.begin) || (begins && live.size() > 1)) return false;
    if (automaton.Accepts(state) && !live.empty()) return false;
    for (int byte = 0; byte < 256; ++byte) {
      const uint16_t to = automaton.Next(state, static_cast<uint8_t>(byte));
      if (to != Automaton::kDead && automaton.Accepts(to) != (byte == kEnds.end)) return false;
    }
  }
  return true;
}

// Texts between kEnds in which `pattern` matches.
Result<AutomatonPtr> CompileBetweenEnds(std::string_view pattern, Where where, Spelling spelling,
                                        AutomatonBudget* budget) {
  RegularTree tree;
  PatternParser parser(pattern, where, &tree);
  ASSIGN_OR_RETURN(const Id all, parser.Run());
  ASSIGN_OR_RETURN(const AutomatonPtr found, tree.Compile(all, spelling, budget));
  // "a^" or "$a" would have the ends elsewhere; few patterns are so.
  if (IsBetweenEnds(*found)) return found;
  const Id text =
      tree.Sequence({tree.Byte(kEnds.begin),
                     tree.Repeat(tree.Characters(CodePointSet::All()), 0, RegularTree::kNoBound),
                     tree.Byte(kEnds.end)});
  ASSIGN_OR_RETURN(const AutomatonPtr texts, tree.Compile(text, spelling, budget));
  return Intersect(*found, *texts, budget);
}

template <class Change>
Result<AutomatonPtr> CompileAndChange(std::string_view pattern, Where where, Spelling spelling,
                                      AutomatonBudget* budget, Change change) {
  {
    // The parser's errors name the pattern themselves.
    RegularTree tree;
    RETURN_IF_ERROR(PatternParser(pattern, where, &tree).Run());
  }
  const auto name = [&](const Error& error) {
    return Err(error.code, fmt::format("pattern \"{}\" is {}", Brief(std::string(pattern), 100),
                                       error.message));
  };
  const auto between = CompileBetweenEnds(pattern, where, spelling, budget);
  if (!between) return name(between.error());
  if ((*between)->empty()) return *between;
  auto changed = Automaton::Make(change(**between), budget);
  if (!changed) return name(changed.error());
  return changed;
}

}  // namespace

Result<AutomatonPtr> CompilePatternInJson(std::string_view pattern, AutomatonBudget* budget) {
  return CompileAndChange(
      pattern, Where::kAnywhere, Spelling::kJson, budget, [](const Automaton& from) {
        // The ends become quotes. Another quote stands only behind a backslash, where no text ends.
        AutomatonRows rows;
        for (size_t i = 0; i < from.states(); ++i) {
          const auto state = static_cast<uint16_t>(i);
          rows.Add(from.Accepts(state));
          for (int byte = 0; byte < kEnds.begin; ++byte)
            rows.next[i][static_cast<size_t>(byte)] = from.Next(state, static_cast<uint8_t>(byte));
          for (const uint8_t end : {kEnds.begin, kEnds.end})
            if (from.Live(state).Has(end)) rows.next[i]['"'] = from.Next(state, end);
        }
        return rows;
      });
}

Result<AutomatonPtr> CompilePattern(std::string_view pattern, AutomatonBudget* budget) {
  return CompileAndChange(
      pattern, Where::kWhole, Spelling::kUtf8, budget, [](const Automaton& from) {
        // The start is the state behind the beginning, which changes places with the first.
        const uint16_t start = from.Next(Automaton::kStart, kEnds.begin);
        const auto renamed = [start](uint16_t state) {
          return state == start ? Automaton::kStart : state == Automaton::kStart ? start : state;
        };
        AutomatonRows rows;
        for (size_t i = 0; i < from.states(); ++i) {
          const uint16_t state = renamed(static_cast<uint16_t>(i));
          rows.Add(from.Live(state).Has(kEnds.end));
          for (int byte = 0; byte < kEnds.begin; ++byte) {
            const uint16_t to = from.Next(state, static_cast<uint8_t>(byte));
            if (to != Automaton::kDead) rows.next[i][static_cast<size_t>(byte)] = renamed(to);
          }
        }
        return rows;
      });
}

}  // namespace perdure::text
