// The program itself, run as people run it.
#pragma once

#include <filesystem>
#include <string>

namespace perdure::cli {

struct Output {
  int code = -1;     // -1: it did not exit by itself
  std::string text;  // of both streams
};

// `perdure ARGUMENTS` with a home of its own and, beside `environment` ("NAME=value …"), nothing
// else in its environment: a service that this machine has, and its configuration, are not met.
Output RunPerdure(const std::filesystem::path& home, const std::string& arguments,
                  const std::string& environment = "");

}  // namespace perdure::cli
