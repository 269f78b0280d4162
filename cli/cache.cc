#include "cli/cache.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/admin_client.h"
#include "cli/json_members.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string Size(const Json& object, const char* key) { return Bytes(Count(object, key)); }
std::string Many(const Json& object, const char* key) { return Grouped(Count(object, key)); }

std::string Percent(const Json& object, const char* key) {
  return fmt::format("{:.1f}%", 100 * Number(object, key));
}

std::string FormatStats(const Json& stats) {
  const Json &memory = Member(stats, "memory"), &pages = Member(stats, "pages"),
             &conversations = Member(stats, "conversations");
  Rows rows;
  rows.push_back({"type", TextOf(stats, "description")});
  rows.push_back({"conversations",
                  fmt::format("{} of up to {}; {} begun, {} turns more, {} expired, {} displaced",
                              Many(stats, "entries"), Many(conversations, "max"),
                              Many(conversations, "begun"), Many(conversations, "continued"),
                              Many(conversations, "expired"), Many(conversations, "displaced"))});
  rows.push_back({"cached", fmt::format("{} tokens in {}; {} asked of the system, up to {}",
                                        Many(stats, "tokens"), Size(stats, "bytes"),
                                        Size(stats, "bytes_granted"), Size(stats, "bytes_max"))});
  rows.push_back(
      {"held by",
       fmt::format("running requests {}, idle conversations {}, nobody {}; {} shared, {} "
                   "pinned",
                   Size(memory, "running_bytes"), Size(memory, "idle_bytes"),
                   Size(memory, "unclaimed_bytes"), Size(memory, "shared_bytes"),
                   Size(memory, "pinned_bytes"))});
  rows.push_back(
      {"pages",
       fmt::format("{} in 16 bits, {} in 8, {} in 4; {} without their numbers; {} "
                   "dropped, {} damaged",
                   Many(pages, "bits16"), Many(pages, "bits8"), Many(pages, "bits4"),
                   Many(pages, "hollow"), Many(pages, "dropped"), Many(pages, "damaged"))});
  if (const Json& stored = Member(stats, "snapshots"); !stored.empty())
    rows.push_back({"on disk", fmt::format("{} conversations; {} pages in {} of up to {}, {} wait",
                                           Many(stored, "conversations"), Many(stored, "pages"),
                                           Size(stored, "bytes"), Size(stored, "bytes_max"),
                                           Many(stored, "pages_waiting"))});
  rows.push_back({"hit rate", fmt::format("{}: {} of {} prompt tokens, in {} requests; {} spliced",
                                          Percent(stats, "hit_rate"), Many(stats, "cached_tokens"),
                                          Many(stats, "prompt_tokens"), Many(stats, "requests"),
                                          Many(conversations, "spliced_tokens"))});
  rows.push_back({"fragmentation", Percent(stats, "fragmentation")});
  rows.push_back({"optimized", TimeOf(stats, "last_optimized")});
  Rows types{{"TYPE", "CONVERSATIONS", "TOKENS", "MEMORY", "REQUESTS", "HIT RATE"}};
  for (const auto& [name, type] : Member(stats, "types").items())
    types.push_back({name, Many(type, "entries"), Many(type, "tokens"), Size(type, "bytes"),
                     Many(type, "requests"), Percent(type, "hit_rate")});
  return Table(rows) + (types.size() > 1 ? "\n" + Table(types) : "");
}

std::string FormatHealth(const Json& health) {
  std::string text =
      fmt::format("{}: {} pages, {}, compared with their checksums in {:.1f} s\n",
                  IsTrue(health, "healthy") ? "healthy" : "damaged", Many(health, "checked_pages"),
                  Size(health, "checked_bytes"), Number(health, "seconds"));
  if (const auto issues = health.find("issues"); issues != health.end() && issues->is_array())
    for (const Json& issue : *issues)
      if (issue.is_string()) text += "- " + issue.get<std::string>() + "\n";
  return text;
}

std::string FormatAdvice(const Json& answer) {
  const auto list = answer.find("recommendations");
  if (list == answer.end() || !list->is_array() || list->empty())
    return "nothing to recommend: what was measured gives no reason to change anything\n";
  std::string text;
  for (const Json& advice : *list)
    text += fmt::format("- {}\n  {}\n", TextOf(advice, "text"), TextOf(advice, "setting"));
  return text;
}

std::string FormatMonitor(const Json& answer) {
  return Table(
      {{"watched", fmt::format("{:.0f} s", Number(answer, "seconds"))},
       {"requests", Many(answer, "requests")},
       {"response",
        fmt::format("{:.0f} ms on average, half below {:.0f}, 95% below {:.0f}",
                    Number(answer, "avg_response_ms"), Number(answer, "median_response_ms"),
                    Number(answer, "p95_response_ms"))},
       {"hit rate", fmt::format("{} of {} prompt tokens", Percent(answer, "hit_rate"),
                                Many(answer, "prompt_tokens"))},
       {"memory efficiency", Percent(answer, "memory_efficiency")}});
}

std::string FormatModel(const std::string& operation, const Json& answer) {
  if (const Json& error = Member(answer, "error"); !error.empty())
    return TextOf(error, "message") + "\n";
  if (operation == "stats") return FormatStats(answer);
  if (operation == "health") return FormatHealth(answer);
  if (operation == "recommend") return FormatAdvice(answer);
  if (operation == "monitor") return FormatMonitor(answer);
  if (operation == "clear")
    return fmt::format("{} conversations forgotten, {} dropped, {} returned to the system\n",
                       Many(answer, "conversations"), Size(answer, "dropped_bytes"),
                       Size(answer, "returned_bytes"));
  return fmt::format(
      "{} that nobody needs dropped, {} returned to the system, fragmentation {} (was {})\n",
      Size(answer, "dropped_bytes"), Size(answer, "returned_bytes"),
      Percent(answer, "fragmentation"), Percent(answer, "fragmentation_before"));
}

}  // namespace

std::string FormatCache(const std::string& operation, const Json& answer) {
  std::string text;
  for (const auto& [model, of_it] : Member(answer, "models").items())
    text +=
        fmt::format("{}{}:\n{}", text.empty() ? "" : "\n", model, FormatModel(operation, of_it));
  return text;
}

int RunCache(const std::filesystem::path& runtime_dir, const CacheOptions& options,
             const std::string& model, bool json) {
  const auto client = AdminClient::Connect(runtime_dir);
  if (!client) return Fail(client.error().message);
  AdminRequest request{.path = "/admin/cache/" + options.operation};
  if (options.operation == "optimize" || options.operation == "clear") {
    Json body = Json::object();
    if (!model.empty()) body["model"] = model;
    if (options.unused_only) body["unused"] = true;
    request.method = "POST";
    request.body = DumpJson(body);
  } else {
    if (!model.empty()) request.query.emplace_back("model", model);
    if (options.operation == "monitor")
      request.query.emplace_back("seconds", std::to_string(options.seconds));
  }
  const Result<Json> answer = client->Ask(request);
  if (!answer) return Fail(answer.error().message);
  fmt::print("{}", json ? DumpJson(*answer) + "\n" : FormatCache(options.operation, *answer));
  bool has_failed = false;
  for (const auto& [name, of_it] : Member(*answer, "models").items())
    has_failed = has_failed || of_it.contains("error") ||
                 (options.operation == "health" && !IsTrue(of_it, "healthy"));
  return has_failed ? protocol::kExitSystem : protocol::kExitOk;
}

}  // namespace perdure::cli
