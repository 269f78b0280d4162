// Asking the running supervisor through its control socket.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace perdure::cli {

// Sends {"op": op, "model": model} and returns the answer. io_error with the next step when nothing
// listens there; the supervisor's own error where it refuses.
Result<Json> AskSupervisor(const std::filesystem::path& runtime_dir, std::string_view op,
                           const std::optional<std::string>& model = std::nullopt);

// The same with any line. `passed_fd` goes along, unless it is -1.
Result<Json> AskSupervisorWith(const std::filesystem::path& runtime_dir, const Json& line,
                               int passed_fd = -1);

}  // namespace perdure::cli
