// `perdure cache …`, asked of a test's service.
#pragma once

#include <string>

#include "base/json.h"
#include "service.h"
#include "tests/cli/run_perdure.h"

namespace perdure::process_tests {

cli::Output Cache(const Service& service, const std::string& arguments);
// With --json: what it says of nano. Its exit code is `code`.
Json CacheJson(const Service& service, const std::string& arguments, int code = 0);

}  // namespace perdure::process_tests
