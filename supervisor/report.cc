#include "supervisor/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/json.h"
#include "supervisor/proc.h"

namespace perdure::supervisor {
namespace {

uint64_t Load(const std::atomic<uint64_t>& value) { return value.load(std::memory_order_relaxed); }

// JSON numbers are exact up to 2^53: what a child scribbled beyond that is cut.
uint64_t Bounded(uint64_t value) { return std::min(value, uint64_t{1} << 53); }

Json Memory(int pid) {
  Json memory = Json::object();
  const auto use = pid > 0 ? ReadMemoryUse(pid) : std::nullopt;
  memory["rss_bytes"] = use ? use->rss_bytes : 0;
  memory["shared_bytes"] = use ? use->shared_bytes : 0;
  return memory;
}

Json DeathReport(const Obituary& obituary) {
  Json rids = Json::array();
  for (const uint64_t rid : obituary.last_words.step_rids)
    rids.push_back(fmt::format("{:016x}", rid));
  return Json{{"class", DeathClassName(obituary.death)},
              {"summary", Summary(obituary)},
              {"status", DescribeExit(obituary.signaled, obituary.code)},
              {"pid", obituary.pid},
              {"unix_time", obituary.unix_time},
              {"lived_s", static_cast<double>(obituary.lived_ms) / 1000.0},
              {"phase", PhaseName(obituary.last_words.phase)},
              {"step", obituary.last_words.step},
              {"requests", std::move(rids)},
              {"panic", obituary.last_words.panic_text},
              {"log", obituary.log_lines}};
}

void AddDeaths(const ManagedChild& child, Json* report) {
  (*report)["deaths"] = child.deaths();
  (*report)["reason"] = child.reason();
  Json deaths = Json::array();
  for (const Obituary& obituary : child.obituaries()) deaths.push_back(DeathReport(obituary));
  (*report)["last_death"] = deaths.empty() ? Json() : deaths.back();
  (*report)["recent_deaths"] = std::move(deaths);
}

Json PidOrNull(const ManagedChild& child) { return child.pid() > 0 ? Json(child.pid()) : Json(); }

// Its process without the arena, which is counted once, whoever maps it.
uint64_t KernelBytes(const ModelWorker& model) {
  const auto use = model.pid() > 0 ? ReadMemoryUse(model.pid()) : std::nullopt;
  return (use ? use->own_bytes : 0) + model.arena_bytes();
}

Json ModelReport(const ModelWorker& model, int64_t now_ms) {
  Json report = Json::object();
  report["name"] = model.name();
  report["state"] = protocol::ModelStateName(model.state());
  report["pid"] = PidOrNull(model);
  report["default"] = model.is_default();
  report["epoch"] = model.epoch();
  AddDeaths(model, &report);
  report["retry_after_s"] = static_cast<double>(model.until_retry_ms(now_ms)) / 1000.0;

  const protocol::WorkerReady none;
  const protocol::WorkerReady& facts = model.facts() ? *model.facts() : none;
  report["architecture"] = facts.architecture;
  report["quantization"] = facts.quantization;
  report["isa"] = facts.isa;
  report["parameters"] = facts.parameters;
  report["max_context"] = facts.max_context;

  static const shm::StatusShm kNothing{};
  const shm::StatusShm& status = model.status() != nullptr ? *model.status() : kNothing;
  report["phase"] = PhaseName(shm::ReadLastWords(status).phase);
  report["running"] = status.sequences_running.load(std::memory_order_relaxed);
  report["waiting"] = status.sequences_waiting.load(std::memory_order_relaxed) + model.waiting();
  report["pinned"] = model.Use(now_ms).pinned;
  report["steps"] = Bounded(Load(status.steps_completed));
  report["tokens_prefilled"] = Bounded(Load(status.tokens_prefilled));
  report["tokens_generated"] = Bounded(Load(status.tokens_generated));
  report["load_bytes_done"] = Bounded(Load(status.load_bytes_done));
  report["load_bytes_total"] = Bounded(Load(status.load_bytes_total));

  const uint64_t used = Bounded(Load(status.kv_bytes_used));
  const uint64_t reserved = Bounded(Load(status.kv_bytes_reserved));
  const uint64_t page = facts.kv_page_bytes;
  Json arena = Json::object();
  arena["pages"] = page > 0 ? reserved / page : 0;
  arena["used"] = page > 0 ? (used + page - 1) / page : 0;
  arena["page_bytes"] = page;
  arena["bytes"] = reserved;
  arena["used_bytes"] = used;
  arena["damaged"] = Bounded(Load(status.kv_pages_damaged));
  arena["shared"] = model.has_arena();
  report["arena"] = std::move(arena);

  Json memory = Memory(model.pid());
  memory["weights_bytes"] = facts.weight_bytes;
  memory["kv_bytes"] = used;
  memory["kv_reserved_bytes"] = reserved;
  // As the ledger has it, and as the kernel has.
  const ModelUse use = model.Use(now_ms);
  memory["process_bytes"] = model.pid() > 0 ? use.process_bytes : 0;
  memory["kv_granted_bytes"] = use.kv_bytes;
  memory["held_bytes"] = HeldBytes(use);
  memory["kernel_bytes"] = KernelBytes(model);
  report["memory"] = std::move(memory);
  return report;
}

}  // namespace

std::string MemoryText(const ReportInputs& inputs) {
  return DumpJson(MemoryReport({inputs.memory, inputs.frontend, inputs.models}));
}

std::string PsReport(const ReportInputs& inputs) {
  const int64_t now_ms = MonotonicMs();
  Json report = Json::object();
  report["supervisor"] =
      Json{{"pid", getpid()},
           {"state", inputs.draining ? "stopping" : "running"},
           {"version", PERDURE_VERSION},
           {"uptime_s", static_cast<double>(now_ms - inputs.started_ms) / 1000.0},
           {"memory", Memory(getpid())}};
  const FrontendChild& frontend = *inputs.frontend;
  Json front = Json::object();
  front["pid"] = PidOrNull(frontend);
  front["state"] = protocol::ModelStateName(frontend.state());
  front["url"] = inputs.url;
  AddDeaths(frontend, &front);
  front["memory"] = Memory(frontend.pid());
  report["frontend"] = std::move(front);
  report["memory"] = MemoryReport({inputs.memory, inputs.frontend, inputs.models});
  report["models"] = Json::array();
  for (const ModelWorker* model : inputs.models)
    report["models"].push_back(ModelReport(*model, now_ms));
  return DumpJson(report);
}

std::string AdminReport(const Listener& listener, const std::string& admin_token) {
  Listener local;
  local.address = listener.address == "0.0.0.0" ? "127.0.0.1"
                  : listener.address == "::"    ? "::1"
                                                : listener.address;
  local.port = listener.port;
  return DumpJson(Json{{"url", local.Url()}, {"admin_token", admin_token}});
}

std::string ErrorReport(std::string_view message) { return DumpJson(Json{{"error", message}}); }

std::string OkReport(const std::vector<std::string>& changes,
                     const std::vector<std::string>& warnings) {
  return DumpJson(
      Json{{"ok", true}, {"pid", getpid()}, {"changes", changes}, {"warnings", warnings}});
}

Result<ControlRequest> ParseControlLine(std::string_view line) {
  constexpr int kDepth = 4;
  ASSIGN_OR_RETURN(const Json request,
                   ParseJson(line, "the line", ErrorCode::invalid_request, kDepth));
  if (!request.is_object() || !request.contains("op") || !request["op"].is_string())
    return Err(ErrorCode::invalid_request,
               "a line must be an object with an \"op\": ps, reload, stop, admin or backup");
  ControlRequest parsed;
  parsed.op = request["op"].get<std::string>();
  if (const auto model = request.find("model"); model != request.end()) {
    if (!model->is_string())
      return Err(ErrorCode::invalid_request, "\"model\" must be a model's name");
    parsed.model = model->get<std::string>();
  }
  if (const auto kv = request.find("kv"); kv != request.end()) {
    if (!kv->is_boolean()) return Err(ErrorCode::invalid_request, "\"kv\" must be true or false");
    parsed.kv = kv->get<bool>();
  }
  return parsed;
}

}  // namespace perdure::supervisor
