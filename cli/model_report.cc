#include "cli/model_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/brief.h"
#include "base/limits.h"
#include "cli/prompt_report.h"
#include "cli/table.h"
#include "engine/kv_budget.h"
#include "engine/model_summary.h"

namespace perdure::cli {
namespace {

using engine::ModelSummary;
using engine::WeightFormat;
using engine::WeightsSummary;

Json Architecture(const engine::ModelConfig& config) {
  Json json = Json::object();
  json["layers"] = config.layers;
  json["hidden_size"] = config.hidden_size;
  json["heads"] = config.heads;
  json["kv_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["feed_forward"] = config.feed_forward;
  json["experts"] = config.experts.count;
  json["experts_per_token"] = config.experts.per_token;
  json["expert_feed_forward"] = config.experts.feed_forward;
  return json;
}

std::string QuantizationText(const WeightsSummary& weights) {
  std::string text;
  for (const WeightFormat& format : weights.formats) {
    text += text.empty() ? format.name
                         : fmt::format("; {} {} {}", format.tensors,
                                       format.tensors == 1 ? "tensor" : "tensors", format.name);
  }
  return text;
}

Json Weights(const WeightsSummary& weights) {
  Json json = Json::object();
  json["files"] = weights.files;
  json["disk_bytes"] = weights.disk_bytes;
  json["memory_bytes"] = weights.memory_bytes;
  json["formats"] = Json::array();
  for (const WeightFormat& format : weights.formats) {
    json["formats"].push_back(Json{{"format", format.name},
                                   {"bits", format.bits},
                                   {"group", format.group},
                                   {"tensors", format.tensors},
                                   {"parameters", format.parameters},
                                   {"disk_bytes", format.disk_bytes}});
  }
  return json;
}

uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

// What a worker would decide if it loaded the model now.
Result<engine::KvBudget> BudgetOf(const ModelReportInputs& in, const ModelSummary& summary) {
  if (summary.weights->memory_bytes > in.memory.available)
    return Err(
        ErrorCode::out_of_memory,
        fmt::format("the weights take {} of memory, {} are available: free memory, or choose "
                    "a model that is smaller or quantized to fewer bits",
                    Bytes(summary.weights->memory_bytes), Bytes(in.memory.available)));
  engine::KvBudgetInputs inputs;
  inputs.kv_bytes_max = in.model.kv_bytes_max;
  inputs.max_context = in.model.max_context;
  inputs.model_context = summary.config->max_context;
  inputs.sequences_max = std::clamp(in.model.max_sequences, 1, limits::kSequencesMax);
  inputs.page_bytes = engine::KvShapeOf(*summary.config).PageBytes();
  inputs.memory = in.memory;
  inputs.memory.available = Minus(in.memory.available, summary.weights->memory_bytes);
  inputs.claimed_bytes = in.claimed_bytes;
  return engine::DeriveKvBudget(inputs);
}

Json CacheTypesJson(const ModelReportInputs& in, const ModelSummary& summary) {
  Json types = Json::array();
  for (const engine::CacheType& type : engine::CacheTypes(engine::KvShapeOf(*summary.config))) {
    Json json = Json::object();
    json["type"] = type.name;
    json["bits"] = type.bits;
    json["bytes_per_token"] = type.bytes_per_token;
    json["tokens_available"] =
        summary.weights
            ? Json(Minus(in.memory.available, summary.weights->memory_bytes) / type.bytes_per_token)
            : Json();
    json["ceiling"] = type.has_ceiling ? Json("max_size") : Json();
    types.push_back(std::move(json));
  }
  return types;
}

void AddContext(const ModelReportInputs& in, const ModelSummary& summary, Json* report,
                Json* problems, Json* notes) {
  Json context{
      {"model", nullptr}, {"configured", nullptr}, {"served", nullptr}, {"bound", nullptr}};
  Json kv{{"page_tokens", engine::kPageTokens},
          {"bytes_max", nullptr},
          {"reason", nullptr},
          {"types", Json::array()}};
  if (in.model.max_context > 0) context["configured"] = in.model.max_context;
  if (summary.config) {
    context["model"] = summary.config->max_context;
    kv["types"] = CacheTypesJson(in, summary);
  }
  if (summary.config && summary.weights) {
    const auto budget = BudgetOf(in, summary);
    if (budget) {
      context["served"] = budget->max_context;
      context["bound"] = engine::ContextBoundName(budget->bound);
      kv["bytes_max"] =
          uint64_t{budget->pages_max} * engine::KvShapeOf(*summary.config).PageBytes();
      kv["reason"] = budget->reason;
      for (const std::string& warning : budget->warnings) notes->push_back(warning);
    } else {
      problems->push_back(budget.error().message);
    }
  }
  (*report)["context"] = std::move(context);
  (*report)["kv"] = std::move(kv);
}

}  // namespace

Json ModelReport(const ModelReportInputs& in) {
  // A large vocabulary takes as long as the headers of a large checkpoint.
  auto prompts = std::async(std::launch::async, &ReportPrompts, in.folder);
  const ModelSummary summary = engine::SummarizeModel(in.folder, in.model.quantize_bits);
  Json problems = summary.problems, notes = summary.notes;
  Json report = Json::object();
  report["name"] = in.model.name;
  report["source"] = in.model.source;
  report["folder"] = in.folder.string();
  report["model_type"] = summary.model_type.empty() ? Json() : Json(summary.model_type);
  report["architecture"] = summary.config ? Architecture(*summary.config) : Json();
  const std::optional<WeightsSummary>& weights = summary.weights;
  report["parameters"] = weights ? Json(weights->parameters) : Json();
  report["active_parameters"] = weights ? Json(weights->active_parameters) : Json();
  report["quantization"] = weights ? Json(QuantizationText(*weights)) : Json();
  report["quantize"] =
      in.model.quantize_bits > 0 ? Json(fmt::format("q{}", in.model.quantize_bits)) : Json();
  report["weights"] = weights ? Weights(*weights) : Json();
  report["vocabulary"] = summary.config ? Json(summary.config->vocab_size) : Json();
  PromptReport prompt = prompts.get();
  report["tokenizer"] = std::move(prompt.tokenizer);
  report["chat_templates"] = std::move(prompt.chat_templates);
  for (Json& problem : prompt.problems) problems.push_back(std::move(problem));
  AddContext(in, summary, &report, &problems, &notes);
  report["memory"] =
      Json{{"capacity_bytes", in.memory.capacity}, {"available_bytes", in.memory.available}};
  for (Json& problem : problems)  // files may have made them long
    problem = Brief(problem.get<std::string>(), limits::kLogLineBytesMax);
  report["notes"] = std::move(notes);
  report["problems"] = std::move(problems);
  return report;
}

}  // namespace perdure::cli
