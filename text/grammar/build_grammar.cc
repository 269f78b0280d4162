// The last step of a builder: what nothing can match is taken out, and what would never end is
// refused.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/limits.h"
#include "text/grammar/grammar.h"

namespace perdure::text {
namespace {

using Kind = Grammar::Kind;
using Node = Grammar::Node;

// Which nodes each node is part of.
class Users {
 public:
  explicit Users(const Grammar& grammar) : begin_(grammar.nodes().size() + 1, 0) {
    ForEachPart(grammar, [&](uint32_t, uint32_t part) { ++begin_[part]; });
    uint32_t sum = 0;
    for (uint32_t& begin : begin_) sum = begin += sum;
    users_.resize(sum);
    ForEachPart(grammar, [&](uint32_t node, uint32_t part) { users_[--begin_[part]] = node; });
  }
  template <class Visit>
  void ForEach(uint32_t node, Visit visit) const {
    for (uint32_t i = begin_[node]; i < begin_[node + 1]; ++i) visit(users_[i]);
  }

 private:
  template <class Visit>
  static void ForEachPart(const Grammar& grammar, Visit visit) {
    for (uint32_t id = 0; id < grammar.nodes().size(); ++id) {
      const Node& node = grammar.nodes()[id];
      if (node.kind == Kind::kRepeat || node.kind == Kind::kRule) visit(id, node.first);
      if (node.kind == Kind::kSequence || node.kind == Kind::kChoice)
        for (uint32_t i = 0; i < node.count; ++i) visit(id, grammar.parts()[node.first + i]);
    }
  }
  std::vector<uint32_t> begin_;
  std::vector<uint32_t> users_;
};

// The least set of nodes that `holds` finds true, given those found so far.
template <class Holds>
std::vector<bool> LeastSet(const Grammar& grammar, Holds holds) {
  const Users users(grammar);
  std::vector<bool> set(grammar.nodes().size(), false);
  std::vector<uint32_t> open;
  const auto look = [&](uint32_t id) {
    if (set[id] || !holds(grammar.nodes()[id], set)) return;
    set[id] = true;
    open.push_back(id);
  };
  for (uint32_t id = 0; id < set.size(); ++id) look(id);
  while (!open.empty()) {
    const uint32_t id = open.back();
    open.pop_back();
    users.ForEach(id, look);
  }
  return set;
}

// Nodes that can be matched by such leaves, and nothing, alone.
template <class IsLeaf>
std::vector<bool> NodesMadeOf(const Grammar& grammar, IsLeaf is_leaf) {
  return LeastSet(grammar, [&](const Node& node, const std::vector<bool>& set) {
    const auto is_in = [&](uint32_t part) { return set[part]; };
    const auto begin = grammar.parts().begin() + node.first;
    switch (node.kind) {
      case Kind::kEmpty:
        return true;
      case Kind::kLeaf:
        return is_leaf(node);
      case Kind::kSequence:
        return std::all_of(begin, begin + node.count, is_in);
      case Kind::kChoice:
        return std::any_of(begin, begin + node.count, is_in);
      case Kind::kRepeat:
        return node.min == 0 || set[node.first];
      case Kind::kRule:
        return static_cast<bool>(set[node.first]);
    }
    return false;
  });
}

Error Invalid(std::string message) {
  return {ErrorCode::invalid_request, std::move(message), "", 0};
}

}  // namespace

std::vector<bool> GrammarBuilder::FindProductive() const {
  return NodesMadeOf(*grammar_, [](const Node&) { return true; });
}

std::vector<bool> GrammarBuilder::FindNullable() const {
  return NodesMadeOf(*grammar_, [this](const Node& leaf) {
    return grammar_->automata()[leaf.first]->Accepts(Automaton::kStart);
  });
}

// No node may come back to itself before a byte is read, or begin in too many ways.
Status GrammarBuilder::CheckBeginnings(const std::vector<bool>& nullable) const {
  const Grammar& g = *grammar_;
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<uint8_t> state(g.nodes_.size(), kNew);
  std::vector<uint32_t> ways(g.nodes_.size(), 0);  // leaves that a node may begin with
  struct Visit {
    uint32_t node;
    uint32_t next;  // part
  };
  for (uint32_t start = 0; start < g.nodes_.size(); ++start) {
    if (state[start] != kNew) continue;
    std::vector<Visit> stack = {{start, 0}};
    state[start] = kOpen;
    while (!stack.empty()) {
      Visit& visit = stack.back();
      const Node& node = g.nodes_[visit.node];
      uint32_t part = visit.node;
      if (node.kind == Kind::kRepeat || node.kind == Kind::kRule) {
        if (visit.next == 0) part = node.first;
      } else if (node.kind == Kind::kChoice || node.kind == Kind::kSequence) {
        const bool reached = node.kind == Kind::kChoice || visit.next == 0 ||
                             nullable[g.parts_[node.first + visit.next - 1]];
        if (visit.next < node.count && reached) part = g.parts_[node.first + visit.next];
      }
      if (part == visit.node) {
        const uint32_t own = ways[visit.node] + (node.kind == Kind::kLeaf ? 1 : 0);
        if (own > limits::kGrammarBeginningsMax)
          return Err(Invalid(fmt::format("offers more than {} alternatives in one place",
                                         limits::kGrammarBeginningsMax)));
        ways[visit.node] = own;
        state[visit.node] = kDone;
        stack.pop_back();
        if (!stack.empty()) ways[stack.back().node] += own;
        continue;
      }
      ++visit.next;
      if (state[part] == kOpen)
        return Err(Invalid("refers to itself without anything between, so it never begins"));
      if (state[part] == kDone) {
        // Below 2^32: both are bounded.
        ways[visit.node] =
            std::min(ways[visit.node] + ways[part], limits::kGrammarBeginningsMax + 1);
      } else {
        state[part] = kOpen;
        stack.push_back({part, 0});
      }
    }
  }
  return {};
}

Result<GrammarPtr> GrammarBuilder::Build(Expression root) {
  RETURN_IF_ERROR(status_);
  Grammar& g = *grammar_;
  g.root_ = root.node;
  const std::vector<bool> productive = FindProductive();
  if (!productive[root.node])
    return Err(Invalid("can never be satisfied: there is nothing that it allows"));
  // What cannot be matched is left out of choices; a repetition of it becomes nothing.
  for (uint32_t id = 0; id < g.nodes_.size(); ++id) {
    Node& node = g.nodes_[id];
    if (!productive[id]) {
      node = {};  // in no place that can be reached
    } else if (node.kind == Kind::kChoice) {
      uint32_t kept = 0;
      for (uint32_t i = 0; i < node.count; ++i) {
        const uint32_t part = g.parts_[node.first + i];
        if (productive[part]) g.parts_[node.first + kept++] = part;
      }
      node.count = kept;
    } else if (node.kind == Kind::kRepeat && !productive[node.first]) {
      node = {};
    }
  }
  const std::vector<bool> nullable = FindNullable();
  for (const Node& node : g.nodes_)
    if (node.kind == Kind::kRepeat && nullable[node.first])
      return Err(Invalid("repeats a part that can be empty"));
  RETURN_IF_ERROR(CheckBeginnings(nullable));
  return GrammarPtr(std::move(grammar_));
}

}  // namespace perdure::text
