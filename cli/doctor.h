// `perdure doctor`: what of this machine and configuration would keep the service from running
// well, and what to do about it.
#pragma once

#include <string>

#include "base/config.h"
#include "base/json.h"

namespace perdure::cli {

// {"version", "checks": [{"name", "state": "ok" | "warning" | "problem", "found", "advice"}],
// "cpu": {"instruction_sets": [names of those this CPU has, fastest last], "chosen", "threads"}}.
// "advice" is null where all is well. Folders are looked at, and the port is listened on for a
// moment; nothing is created or changed.
Json Diagnose(const ConfigFlags& flags, const GetEnv& env);
std::string FormatDoctor(const Json& report);

// Prints; returns the exit code: kExitSystem where a check found a problem.
int RunDoctor(const ConfigFlags& flags, const GetEnv& env, bool json);

}  // namespace perdure::cli
