#include "cli/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/memory.h"
#include "cli/model_choice.h"
#include "cli/model_report.h"
#include "cli/table.h"
#include "hub/model_size.h"
#include "hub/model_source.h"
#include "protocol/heritage.h"
#include "shm/kv_least.h"

namespace perdure::cli {
namespace {

uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

uint64_t ConversationBytes(const PlanModel& model, int context) {
  const int tokens = model.context > 0 ? std::min(model.context, context) : context;
  return static_cast<uint64_t>(tokens) * model.kv_bytes_per_token;
}

uint64_t BytesOf(const Json& json, const char* key) { return json[key].get<uint64_t>(); }

// The configuration's type, or kv where that is one of its own: by its bits.
const Json* CacheTypeOf(const Json& types, const std::string& type) {
  const Json* found = types.empty() ? nullptr : &types.front();
  for (const Json& each : types)
    if (each["type"] == type) found = &each;
  return found;
}

PlanModel PlanModelOf(const Config& config, const ModelConfig& model,
                      const hub::ModelPlaces& places) {
  PlanModel plan;
  plan.name = model.name;
  auto folder = hub::FindModel(model.source, places);
  if (!folder) {
    plan.problem = folder.error().message;
    return plan;
  }
  ModelReportInputs inputs;
  inputs.model = model;
  inputs.folder = std::move(*folder);
  // What it would serve if the memory were its own.
  inputs.memory = ReadMemoryState();
  inputs.memory.available = inputs.memory.capacity;
  const Json report = ModelReport(inputs);
  if (!report["problems"].empty()) plan.problem = report["problems"][0].get<std::string>();
  if (!report["weights"].is_object() || report["kv"]["types"].empty()) return plan;
  const hub::ModelSize size = hub::SizeOf(model, places, model.max_sequences);
  const shm::KvSize kv = shm::KvSizeOf(size.kv_page_bytes, size.context, model.max_sequences,
                                       config.conversations.conversations_max);
  plan.process_bytes = report["weights"]["memory_bytes"].get<uint64_t>() + size.work_bytes +
                       limits::kWorkerBytes + limits::kWorkerRequestBytes;
  const std::string type = model.cache_type.empty() ? config.cache.settings.type : model.cache_type;
  plan.kv_bytes_per_token =
      (*CacheTypeOf(report["kv"]["types"], type))["bytes_per_token"].get<uint64_t>();
  plan.kv_least_bytes =
      kv.fixed_bytes +
      (model.kv_bytes_max > 0 ? std::min(model.kv_bytes_max, kv.least_bytes) : kv.least_bytes);
  if (report["context"]["served"].is_number()) plan.context = report["context"]["served"];
  return plan;
}

int Fail(const Error& error) {
  fmt::print(stderr, "perdure: {}\n", error.message);
  return error.code == ErrorCode::bad_model ? protocol::kExitBadModel : protocol::kExitUsage;
}

}  // namespace

Json Plan(const std::vector<PlanModel>& models, uint64_t budget_bytes, int context) {
  Json list = Json::array();
  uint64_t processes = 0, least = 0, conversation_each = 0;
  bool all_known = true;
  for (const PlanModel& model : models) {
    const uint64_t conversation = ConversationBytes(model, context);
    const uint64_t needed = model.process_bytes + model.kv_least_bytes;
    all_known = all_known && model.process_bytes > 0;
    processes += model.process_bytes;
    least += needed;
    conversation_each += conversation;
    list.push_back(
        {{"name", model.name},
         {"process_bytes", model.process_bytes},
         {"kv_bytes_per_token", model.kv_bytes_per_token},
         {"conversation_bytes", conversation},
         {"missing_bytes", Minus(needed, budget_bytes)},
         {"conversations",
          conversation > 0 ? Minus(budget_bytes, model.process_bytes) / conversation : 0},
         {"problem", model.problem.empty() ? Json() : Json(model.problem)}});
  }
  const uint64_t left = Minus(budget_bytes, processes);
  return {{"budget_bytes", budget_bytes},
          {"context", context},
          {"models", std::move(list)},
          {"together",
           {{"bytes", least},
            {"fits", all_known && least <= budget_bytes},
            {"missing_bytes", Minus(least, budget_bytes)},
            {"left_bytes", left},
            {"conversations", conversation_each > 0 ? left / conversation_each : 0}}}};
}

std::string FormatPlan(const Json& plan) {
  std::vector<std::vector<std::string>> rows{
      {"MODEL", "WEIGHTS AND WORK", "KV PER TOKEN", "A CONVERSATION", "FIT, ALONE"}};
  std::string problems;
  for (const Json& model : plan["models"]) {
    const uint64_t missing = BytesOf(model, "missing_bytes");
    rows.push_back({TextOf(model, "name"), Bytes(BytesOf(model, "process_bytes")),
                    Bytes(BytesOf(model, "kv_bytes_per_token")),
                    Bytes(BytesOf(model, "conversation_bytes")),
                    missing > 0 ? fmt::format("no: {} are missing", Bytes(missing))
                                : Grouped(BytesOf(model, "conversations"))});
    if (model["problem"].is_string())
      problems += fmt::format("{}: {}\n", TextOf(model, "name"), TextOf(model, "problem"));
  }
  const Json& together = plan["together"];
  std::string text =
      Table(rows) + fmt::format("\nMemory for models: {}. Conversations have {} tokens.\n",
                                Bytes(BytesOf(plan, "budget_bytes")),
                                Grouped(BytesOf(plan, "context")));
  if (plan["models"].size() > 1) {
    text +=
        together["fits"].get<bool>()
            ? fmt::format("All fit together, with {} for KV: {} conversations of each at a time.\n",
                          Bytes(BytesOf(together, "left_bytes")),
                          Grouped(BytesOf(together, "conversations")))
            : fmt::format(
                  "They do not fit together, {} are missing: they are loaded when they "
                  "are asked for, and take turns.\n",
                  Bytes(BytesOf(together, "missing_bytes")));
  }
  return text + (problems.empty() ? "" : "\n" + problems);
}

int RunPlan(const std::vector<std::string>& names, int context, const ConfigFlags& flags,
            const GetEnv& env, bool json) {
  std::vector<std::string> warnings;
  const auto config = LoadConfig(flags, env, &warnings);
  if (!config) return Fail(config.error());
  std::vector<ModelConfig> chosen;
  for (const std::string& name : names) {
    const auto choice = ChooseModel(name, flags, env);
    if (!choice) return Fail(choice.error());
    chosen.push_back(choice->model);
  }
  if (names.empty()) chosen = config->models;
  const hub::ModelPlaces places = hub::PlacesOf(*config, env);
  std::vector<PlanModel> models;
  for (const ModelConfig& model : chosen) models.push_back(PlanModelOf(*config, model, places));
  const Json plan =
      Plan(models, MemoryBudget(config->memory_max, ReadMemoryState().capacity), context);
  fmt::print("{}", json ? DumpJson(plan) + "\n" : FormatPlan(plan));
  const bool is_bad = std::ranges::any_of(plan["models"], [](const Json& model) {
    return model["problem"].is_string() || BytesOf(model, "missing_bytes") > 0;
  });
  return is_bad ? protocol::kExitBadModel : protocol::kExitOk;
}

}  // namespace perdure::cli
