#include "cache_command.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/engine/synth_model.h"

namespace perdure::process_tests {

cli::Output Cache(const Service& service, const std::string& arguments) {
  const engine::TempDir home;
  return cli::RunPerdure(home.path(), fmt::format("cache {} --runtime-dir '{}'", arguments,
                                                  (service.folder() / "run").string()));
}

Json CacheJson(const Service& service, const std::string& arguments, int code) {
  const cli::Output output = Cache(service, arguments + " --json");
  EXPECT_EQ(output.code, code) << output.text;
  const auto json = ParseJson(output.text, "the output", ErrorCode::protocol_error);
  const auto nano = "/models/nano"_json_pointer;
  return json && json->contains(nano) ? (*json)[nano] : Json::object();
}

}  // namespace perdure::process_tests
