// The arena's costs beside the memory's speed: sealing and verifying pages, attaching to what a
// predecessor has left.
//
//   arena_bench [PAGE_MIB [PAGES]]     (3.5 MiB: Qwen3-0.6B; 256 pages)
#include <fmt/format.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "shm/arena.h"
#include "shm/page_store.h"

namespace {

using perdure::TokenId;
using perdure::UniqueFd;
using perdure::shm::Arena;
using perdure::shm::ArenaSpec;
using perdure::shm::kArenaPageTokens;
using perdure::shm::kNoPage;
using perdure::shm::PageIndex;
using perdure::shm::PageStore;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::unique_ptr<Arena> Attach(const UniqueFd& fd, const ArenaSpec& spec) {
  auto arena = Arena::Attach(fd.get(), spec);
  if (arena) return std::move(*arena);
  fmt::print(stderr, "{}\n", arena.error().message);
  std::exit(1);
}

std::vector<TokenId> Tokens(PageIndex pages) {
  std::vector<TokenId> tokens(size_t{pages} * kArenaPageTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * 7919 % 151'936);
  return tokens;
}

std::span<const TokenId> PageTokens(const std::vector<TokenId>& tokens, PageIndex page) {
  return std::span(tokens).subspan(size_t{page} * kArenaPageTokens, kArenaPageTokens);
}

void Rate(const char* what, double seconds, double bytes, double bound) {
  fmt::print("{:<34}{:8.1f} ms {:8.2f} GB/s  {:5.2f} of reading\n", what, seconds * 1e3,
             bytes / seconds / 1e9, bytes / seconds / bound);
}

void SealAndVerify(uint64_t page_bytes, PageIndex pages) {
  const UniqueFd fd(memfd_create("bench", MFD_CLOEXEC));
  const ArenaSpec spec{
      .fingerprint = 1, .numerics = 1, .shape = {{{page_bytes}}, pages, 0}, .pages_budget = pages};
  const std::vector<TokenId> tokens = Tokens(pages);
  const double bytes = static_cast<double>(page_bytes) * pages;
  double read = 0;
  {
    PageStore store(Attach(fd, spec), pages);
    std::vector<PageIndex> open;
    double begin = Now();
    for (PageIndex i = 0; i < pages; ++i) {
      const auto page = store.Allocate();
      if (!page) {
        fmt::print(stderr, "not enough memory for {} pages\n", pages);
        std::exit(1);
      }
      std::memset(store.address(*page), static_cast<int>(i), page_bytes);
      open.push_back(*page);
    }
    const double fill = Now() - begin;
    // To compare with: every byte read once, by a plain loop.
    uint64_t sum = 0;
    begin = Now();
    for (const PageIndex page : open) {
      const auto* words = reinterpret_cast<const uint64_t*>(store.address(page));
      uint64_t sums[8] = {};
      for (size_t i = 0; i + 8 <= page_bytes / 8; i += 8)
        for (size_t lane = 0; lane < 8; ++lane) sums[lane] ^= words[i + lane];
      for (const uint64_t lane : sums) sum ^= lane;
    }
    const double reading = Now() - begin;
    read = bytes / reading;
    fmt::print("{} pages of {:.1f} MiB{}\n", pages, static_cast<double>(page_bytes) / (1 << 20),
               sum == 42 ? " " : "");
    Rate("allocate and fill for the first time", fill, bytes, read);
    Rate("read", reading, bytes, read);
    begin = Now();
    PageIndex parent = kNoPage;
    for (PageIndex i = 0; i < pages; ++i)
      parent = store.Seal(open[i], parent, {}, PageTokens(tokens, i));
    Rate("seal", Now() - begin, bytes, read);
  }
  double begin = Now();
  PageStore store(Attach(fd, spec), pages);
  fmt::print("{:<34}{:8.1f} ms\n", "attach", (Now() - begin) * 1e3);
  begin = Now();
  const auto acquire = [&] {
    auto path = store.FindPath(tokens, [](size_t) { return perdure::shm::PageKey(); });
    for (const PageIndex page : path)
      if (!store.Acquire(page)) std::exit(1);
    return path;
  };
  const auto chain = acquire();
  Rate("acquire, mapping and verifying", Now() - begin, bytes, read);
  for (const PageIndex page : chain) store.Release(page);
  begin = Now();
  const size_t again = acquire().size();
  fmt::print("{:<34}{:8.3f} ms\n", "acquire again", (Now() - begin) * 1e3);
  if (again != pages) std::exit(1);
}

void AttachMany(PageIndex pages) {
  const UniqueFd fd(memfd_create("bench", MFD_CLOEXEC));
  const ArenaSpec spec{
      .fingerprint = 1, .numerics = 1, .shape = {{{4096}}, pages, 0}, .pages_budget = pages};
  const std::vector<TokenId> tokens = Tokens(pages);
  {
    PageStore store(Attach(fd, spec), pages);
    PageIndex parent = kNoPage;
    for (PageIndex i = 0; i < pages; ++i)
      // Chains of 64 pages: 2,048 tokens.
      parent =
          store.Seal(*store.Allocate(), i % 64 == 0 ? kNoPage : parent,
                     {.format = perdure::shm::PageFormat::kFloat16, .owner = i / 64, .mask = 0},
                     PageTokens(tokens, i));
  }
  const double begin = Now();
  PageStore store(Attach(fd, spec), pages);
  fmt::print("attach to {} sealed pages{:>13.1f} ms\n", store.recovery().kept,
             (Now() - begin) * 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  const double page_mib = argc > 1 ? std::atof(argv[1]) : 3.5;
  const int pages = argc > 2 ? std::atoi(argv[2]) : 256;
  if (page_mib <= 0 || page_mib > 1024 || pages <= 0 || pages > 1'000'000) {
    fmt::print(stderr, "usage: arena_bench [PAGE_MIB [PAGES]]\n");
    return 1;
  }
  SealAndVerify(static_cast<uint64_t>(page_mib * (1 << 20)) / 64 * 64,
                static_cast<PageIndex>(pages));
  AttachMany(10'000);
}
