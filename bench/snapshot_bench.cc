// What conversations on disk cost and give: reading a prompt's pages back beside this machine's
// speed of copying, their size, and how long a turn's commit takes, also while pages are written
// and while a backup is made.
//
//   snapshot_bench [FOLDER [PAGE_BYTES]]     (a temporary folder; pages of Qwen3-0.6B in 16 bits)
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "shm/hashes.h"
#include "snapshot/backup_stream.h"
#include "snapshot/copy_file.h"
#include "worker/disk_persistence.h"

namespace perdure::bench {
namespace {

namespace fs = std::filesystem;
using snapshot::StoredPage;
using worker::DiskPersistence;

constexpr size_t kPageTokens = shm::kArenaPageTokens;
constexpr size_t kTokensMax = 8'192;
// 28 layers of keys and values, 8 heads of 128, 16 bits.
constexpr uint32_t kPageBytes = 28 * 2 * 8 * 128 * 2 * kPageTokens;
constexpr int kRuns = 5;

double NowMs() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Sorts them.
double Quantile(std::vector<double>* values, double share) {
  std::ranges::sort(*values);
  return (*values)[static_cast<size_t>(share * static_cast<double>(values->size() - 1))];
}

DiskPersistence::Opened Open(const fs::path& folder, bool sync, uint64_t bytes) {
  auto opened = DiskPersistence::Open({.dir = folder,
                                       .model = "bench",
                                       .sync = sync,
                                       .turns_bytes_max = uint64_t{1} << 30,
                                       .kv_bytes_max = bytes});
  if (opened) return std::move(*opened);
  fmt::print(stderr, "snapshot_bench: {}\n", opened.error().message);
  std::exit(1);
}

std::vector<worker::PageToKeep> MakePages(size_t first, size_t count, uint32_t page_bytes) {
  std::mt19937_64 random(first);
  std::vector<worker::PageToKeep> pages(count);
  for (size_t i = 0; i < count; ++i) {
    StoredPage& page = pages[i].page;
    page.position = static_cast<uint32_t>(first + i);
    page.parent = page.position;  // any will do: nothing is looked for here
    page.key.owner = 1;
    page.tokens.assign(kPageTokens, 7);
    page.chain_hash = shm::ChainHash(page.parent, page.key, shm::TokensHash(page.tokens));
    page.data_bytes = page_bytes;
    pages[i].data.resize(page_bytes);
    auto* words = reinterpret_cast<uint64_t*>(pages[i].data.data());
    for (size_t w = 0; w < page_bytes / sizeof(uint64_t); ++w) words[w] = random();
    page.data_checksum = Hash64(pages[i].data);
  }
  return pages;
}

// The system forgets what it has of the file in memory.
void DropFromMemory(const fs::path& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
    fmt::print(stderr, "snapshot_bench: cannot drop {} from memory\n", file.string());
  close(fd);
}

// As the generator does it.
double ReadMs(DiskPersistence& disk, const std::vector<StoredPage>& pages, std::byte* to) {
  const double begin = NowMs();
  const size_t window = std::max<size_t>(1, limits::kFetchBytes / pages[0].data_bytes);
  const auto place = [&](size_t i) {
    return std::span(to + i * pages[0].data_bytes, pages[0].data_bytes);
  };
  size_t asked = 0;
  const auto ask = [&] {
    disk.FetchPages(1, {{pages[asked], place(asked), static_cast<uint32_t>(asked)}});
    ++asked;
  };
  while (asked < std::min(window, pages.size())) ask();
  for (size_t got = 0; got < pages.size();) {
    pollfd fd{disk.fd(), POLLIN, 0};
    poll(&fd, 1, 1000);
    for (worker::PersistenceAnswer& answer : disk.TakeAnswers()) {
      const auto* page = std::get_if<worker::PageFetched>(&answer);
      if (page == nullptr || !page->is_read) {
        fmt::print(stderr, "snapshot_bench: a page could not be read\n");
        std::exit(1);
      }
      if (asked < pages.size()) ask();
      ++got;
    }
  }
  return NowMs() - begin;
}

double CopyMs(const std::byte* from, std::byte* to, size_t bytes) {
  const double begin = NowMs();
  std::memcpy(to, from, bytes);
  return NowMs() - begin;
}

void Resume(const fs::path& folder, uint32_t page_bytes) {
  constexpr size_t kPages = kTokensMax / kPageTokens;
  std::vector<StoredPage> pages;
  const size_t all_bytes = kPages * page_bytes;
  double write_ms = 0;
  {
    auto opened = Open(folder, true, uint64_t{4} << 30);
    for (size_t first = 0; first < kPages; first += 2) {
      auto some = MakePages(first, 2, page_bytes);
      for (const auto& each : some) pages.push_back(each.page);
      const double begin = NowMs();
      opened.persistence->KeepPages(std::move(some), {});
      opened.persistence->Wait(60'000);
      write_ms += NowMs() - begin;
    }
  }
  const fs::path file = folder / "kv.mdb";
  fmt::print(
      "{} pages of {} bytes written at {:.0f} MB/s; {:.0f} bytes of the file a token, {:.3f} "
      "of what it is in memory\n",
      kPages, page_bytes, static_cast<double>(all_bytes) / write_ms / 1000,
      static_cast<double>(fs::file_size(file)) / kTokensMax,
      static_cast<double>(fs::file_size(file)) / static_cast<double>(all_bytes));
  std::vector<std::byte> from(all_bytes), to(all_bytes);
  std::memset(from.data(), 1, all_bytes);
  std::memset(to.data(), 2, all_bytes);
  auto opened = Open(folder, true, uint64_t{4} << 30);
  for (const size_t tokens : {size_t{2'048}, kTokensMax}) {
    const std::vector<StoredPage> wanted(pages.begin(),
                                         pages.begin() + static_cast<long>(tokens / kPageTokens));
    const size_t bytes = wanted.size() * page_bytes;
    std::vector<double> cold, warm, copy;
    for (int run = 0; run < kRuns; ++run) {
      DropFromMemory(file);
      cold.push_back(ReadMs(*opened.persistence, wanted, to.data()));
      warm.push_back(ReadMs(*opened.persistence, wanted, to.data()));
      copy.push_back(CopyMs(from.data(), to.data(), bytes));
    }
    const double cold_ms = Quantile(&cold, 0.5), warm_ms = Quantile(&warm, 0.5),
                 copy_ms = Quantile(&copy, 0.5);
    fmt::print(
        "{} tokens, {} MiB: {:.0f} ms in the system's memory, {:.0f} ms from the disk; a copy "
        "{:.0f} ms: {:.2f} and {:.2f} times\n",
        tokens, bytes >> 20, warm_ms, cold_ms, copy_ms, warm_ms / copy_ms, cold_ms / copy_ms);
  }
}

// As `perdure backup` does it.
double ReceiveBackup(int socket, const fs::path& to) {
  const double begin = NowMs();
  std::unique_ptr<snapshot::CopyFile> copy;
  for (;;) {
    auto part = snapshot::ReceivePart(socket);
    if (!part || part->kind == snapshot::PartKind::kFailed) {
      fmt::print(stderr, "snapshot_bench: {}\n", part ? part->text : part.error().message);
      std::exit(1);
    }
    if (part->kind == snapshot::PartKind::kFile)
      copy = std::move(*snapshot::CopyFile::Begin(to / part->text, part->bytes_max));
    else if (part->kind == snapshot::PartKind::kPortion)
      (void)copy->Apply({std::move(part->records), false});
    else if (part->kind == snapshot::PartKind::kFileEnd)
      (void)copy->Finish();
    else
      return NowMs() - begin;
  }
}

// Commits while a file of so many bytes is backed up, again and again.
void CommitsBesideBackups(const fs::path& folder, size_t file_bytes) {
  constexpr int kTurns = 400;
  auto opened = Open(folder, true, uint64_t{1} << 30);
  DiskPersistence& disk = *opened.persistence;
  uint64_t rid = 0;
  const auto commit = [&](size_t bytes) {
    snapshot::StoredTurn turn;
    turn.rid = ++rid;
    turn.ids.assign(2'000, static_cast<TokenId>(rid));
    turn.drawn.assign(turn.ids.size(), false);
    turn.prompt_tokens = static_cast<uint32_t>(turn.ids.size());
    turn.messages = {"{}", std::string(bytes, 'x')};
    turn.message_hashes = {1, rid};
    const double begin = NowMs();
    disk.KeepTurn({1, fmt::format("c{}", rid % 1000), false, ""}, turn);
    for (bool is_kept = false; !is_kept;) {
      for (worker::PersistenceAnswer& answer : disk.TakeAnswers())
        is_kept = is_kept || std::holds_alternative<worker::TurnKept>(answer);
      if (!is_kept) usleep(50);
    }
    return NowMs() - begin;
  };
  while (fs::file_size(folder / "turns.mdb") < file_bytes) commit(20'000);
  std::vector<double> alone, beside, backups;
  for (int i = 0; i < kTurns; ++i) alone.push_back(commit(500));
  std::atomic<bool> is_over = false;
  std::thread reader([&] {
    for (int i = 0; i < kRuns; ++i) {
      const fs::path to = folder / "backup";
      fs::remove_all(to);
      fs::create_directories(to);
      int sockets[2];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) std::exit(1);
      const UniqueFd ours(sockets[0]);
      disk.BackUp(UniqueFd(sockets[1]), false);
      backups.push_back(ReceiveBackup(ours.get(), to));
    }
    is_over = true;
  });
  while (!is_over) beside.push_back(commit(500));
  reader.join();
  fmt::print(
      "\nbacked up beside commits (sync), {} MB of turns in {:.0f} ms, {} times: {:.0f} MB/s\n",
      file_bytes / 1'000'000, Quantile(&backups, 0.5), backups.size(),
      static_cast<double>(file_bytes) / Quantile(&backups, 0.5) / 1000);
  fmt::print("a turn's commit, in ms:        median     99%  longest\n");
  for (auto& [name, ms] : {std::pair{"alone", &alone}, std::pair{"beside backups", &beside}}) {
    const double median = Quantile(ms, 0.5), most = Quantile(ms, 0.99);
    fmt::print("{:<30}{:>8.2f}{:>8.2f}{:>8.2f}\n", name, median, most, ms->back());
  }
}

void Commits(const fs::path& folder, bool sync, bool writes_pages, uint32_t page_bytes) {
  constexpr int kTurns = 400;
  constexpr size_t kTokens = 2'000, kNew = 100;
  auto opened = Open(folder, sync, uint64_t{4} << 30);
  DiskPersistence& disk = *opened.persistence;
  snapshot::StoredTurn turn;
  turn.prompt_tokens = kTokens;
  std::vector<double> ms;
  size_t next_page = 0;
  size_t keeping = 0;
  for (int i = 0; i < kTurns; ++i) {
    if (i % 20 == 0) {
      turn.ids.assign(kTokens, i);
      turn.messages = {R"({"role":"user","content":"Hello"})",
                       R"({"role":"assistant","content":"Hi"})"};
      turn.message_hashes = {1, 2};
    }
    turn.rid = static_cast<uint64_t>(i) + 1;
    turn.ids.insert(turn.ids.end(), kNew, i);
    turn.drawn.assign(turn.ids.size(), false);
    turn.prompt_tokens = static_cast<uint32_t>(turn.ids.size());
    turn.messages.push_back(R"({"role":"user","content":")" + std::string(300, 'x') + "\"}");
    turn.message_hashes.push_back(turn.rid);
    if (writes_pages && keeping < 2) {
      disk.KeepPages(MakePages(next_page, 2, page_bytes), {});
      next_page = (next_page + 2) % 128;
      ++keeping;
    }
    const double begin = NowMs();
    disk.KeepTurn({1, fmt::format("c{}", i / 20), false, ""}, turn);
    for (bool is_kept = false; !is_kept;) {
      for (worker::PersistenceAnswer& answer : disk.TakeAnswers()) {
        if (std::holds_alternative<worker::PagesKept>(answer)) --keeping;
        if (const auto* kept = std::get_if<worker::TurnKept>(&answer)) {
          is_kept = true;
          if (!kept->conversation) std::exit(1);
        }
      }
      if (!is_kept) usleep(50);
    }
    ms.push_back(NowMs() - begin);
  }
  disk.Wait(60'000);
  fmt::print("{:<8}{:<22}{:>8.2f}{:>8.2f}{:>8.2f}\n", sync ? "sync" : "async",
             writes_pages ? "beside pages" : "alone", Quantile(&ms, 0.5), Quantile(&ms, 0.99),
             ms.back());
}

}  // namespace
}  // namespace perdure::bench

int main(int argc, char** argv) {
  namespace fs = std::filesystem;
  using namespace perdure::bench;
  perdure::InitLogging("snapshot_bench", perdure::LogLevel::kWarning);
  fs::path folder = argc > 1 ? fs::path(argv[1]) : fs::temp_directory_path();
  const auto page_bytes = argc > 2 ? static_cast<uint32_t>(std::atoi(argv[2])) : kPageBytes;
  folder /= fmt::format("perdure-snapshot-bench-{}", getpid());
  fs::create_directories(folder);
  fs::permissions(folder, fs::perms::owner_all);
  Resume(folder / "resume", page_bytes);
  fmt::print("\na turn's commit, in ms:        median     99%  longest\n");
  for (const bool sync : {true, false})
    for (const bool writes_pages : {false, true})
      Commits(folder / fmt::format("commits-{}{}", sync, writes_pages), sync, writes_pages,
              page_bytes);
  CommitsBesideBackups(folder / "backups", 200'000'000);
  fs::remove_all(folder);
}
