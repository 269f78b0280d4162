// Finding a prompt's beginning among many cached pages, what it is worth in memory that
// conversations with one system prompt share its pages, and how long those wait who come while all
// pages are looked at.
//
//   prefix_bench [PAGES [SAMPLES]]     (100,000 pages, 2,000 samples of each case)
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "shm/page_store.h"
#include "worker/cache_facts.h"
#include "worker/conversations.h"

namespace perdure::bench {
namespace {

using shm::kArenaPageTokens;
using shm::kNoPage;
using shm::PageIndex;
using shm::PageKey;
using shm::PageStore;
using Tokens = std::vector<TokenId>;

// What lies in a page is of no interest here: as small as the system's own pages.
constexpr uint64_t kPageBytes = 4096;
constexpr size_t kPromptTokens = 8'192;
constexpr size_t kPromptPages = kPromptTokens / kArenaPageTokens;
constexpr TokenId kVocab = 151'936;

template <class T>
T Must(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "prefix_bench: {}\n", result.error().message);
  std::exit(1);
}

std::unique_ptr<PageStore> MakeStore(size_t pages, uint32_t conversations = 0) {
  const auto budget = static_cast<PageIndex>(pages);
  const auto geometry = Must(shm::ArenaGeometry::For(
      {.page_bytes = {{kPageBytes}}, .pages_max = budget, .conversations_max = conversations}));
  return std::make_unique<PageStore>(Must(shm::MakePrivateMemory(geometry)), budget);
}

class Random {
 public:
  TokenId Token() { return static_cast<TokenId>(Below(kVocab)); }
  Tokens Sequence(size_t count) {
    Tokens tokens(count);
    for (TokenId& token : tokens) token = Token();
    return tokens;
  }
  size_t Below(size_t bound) { return numbers_() % bound; }

