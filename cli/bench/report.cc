#include "cli/bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "cli/table.h"

namespace perdure::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

// Bounds that differ by more say that the machine was busy.
constexpr double kDriftShown = 0.1;
// Phases below this share are summed up.
constexpr double kPhaseShareShown = 0.01;

Json RangeOf(const std::vector<MachineBounds>& bounds, double MachineBounds::*member) {
  if (bounds.empty()) return nullptr;
  const auto [low, high] = std::minmax_element(
      bounds.begin(), bounds.end(),
      [&](const MachineBounds& a, const MachineBounds& b) { return a.*member < b.*member; });
  return {{"lowest", *low.*member}, {"highest", *high.*member}};
}

Json PhasesJson(const Figure& figure) {
  Json phases = Json::array();
  for (const engine::PhaseProfile::Phase& phase : figure.phases)
    phases.push_back({{"place", phase.place},
                      {"calls", static_cast<double>(phase.calls) / figure.repetitions},
                      {"seconds", phase.seconds / figure.repetitions},
                      {"fraction", phase.seconds / figure.profiled_s}});
  return phases;
}

Json FigureJson(const Figure& figure) {
  const double tokens = figure.shape.Tokens();
  Json json = {
      {"key", figure.key},
      {"name", figure.name},
      {"streams", figure.shape.streams},
      {"cached_tokens", figure.shape.cached},
      {"new_tokens", figure.shape.fresh},
      {"repetitions", figure.repetitions},
      {"seconds", {{"median", figure.median_s}, {"best", figure.best_s}}},
      {"tokens_per_s", {{"median", tokens / figure.median_s}, {"best", tokens / figure.best_s}}},
      {"bound", nullptr}};
  if (figure.bound.seconds > 0.0)
    json["bound"] = {{"name", figure.bound.bound},
                     {"tokens_per_s", tokens / figure.bound.seconds},
                     {"fraction", figure.bound.seconds / figure.best_s}};
  if (!figure.phases.empty()) json["phases"] = PhasesJson(figure);
  return json;
}

std::string RangeText(const Json& machine, const char* key, double unit, const char* unit_name) {
  const Json& range = machine[key];
  if (!range.is_object()) return "unknown";
  const double low = range["lowest"].get<double>(), high = range["highest"].get<double>();
  if (high - low <= kDriftShown * high) return fmt::format("{:.1f} {}", high / unit, unit_name);
  return fmt::format("{:.1f}–{:.1f} {} (the machine is busy: figures may be low)", low / unit,
                     high / unit, unit_name);
}

Rows FigureRows(const Json& figures) {
  Rows rows{{"WORK", "TOKENS/S", "BEST", "BOUND", "BEST/BOUND", "BOUND BY"}};
  for (const Json& figure : figures) {
    const Json& rate = figure["tokens_per_s"];
    std::vector<std::string> row{figure["name"].get<std::string>(),
                                 fmt::format("{:.1f}", rate["median"].get<double>()),
                                 fmt::format("{:.1f}", rate["best"].get<double>())};
    const Json& bound = figure["bound"];
    if (bound.is_object()) {
      row.push_back(fmt::format("{:.1f}", bound["tokens_per_s"].get<double>()));
      row.push_back(fmt::format("{:.0f}%", 100.0 * bound["fraction"].get<double>()));
      row.push_back(bound["name"].get<std::string>());
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string PhasesText(const Json& figure) {
  if (!figure.contains("phases")) return "";
  Rows rows{{"PHASE", "CALLS", "MS", "SHARE"}};
  double rest = 1.0;
  for (const Json& phase : figure["phases"]) {
    const double share = phase["fraction"].get<double>();
    if (share < kPhaseShareShown) continue;
    rest -= share;
    rows.push_back({phase["place"].get<std::string>(),
                    fmt::format("{:.0f}", phase["calls"].get<double>()),
                    fmt::format("{:.3f}", 1e3 * phase["seconds"].get<double>()),
                    fmt::format("{:.1f}%", 100.0 * share)});
  }
  rows.push_back({"the rest, and between phases", "", "", fmt::format("{:.1f}%", 100.0 * rest)});
  return fmt::format("\n{}\n{}", figure["name"].get<std::string>(), Table(rows));
}

}  // namespace

Json BenchJson(const std::string& model, const Measurement& measured) {
  const engine::ModelInfo& info = measured.info;
  const MemoryUse& memory = measured.memory;
  const uint64_t known = memory.weight_bytes + memory.kv_bytes;
  Json report = {
      {"model",
       {{"name", model},
        {"architecture", info.architecture},
        {"quantization", info.quantization},
        {"numerics", info.numerics_id},
        {"parameters", info.parameters},
        {"weight_bytes", info.weight_bytes},
        {"bytes_per_token", info.token_bytes}}},
      {"machine",
       {{"threads", measured.threads},
        {"isa", engine::IsaName(measured.isa)},
        {"read_bytes_per_s", RangeOf(measured.bounds, &MachineBounds::read_bytes_per_s)},
        {"int8_op_per_s", RangeOf(measured.bounds, &MachineBounds::int8_op_per_s)},
        {"f32_flop_per_s", RangeOf(measured.bounds, &MachineBounds::f32_flop_per_s)}}},
      {"load",
       {{"seconds", measured.load_s}, {"seconds_to_first_token", measured.load_first_token_s}}},
      {"memory",
       {{"resident_bytes", memory.resident_bytes},
        {"anonymous_bytes", memory.anonymous_bytes},
        {"kv_bytes", memory.kv_bytes},
        {"other_bytes", memory.resident_bytes > known ? memory.resident_bytes - known : 0}}},
      {"figures", Json::array()},
      {"notes", measured.notes}};
  for (const Figure& figure : measured.figures) report["figures"].push_back(FigureJson(figure));
  return report;
}

std::string FormatBench(const Json& report) {
  const Json& model = report["model"];
  const Json& machine = report["machine"];
  const Json& load = report["load"];
  const Json& memory = report["memory"];
  const auto bytes = [](const Json& object, const char* key) {
    return Bytes(object[key].get<uint64_t>());
  };
  Rows head;
  head.push_back(
      {"model", fmt::format("{}: {}, {}", TextOf(model, "name"), TextOf(model, "architecture"),
                            TextOf(model, "quantization"))});
  head.push_back({"machine", fmt::format("{} threads, {}", machine["threads"].get<int>(),
                                         TextOf(machine, "isa"))});
  head.push_back({"reads", RangeText(machine, "read_bytes_per_s", 1e9, "GB/s")});
  head.push_back({"int8 peak", RangeText(machine, "int8_op_per_s", 1e9, "GOP/s")});
  head.push_back({"f32 peak", RangeText(machine, "f32_flop_per_s", 1e9, "GFLOP/s")});
  head.push_back(
      {"load", fmt::format("{:.2f} s, {:.2f} s to a first token", load["seconds"].get<double>(),
                           load["seconds_to_first_token"].get<double>())});
  head.push_back({"memory", fmt::format("{} weights, {} keys and values, {} beyond them",
                                        bytes(model, "weight_bytes"), bytes(memory, "kv_bytes"),
                                        bytes(memory, "other_bytes"))});
  std::string text = Table(head) + "\n" + Table(FigureRows(report["figures"]));
  for (const Json& figure : report["figures"]) text += PhasesText(figure);
  for (const Json& note : report["notes"]) text += "\n" + note.get<std::string>() + "\n";
  return text;
}

}  // namespace perdure::cli
