#include "cli/cache.h"

#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/control_client.h"
#include "cli/http_client.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

double Number(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : 0.0;
}

uint64_t Count(const Json& object, const char* key) {
  const double number = Number(object, key);
  return number > 0 ? static_cast<uint64_t>(number) : 0;
}

bool IsTrue(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

std::string Size(const Json& object, const char* key) { return Bytes(Count(object, key)); }
std::string Many(const Json& object, const char* key) { return Grouped(Count(object, key)); }

std::string Percent(const Json& object, const char* key) {
  return fmt::format("{:.1f}%", 100 * Number(object, key));
}

std::string When(const Json& object, const char* key) {
  const auto unix_s = static_cast<std::time_t>(Number(object, key));
  if (unix_s == 0) return "never";
  char text[64];
  std::tm local{};
  localtime_r(&unix_s, &local);
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local)};
}

const Json& Member(const Json& object, const char* key) {
  static const Json kNone = Json::object();
  const auto it = object.find(key);
  return it != object.end() && it->is_object() ? *it : kNone;
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
  rows.push_back({"optimized", When(stats, "last_optimized")});
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

int Fail(const std::string& message) {
  fmt::print(stderr, "perdure: {}\n", message);
  return protocol::kExitSystem;
}

std::string UrlEncode(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
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
  const Result<Json> admin = AskSupervisor(runtime_dir, "admin");
  if (!admin) return Fail(admin.error().message);
  HttpRequest request;
  request.url = fmt::format("{}/admin/cache/{}", TextOf(*admin, "url"), options.operation);
  request.api_key = TextOf(*admin, "admin_token");
  if (options.operation == "optimize" || options.operation == "clear") {
    Json body = Json::object();
    if (!model.empty()) body["model"] = model;
    if (options.unused_only) body["unused"] = true;
    request.body = DumpJson(body);
  } else {
    std::string query;
    if (!model.empty()) query = "model=" + UrlEncode(model);
    if (options.operation == "monitor")
      query += fmt::format("{}seconds={}", query.empty() ? "" : "&", options.seconds);
    if (!query.empty()) request.url += "?" + query;
  }
  const Result<HttpResponse> response = Perform(request);
  if (!response) return Fail(response.error().message);
  const auto answer = ParseJson(response->body, "the service's answer", ErrorCode::io_error);
  if (!answer) return Fail(answer.error().message);
  if (response->status != 200) return Fail(TextOf(Member(*answer, "error"), "message"));
  fmt::print("{}", json ? DumpJson(*answer) + "\n" : FormatCache(options.operation, *answer));
  bool has_failed = false;
  for (const auto& [name, of_it] : Member(*answer, "models").items())
    has_failed = has_failed || of_it.contains("error") ||
                 (options.operation == "health" && !IsTrue(of_it, "healthy"));
  return has_failed ? protocol::kExitSystem : protocol::kExitOk;
}

}  // namespace perdure::cli