 private:
  std::mt19937_64 numbers_{1};
};

// As a conversation does: what is cached is used, the rest computed and sealed. All stay
// referenced; the pages of the whole chain.
std::vector<PageIndex> Hold(PageStore& store, std::span<const TokenId> tokens, uint64_t owner) {
  const PageKey key{.owner = owner};
  std::vector<PageIndex> chain = store.FindPath(tokens, [&](size_t) { return key; });
  for (const PageIndex page : chain)
    if (!store.Acquire(page)) std::exit(1);
  while (chain.size() * kArenaPageTokens < tokens.size()) {
    const auto page = store.Allocate();
    if (!page) {
      fmt::print(stderr, "prefix_bench: no more pages\n");
      std::exit(1);
    }
    const auto rest = tokens.subspan(chain.size() * kArenaPageTokens);
    const PageIndex parent = chain.empty() ? kNoPage : chain.back();
    chain.push_back(store.Seal(*page, parent, key,
                               rest.first(std::min<size_t>(rest.size(), kArenaPageTokens))));
  }
  return chain;
}

double NowUs() {
  return std::chrono::duration<double, std::micro>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Sorts them.
double Quantile(std::vector<double>& values_us, double share) {
  std::ranges::sort(values_us);
  return values_us[static_cast<size_t>(share * static_cast<double>(values_us.size() - 1))];
}

void Lookup(size_t pages, int samples) {
  const auto store = MakeStore(pages);
  Random random;
  std::vector<Tokens> conversations;
  while (store->cached() + kPromptPages <= pages) {
    conversations.push_back(random.Sequence(kPromptTokens));
    for (const PageIndex page : Hold(*store, conversations.back(), 0)) store->Release(page);
  }
  while (store->cached() < pages)
    for (const PageIndex page : Hold(*store, random.Sequence(kArenaPageTokens), 0))
      store->Release(page);

  struct Case {
    const char* name;
    size_t cached;  // tokens
    std::vector<double> find_us = {}, acquire_us = {};
  };
  Case cases[] = {{"in full", kPromptTokens}, {"one half", kPromptTokens / 2}, {"not at all", 0}};
  size_t fragments = 0;
  for (int sample = 0; sample < samples; ++sample) {
    for (Case& c : cases) {
      Tokens prompt = random.Sequence(kPromptTokens);
      const Tokens& known = conversations[random.Below(conversations.size())];
      std::copy_n(known.begin(), c.cached, prompt.begin());
      const double begin = NowUs();
      const auto path = store->FindPath(prompt, [](size_t) { return PageKey(); });
      // And of the page after these what agrees with most of the rest.
      const auto rest = std::span<const TokenId>(prompt).subspan(path.size() * kArenaPageTokens);
      if (!rest.empty() && store->FindFragment(path.empty() ? kNoPage : path.back(), {}, rest))
        ++fragments;
      c.find_us.push_back(NowUs() - begin);
      if (path.size() != c.cached / kArenaPageTokens) std::exit(1);
      for (const PageIndex page : path)
        if (!store->Acquire(page)) std::exit(1);
      c.acquire_us.push_back(NowUs() - begin);
      for (const PageIndex page : path) store->Release(page);
    }
  }
  fmt::print("a prompt of {} tokens among {} sealed pages, {} samples of each, {} fragments\n",
             kPromptTokens, store->cached(), samples, fragments);
  fmt::print("{:<12}{:>12}{:>10}{:>26}{:>10}\n", "cached", "found, us", "p99", "and referenced, us",
             "p99");
  for (Case& c : cases)
    fmt::print("{:<12}{:>12.1f}{:>10.1f}{:>26.1f}{:>10.1f}\n", c.name, Quantile(c.find_us, 0.5),
               Quantile(c.find_us, 0.99), Quantile(c.acquire_us, 0.5),
               Quantile(c.acquire_us, 0.99));
}

void Sharing() {
  constexpr size_t kConversations = 1'000, kSystem = 2'048, kOwn = 128;
  constexpr size_t kPages = kConversations * (kSystem + kOwn) / kArenaPageTokens;
  uint64_t held[2], granted[2];
  for (const bool is_shared : {true, false}) {
    const auto store = MakeStore(kPages);
    Random random;
    const Tokens system = random.Sequence(kSystem);
    for (size_t i = 0; i < kConversations; ++i) {
      Tokens tokens = system;
      const Tokens own = random.Sequence(kOwn);
      tokens.insert(tokens.end(), own.begin(), own.end());
      // Pages that have an owner are found by nobody else.
      Hold(*store, tokens, is_shared ? 0 : i + 1);
    }
    held[is_shared] = store->held_bytes();
    granted[is_shared] = store->bytes_granted();
  }
  const auto row = [](const char* what, const uint64_t bytes[2]) {
    fmt::print("{:<24}{:>12} shared{:>14} apart{:>8.2f} times\n", what, bytes[1] / kPageBytes,
               bytes[0] / kPageBytes,
               static_cast<double>(bytes[0]) / static_cast<double>(bytes[1]));
  };
  fmt::print("\n{} conversations of {} tokens, the first {} of them the same; in pages\n",
             kConversations, kSystem + kOwn, kSystem);
  row("held", held);
  row("granted by the system", granted);
}

// What `stats` and `clear` do between two steps.
void Operations(size_t pages) {
  constexpr uint32_t kConversations = 1'000;
  constexpr int kRuns = 9;
  std::vector<double> stats_us, clear_us;
  for (int run = 0; run < kRuns; ++run) {
    const auto store = MakeStore(pages, kConversations);
    Random random;
    worker::ConversationTable table({}, store.get(), nullptr, [] { return int64_t{0}; });
    for (uint32_t i = 0; i < kConversations; ++i) {
      worker::Turn turn;
      turn.owner = 1;
      turn.new_id = fmt::format("{}", i);
      turn.ids = random.Sequence(pages / kConversations * kArenaPageTokens);
      turn.drawn.resize(turn.ids.size());
      const std::vector<PageIndex> chain = Hold(*store, turn.ids, turn.owner);
      turn.tail = chain.back();
      table.Commit(std::move(turn));
      for (const PageIndex page : chain) store->Release(page);
    }
    double begin = NowUs();
    const worker::CacheFacts facts = worker::TakeFacts(*store, table, {});
    stats_us.push_back(NowUs() - begin);
    begin = NowUs();
    if (table.Clear() != facts.conversations) std::exit(1);
    store->DropUnneeded();
    store->ReleaseUnused();
    clear_us.push_back(NowUs() - begin);
    if (store->cached() != 0) std::exit(1);
  }
  fmt::print("\n{} conversations in {} pages, median of {}: stats {:.1f} ms, clear {:.1f} ms\n",
             kConversations, pages, kRuns, Quantile(stats_us, 0.5) / 1000,
             Quantile(clear_us, 0.5) / 1000);
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) {
  const int pages = argc > 1 ? std::atoi(argv[1]) : 100'000;
  const int samples = argc > 2 ? std::atoi(argv[2]) : 2'000;
  if (pages < static_cast<int>(perdure::bench::kPromptPages) || pages > 1'000'000 || samples < 1) {
    fmt::print(stderr, "usage: prefix_bench [PAGES [SAMPLES]]\n");
    return 1;
  }
  perdure::bench::Lookup(static_cast<size_t>(pages), samples);
  perdure::bench::Sharing();
  perdure::bench::Operations(static_cast<size_t>(pages));
}
