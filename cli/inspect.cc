#include "cli/inspect.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cli/table.h"
#include "protocol/heritage.h"
#include "shm/arena_segment.h"

namespace perdure::cli {
namespace {

std::string Hex(uint64_t number) { return fmt::format("{:016x}", number); }

constexpr const char* kFormatNames[] = {"16", "8", "4"};  // bits

// The one arena of a model with this name; else the name itself.
std::string FullName(const std::string& name) {
  const std::string ending = shm::ArenaName("", name).substr(shm::ArenaName("", "").size() - 1);
  std::vector<std::string> matching;
  for (std::string& arena : shm::ListArenas()) {
    if (arena == name) return name;
    if (arena.ends_with(ending)) matching.push_back(std::move(arena));
  }
  return matching.size() == 1 ? matching.front() : name;
}

}  // namespace

Json ArenaJson(const std::string& name, const shm::ArenaReport& report) {
  Json chains = Json::array();
  for (const auto& chain : report.longest_chains)
    chains.push_back({{"chain_hash", Hex(chain.chain_hash)},
                      {"last_page", chain.page},
                      {"pages", chain.pages},
                      {"tokens", chain.tokens}});
  Json formats = Json::array();
  for (const shm::PageFormat format : shm::kAllFormats)
    formats.push_back({{"bits", std::stoi(kFormatNames[static_cast<size_t>(format)])},
                       {"page_bytes", report.page_bytes[format]},
                       {"slots_per_slab", report.slots_per_slab[format]},
                       {"sealed", report.sealed[format]}});
  return Json{
      {"name", name},
      {"version", report.version},
      {"fingerprint", Hex(report.fingerprint)},
      {"numerics", Hex(report.numerics)},
      {"epoch", report.epoch},
      {"writer", report.writer},
      {"page_tokens", report.page_tokens},
      {"formats", std::move(formats)},
      {"pages_max", report.pages_wanted},
      {"descriptors_max", report.pages_max},
      {"slab_bytes", report.slab_bytes},
      {"file_bytes", report.file_bytes},
      {"bytes_granted", report.bytes_granted},
      {"pages", {{"open", report.open}, {"sealed", report.Sealed()}, {"hollow", report.hollow}}},
      {"conversations", report.conversations},
      {"longest_chains", std::move(chains)},
      {"problems", report.problems},
      {"problems_found", report.problems_found}};
}

std::string FormatArena(const std::string& name, const shm::ArenaReport& report) {
  std::vector<std::vector<std::string>> rows;
  rows.push_back({"arena", name});
  rows.push_back({"model", fmt::format("fingerprint {}, numerics {}", Hex(report.fingerprint),
                                       Hex(report.numerics))});
  rows.push_back({"last writer",
                  fmt::format("process {}, number {} of this arena", report.writer, report.epoch)});
  rows.push_back(
      {"pages",
       fmt::format("room for {} of {} tokens: {} sealed, {} open; {} without their numbers",
                   Grouped(report.pages_wanted), report.page_tokens, Grouped(report.Sealed()),
                   Grouped(report.open), Grouped(report.hollow))});
  for (const shm::PageFormat format : shm::kAllFormats)
    if (report.page_bytes[format] > 0)
      rows.push_back(
          {fmt::format("{} bits", kFormatNames[static_cast<size_t>(format)]),
           fmt::format("{} sealed pages of {}, {} in a slab", Grouped(report.sealed[format]),
                       Bytes(report.page_bytes[format]), report.slots_per_slab[format])});
  rows.push_back({"conversations", Grouped(report.conversations)});
  rows.push_back(
      {"memory", fmt::format("{} of up to {}, in slabs of {}", Bytes(report.bytes_granted),
                             Bytes(report.file_bytes), Bytes(report.slab_bytes))});
  std::string text = Table(rows);
  if (!report.longest_chains.empty()) {
    std::vector<std::vector<std::string>> chains{{"CHAIN", "PAGES", "TOKENS"}};
    for (const auto& chain : report.longest_chains)
      chains.push_back({Hex(chain.chain_hash), Grouped(chain.pages), Grouped(chain.tokens)});
    text += "\n" + Table(chains);
  }
  if (report.problems.empty()) return text;
  text += "\nProblems:\n";
  for (const std::string& problem : report.problems) text += "- " + problem + "\n";
  if (report.problems_found > report.problems.size())
    text += fmt::format("- and {} more\n", report.problems_found - report.problems.size());
  return text;
}

int RunInspectArena(const std::string& name, bool json) {
  const std::string full_name = FullName(name);
  const auto fd = shm::OpenArenaForReading(full_name);
  if (!fd) {
    fmt::print(stderr, "perdure: {}\n", fd.error().message);
    return fd.error().code == ErrorCode::not_found ? protocol::kExitUsage : protocol::kExitSystem;
  }
  const auto report = shm::ReadArena(fd->get());
  if (!report) {
    fmt::print(stderr, "perdure: {}: {}\n", full_name, report.error().message);
    return protocol::kExitSystem;
  }
  fmt::print("{}", json ? DumpJson(ArenaJson(full_name, *report)) + "\n"
                        : FormatArena(full_name, *report));
  return protocol::kExitOk;
}

}  // namespace perdure::cli
