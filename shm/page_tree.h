// The tree whose paths are the chains of a store: which page stands for which tokens after which
// page. Pure bookkeeping over nodes that somebody else keeps.
//
// Exact lookup takes constant time, the nearest one and changes the logarithm of the number of
// pages; forks and marks change their ancestors' counts. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/token.h"
#include "shm/page_key.h"
#include "shm/page_memory.h"

namespace perdure::shm {

struct TreeNode {
  PageIndex parent = kNoPage;
  uint32_t position = 0;  // pages before it
  PageKey key;
  uint32_t count =
      0;  // of tokens; less than kArenaPageTokens: a partial page, which has no children
  uint64_t chain_hash = 0;
  std::array<TokenId, kArenaPageTokens> tokens{};

  uint32_t children = 0;
  uint32_t partial_children = 0;
  uint32_t ends = 1;       // pages at or below it that have no child or are marked
  bool is_marked = false;  // where somebody goes on from, whether others follow or not

  std::span<const TokenId> Tokens() const { return std::span(tokens).first(count); }
};

class PageTree {
 public:
  // Gives the node of a page.
  class Nodes {
   public:
    virtual ~Nodes() = default;
    virtual TreeNode& node(PageIndex page) = 0;
    virtual const TreeNode& node(PageIndex page) const = 0;
  };
  // `nodes` outlives the tree.
  PageTree(Nodes* nodes, uint64_t root);

  // Sets position and chain hash from what precedes and is in the node; then it is found. Its
  // parent is linked, and no page with the same parent, key and tokens is.
  void Link(PageIndex page);
  // Of a page without children.
  void Unlink(PageIndex page);
  void SetMarked(PageIndex page, bool is_marked);

  // The page with exactly these tokens.
  std::optional<PageIndex> Find(PageIndex parent, const PageKey& key,
                                std::span<const TokenId> tokens) const;
  uint64_t ChainHashAfter(PageIndex parent, const PageKey& key,
                          std::span<const TokenId> tokens) const;

  struct Match {
    PageIndex page = kNoPage;
    uint32_t tokens = 0;  // leading ones that agree
  };
  // Of the pages of this parent and key that are usable the one that agrees with the most leading
  // tokens, at least one; looks at kNeighboursMax pages at most.
  std::optional<Match> Nearest(PageIndex parent, const PageKey& key,
                               std::span<const TokenId> tokens,
                               const std::function<bool(PageIndex)>& is_usable) const;

  // Whether a page of the same parent begins with all of this page's tokens and has more.
  bool IsContinued(PageIndex page) const;
  // Partial pages whose tokens are a beginning of this page's.
  std::vector<PageIndex> Beginnings(PageIndex page) const;

 private:
  struct Probe {
    PageIndex parent;
    const PageKey& key;
    std::span<const TokenId> tokens;
  };
  struct Order {
    using is_transparent = void;
    const Nodes* nodes;
    Probe Of(PageIndex page) const;
    static bool Less(const Probe& a, const Probe& b);
    bool operator()(PageIndex a, PageIndex b) const { return Less(Of(a), Of(b)); }
    bool operator()(PageIndex a, const Probe& b) const { return Less(Of(a), b); }
    bool operator()(const Probe& a, PageIndex b) const { return Less(a, Of(b)); }
  };

  void AddEnds(PageIndex page, int count);

  Nodes* const nodes_;
  const uint64_t root_;
  uint32_t root_partials_ = 0;
  std::unordered_multimap<uint64_t, PageIndex> by_hash_;
  std::set<PageIndex, Order> in_order_;
};

}  // namespace perdure::shm
