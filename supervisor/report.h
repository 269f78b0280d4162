// What `perdure ps` shows, as one line of JSON; the fields stand in docs/wire_protocol.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/listen.h"
#include "supervisor/frontend_child.h"
#include "supervisor/memory_report.h"
#include "supervisor/model_worker.h"

namespace perdure::supervisor {

struct ReportInputs {
  int64_t started_ms = 0;
  bool draining = false;
  std::string url;
  const FrontendChild* frontend = nullptr;
  std::vector<const ModelWorker*> models;
  MemoryBudgetFacts memory;
};
std::string PsReport(const ReportInputs& inputs);
// Its member "memory", for /admin/memory.
std::string MemoryText(const ReportInputs& inputs);

// {"url": "…", "admin_token": "…"}: how to reach /admin from this machine.
std::string AdminReport(const Listener& listener, const std::string& admin_token);

// {"error": "…"}
std::string ErrorReport(std::string_view message);
// {"ok": true, "pid": …, "changes": […], "warnings": […]}
std::string OkReport(const std::vector<std::string>& changes,
                     const std::vector<std::string>& warnings);

// A line that a client sent.
struct ControlRequest {
  std::string op;
  std::optional<std::string> model;
  bool kv = false;  // backup
};
Result<ControlRequest> ParseControlLine(std::string_view line);

}  // namespace perdure::supervisor
