// Regular expressions as trees, and the automata that match them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/grammar/automaton.h"
#include "text/grammar/byte_set.h"
#include "text/grammar/code_point_set.h"

namespace perdure::text {

// How a set of characters is spelled in bytes.
enum class Spelling {
  kUtf8,
  // As it stands inside a JSON string, in one way only: escaped is what must be, with the short
  // escapes and \u00xx. So sets of texts and sets of their spellings have the same members.
  kJson,
};

// Nodes that refer to each other; a node may be used in many places. Beyond its bound the tree
// takes no more nodes, and Compile says so.
class RegularTree {
 public:
  using Id = uint32_t;
  static constexpr uint32_t kNoBound = 0xFFFFFFFF;

  Id Empty();
  Id Never();
  Id Bytes(ByteSet set);
  Id Byte(uint8_t byte);
  Id ByteRange(uint8_t first, uint8_t last);
  Id Literal(std::string_view bytes);
  Id Characters(CodePointSet set);  // exactly one
  Id Sequence(std::vector<Id> parts);
  Id Choice(std::vector<Id> parts);
  Id Repeat(Id part, uint32_t min, uint32_t max);  // max may be kNoBound
  Id Optional(Id part) { return Repeat(part, 0, 1); }

  // What `root` matches, as a whole.
  Result<AutomatonPtr> Compile(Id root, Spelling spelling, AutomatonBudget* budget) const;

 private:
  friend class NfaMaker;
  enum class Kind { kEmpty, kNever, kBytes, kCharacters, kSequence, kChoice, kRepeat };
  struct Node {
    Kind kind;
    uint32_t first = 0;  // index of the set, or of the first part
    uint32_t count = 0;  // of parts
    uint32_t min = 0, max = 0;
  };
  Id Add(Node node);
  Id AddParts(Kind kind, const std::vector<Id>& parts);

  std::vector<Node> nodes_;
  std::vector<Id> parts_;
  std::vector<ByteSet> byte_sets_;
  std::vector<CodePointSet> character_sets_;
  bool full_ = false;
};

}  // namespace perdure::text
