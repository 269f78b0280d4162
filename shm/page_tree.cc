#include "shm/page_tree.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/common_tokens.h"
#include "base/limits.h"
#include "shm/hashes.h"

namespace perdure::shm {

PageTree::PageTree(Nodes* nodes, uint64_t root)
    : nodes_(nodes), root_(root), in_order_(Order{nodes}) {}

PageTree::Probe PageTree::Order::Of(PageIndex page) const {
  const TreeNode& node = nodes->node(page);
  return {node.parent, node.key, node.Tokens()};
}

bool PageTree::Order::Less(const Probe& a, const Probe& b) {
  if (a.parent != b.parent) return a.parent < b.parent;
  if (a.key != b.key) return a.key < b.key;
  return std::ranges::lexicographical_compare(a.tokens, b.tokens);
}

uint64_t PageTree::ChainHashAfter(PageIndex parent, const PageKey& key,
                                  std::span<const TokenId> tokens) const {
  return ChainHash(parent == kNoPage ? root_ : nodes_->node(parent).chain_hash, key,
                   TokensHash(tokens));
}

void PageTree::Link(PageIndex page) {
  TreeNode& node = nodes_->node(page);
  node.position = node.parent == kNoPage ? 0 : nodes_->node(node.parent).position + 1;
  node.chain_hash = ChainHashAfter(node.parent, node.key, node.Tokens());
  node.children = node.partial_children = 0;
  node.ends = 1;
  node.is_marked = false;
  by_hash_.emplace(node.chain_hash, page);
  CHECK(in_order_.insert(page).second);
  const bool is_partial = node.count < kArenaPageTokens;
  if (node.parent == kNoPage) {
    root_partials_ += is_partial;
    return;
  }
  TreeNode& parent = nodes_->node(node.parent);
  CHECK(parent.count == kArenaPageTokens);
  ++parent.children;
  parent.partial_children += is_partial;
  // The first child of an end is the end in its place.
  if (parent.children > 1 || parent.is_marked) AddEnds(node.parent, 1);
}

void PageTree::Unlink(PageIndex page) {
  TreeNode& node = nodes_->node(page);
  CHECK(node.children == 0);
  const auto [begin, end] = by_hash_.equal_range(node.chain_hash);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == page; }));
  CHECK(in_order_.erase(page) == 1);
  const bool is_partial = node.count < kArenaPageTokens;
  if (node.parent == kNoPage) {
    root_partials_ -= is_partial;
    return;
  }
  TreeNode& parent = nodes_->node(node.parent);
  --parent.children;
  parent.partial_children -= is_partial;
  if (parent.children > 0 || parent.is_marked) AddEnds(node.parent, -1);
}

void PageTree::SetMarked(PageIndex page, bool is_marked) {
  TreeNode& node = nodes_->node(page);
  if (std::exchange(node.is_marked, is_marked) != is_marked && node.children > 0)
    AddEnds(page, is_marked ? 1 : -1);
}

// To this page, and to all before it.
void PageTree::AddEnds(PageIndex page, int count) {
  for (; page != kNoPage; page = nodes_->node(page).parent)
    nodes_->node(page).ends += static_cast<uint32_t>(count);
}

std::optional<PageIndex> PageTree::Find(PageIndex parent, const PageKey& key,
                                        std::span<const TokenId> tokens) const {
  const auto [begin, end] = by_hash_.equal_range(ChainHashAfter(parent, key, tokens));
  for (auto it = begin; it != end; ++it) {
    const TreeNode& node = nodes_->node(it->second);
    if (node.parent == parent && node.key == key && std::ranges::equal(tokens, node.Tokens()))
      return it->second;
  }
  return std::nullopt;
}

std::optional<PageTree::Match> PageTree::Nearest(
    PageIndex parent, const PageKey& key, std::span<const TokenId> tokens,
    const std::function<bool(PageIndex)>& is_usable) const {
  const auto match_at = [&](auto it) -> Match {
    const TreeNode& node = nodes_->node(*it);
    if (node.parent != parent || node.key != key) return {};
    return {*it, static_cast<uint32_t>(CommonTokens(node.Tokens(), tokens))};
  };
  auto after = in_order_.lower_bound(Probe{parent, key, tokens});
  auto before = after;
  for (int looked = 0; looked < limits::kNeighboursMax; ++looked) {
    const Match next = after == in_order_.end() ? Match{} : match_at(after);
    const Match previous = before == in_order_.begin() ? Match{} : match_at(std::prev(before));
    if (next.tokens == 0 && previous.tokens == 0) break;
    const Match& nearer = next.tokens >= previous.tokens ? next : previous;
    if (is_usable(nearer.page)) return nearer;
    if (next.tokens >= previous.tokens)
      ++after;
    else
      --before;
  }
  return std::nullopt;
}

bool PageTree::IsContinued(PageIndex page) const {
  const auto next = std::next(in_order_.find(page));
  if (next == in_order_.end()) return false;
  const TreeNode &node = nodes_->node(page), &other = nodes_->node(*next);
  return other.parent == node.parent && other.key == node.key && other.count > node.count &&
         CommonTokens(node.Tokens(), other.Tokens()) == node.count;
}

std::vector<PageIndex> PageTree::Beginnings(PageIndex page) const {
  std::vector<PageIndex> found;
  const TreeNode& node = nodes_->node(page);
  if ((node.parent == kNoPage ? root_partials_ : nodes_->node(node.parent).partial_children) == 0)
    return found;
  for (uint32_t count = 1; count < node.count; ++count)
    if (const auto shorter = Find(node.parent, node.key, node.Tokens().first(count)))
      found.push_back(*shorter);
  return found;
}

}  // namespace perdure::shm
