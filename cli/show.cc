#include "cli/show.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/limits.h"
#include "base/memory.h"
#include "cli/model_choice.h"
#include "cli/model_report.h"
#include "cli/table.h"
#include "hub/model_size.h"
#include "hub/model_source.h"
#include "hub/weight_bytes.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string GroupedOf(const Json& value) {
  return value.is_number_integer() ? Grouped(value.get<uint64_t>()) : "unknown";
}

std::string ArchitectureText(const Json& report) {
  const Json& a = report["architecture"];
  std::string text = TextOf(report, "model_type");
  if (!a.is_object()) return text;
  text +=
      fmt::format(": {} layers of {}, {} heads of {} ({} for keys and values), feed-forward {}",
                  a["layers"].get<int>(), a["hidden_size"].get<int>(), a["heads"].get<int>(),
                  a["head_dim"].get<int>(), a["kv_heads"].get<int>(), a["feed_forward"].get<int>());
  if (a["experts"].get<int>() > 0)
    text += fmt::format(", {} experts of {}, {} a token", a["experts"].get<int>(),
                        a["expert_feed_forward"].get<int>(), a["experts_per_token"].get<int>());
  return text;
}

std::string ParametersText(const Json& report) {
  std::string text = GroupedOf(report["parameters"]);
  if (report["active_parameters"] != report["parameters"])
    text += fmt::format(", {} active for a token", GroupedOf(report["active_parameters"]));
  return text;
}

std::string WeightsText(const Json& weights) {
  if (!weights.is_object()) return "unknown";
  const int files = weights["files"].get<int>();
  return fmt::format("{} in {} {}; {} in memory", Bytes(weights["disk_bytes"].get<uint64_t>()),
                     files, files == 1 ? "file" : "files",
                     Bytes(weights["memory_bytes"].get<uint64_t>()));
}

std::string ContextText(const Json& context) {
  std::string text = fmt::format("{} tokens", GroupedOf(context["model"]));
  if (context["configured"].is_number())
    text += fmt::format(", {} configured", GroupedOf(context["configured"]));
  if (context["served"].is_number())
    text += fmt::format("; {} would be served now (bounded by the {})",
                        GroupedOf(context["served"]), TextOf(context, "bound"));
  return text;
}

std::string TokenizerText(const Json& tokenizer) {
  if (!tokenizer.is_object()) return "-";
  return fmt::format("{}, {} tokens", TextOf(tokenizer, "file"), GroupedOf(tokenizer["tokens"]));
}

std::string TemplatesText(const Json& templates) {
  std::string text;
  for (const Json& entry : templates)
    text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", TextOf(entry, "name"),
                        TextOf(entry, "file"));
  return text.empty() ? "none: only completions of texts are served" : text;
}

std::string CacheTable(const Json& kv) {
  Rows rows{{"CACHE TYPE", "BITS", "PER TOKEN", "FITS NOW"}};
  for (const Json& type : kv["types"]) {
    std::string fits = type["tokens_available"].is_number()
                           ? Grouped(type["tokens_available"].get<uint64_t>()) + " tokens"
                           : "unknown";
    if (type["ceiling"].is_string())
      fits += fmt::format(", at most {} each", TextOf(type, "ceiling"));
    rows.push_back({TextOf(type, "type"), TextOf(type, "bits"),
                    Bytes(type["bytes_per_token"].get<uint64_t>()), std::move(fits)});
  }
  return Table(rows);
}

std::string Sentences(const char* heading, const Json& sentences) {
  std::string text;
  for (const Json& sentence : sentences) text += "- " + sentence.get<std::string>() + "\n";
  return text.empty() ? text : fmt::format("\n{}\n{}", heading, text);
}

int Fail(const Error& error) {
  fmt::print(stderr, "perdure: {}\n", error.message);
  return error.code == ErrorCode::bad_model ? protocol::kExitBadModel : protocol::kExitUsage;
}

}  // namespace

std::string FormatShow(const Json& report) {
  Rows rows;
  rows.push_back({"model", TextOf(report, "name")});
  rows.push_back({"folder", TextOf(report, "folder")});
  rows.push_back({"architecture", ArchitectureText(report)});
  rows.push_back({"parameters", ParametersText(report)});
  rows.push_back({"quantization", TextOf(report, "quantization")});
  if (report["quantize"].is_string())
    rows.push_back({"quantized on load to", TextOf(report, "quantize")});
  rows.push_back({"weights", WeightsText(report["weights"])});
  rows.push_back({"vocabulary", GroupedOf(report["vocabulary"]) + " tokens"});
  rows.push_back({"tokenizer", TokenizerText(report["tokenizer"])});
  rows.push_back({"chat templates", TemplatesText(report["chat_templates"])});
  rows.push_back({"context", ContextText(report["context"])});
  const Json& memory = report["memory"];
  rows.push_back(
      {"memory", fmt::format("{} available of {}", Bytes(memory["available_bytes"].get<uint64_t>()),
                             Bytes(memory["capacity_bytes"].get<uint64_t>()))});
  const Json& kv = report["kv"];
  if (kv["bytes_max"].is_number())
    rows.push_back({"KV cache", fmt::format("up to {}, {}", Bytes(kv["bytes_max"].get<uint64_t>()),
                                            TextOf(kv, "reason"))});
  std::string text = Table(rows);
  if (!kv["types"].empty()) text += "\n" + CacheTable(kv);
  return text + Sentences("Notes:", report["notes"]) +
         Sentences("What keeps the model from being served:", report["problems"]);
}

int RunShow(const std::string& name, const ConfigFlags& flags, const GetEnv& env, bool json) {
  const auto choice = ChooseModel(name, flags, env);
  if (!choice) return Fail(choice.error());
  const hub::ModelPlaces places = hub::PlacesOf(choice->config, env);
  auto folder = hub::FindModel(choice->model.source, places);
  if (!folder) return Fail(folder.error());
  ModelReportInputs inputs;
  inputs.model = choice->model;
  inputs.folder = std::move(*folder);
  inputs.memory = ReadMemoryState();
  inputs.claimed_bytes =
      inputs.memory.capacity - MemoryBudget(choice->config.memory_max, inputs.memory.capacity) +
      hub::LoadedBytes(choice->model, places) + limits::kWorkerBytes + limits::kWorkerRequestBytes +
      hub::SizeOf(choice->model, places, choice->model.max_sequences).work_bytes;
  const Json report = ModelReport(inputs);
  fmt::print("{}", json ? DumpJson(report) + "\n" : FormatShow(report));
  return report["problems"].empty() ? protocol::kExitOk : protocol::kExitBadModel;
}

}  // namespace perdure::cli
