#include "cli/ps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/control_client.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

using Row = std::vector<std::string>;

std::string Text(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  if (it == object.end() || it->is_null()) return "-";
  if (it->is_string()) return it->get<std::string>().empty() ? "-" : it->get<std::string>();
  return DumpJson(*it);
}

std::string Mebibytes(const Json& object, const char* group, const char* key) {
  if (!object.is_object() || !object.contains(group) || !object[group].is_object()) return "-";
  const auto it = object[group].find(key);
  if (it == object[group].end() || !it->is_number()) return "-";
  return fmt::format("{:.1f} MiB", it->get<double>() / (1 << 20));
}

std::string Table(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += fmt::format("{:<{}}  ", row[i], widths[i]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

int Fail(const Error& error) {
  fmt::print(stderr, "perdure: {}\n", error.message);
  return protocol::kExitSystem;
}

}  // namespace

std::string FormatPs(const Json& ps) {
  const Json none = Json::object();
  const Json& supervisor = ps.contains("supervisor") ? ps["supervisor"] : none;
  const Json& frontend = ps.contains("frontend") ? ps["frontend"] : none;
  std::vector<Row> rows{{"PROCESS", "STATE", "PID", "DEATHS", "RSS", "RUNNING", "WAITING"}};
  rows.push_back({"supervisor", "running", Text(supervisor, "pid"), "-",
                  Mebibytes(supervisor, "memory", "rss_bytes"), "-", "-"});
  rows.push_back({"frontend " + Text(frontend, "url"), Text(frontend, "state"),
                  Text(frontend, "pid"), Text(frontend, "deaths"),
                  Mebibytes(frontend, "memory", "rss_bytes"), "-", "-"});
  std::string reasons;
  if (ps.contains("models") && ps["models"].is_array()) {
    for (const Json& model : ps["models"]) {
      rows.push_back({"worker " + Text(model, "name"), Text(model, "state"), Text(model, "pid"),
                      Text(model, "deaths"), Mebibytes(model, "memory", "rss_bytes"),
                      Text(model, "running"), Text(model, "waiting")});
      if (Text(model, "reason") != "-")
        reasons += fmt::format("{}: {}\n", Text(model, "name"), Text(model, "reason"));
    }
  }
  return Table(rows) + (reasons.empty() ? "" : "\n" + reasons);
}

int RunPs(const std::filesystem::path& runtime_dir, bool json) {
  const Result<Json> answer = AskSupervisor(runtime_dir, "ps");
  if (!answer) return Fail(answer.error());
  fmt::print("{}", json ? DumpJson(*answer) + "\n" : FormatPs(*answer));
  return protocol::kExitOk;
}

int RunReload(const std::filesystem::path& runtime_dir) {
  const Result<Json> answer = AskSupervisor(runtime_dir, "reload");
  if (!answer) return Fail(answer.error());
  fmt::print("The service has read its configuration again.\n");
  return protocol::kExitOk;
}

}  // namespace perdure::cli
