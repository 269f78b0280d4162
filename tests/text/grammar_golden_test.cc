// Grammars against Python's jsonschema and re: goldens/grammar/make_goldens.py tells how they are
// made.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "grammar_test_tools.h"
#include "text/grammar/pattern.h"
#include "text/json_escape.h"

namespace perdure::text {
namespace {

namespace fs = std::filesystem;

std::vector<Json> LinesOf(const fs::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(Json::parse(line));
  return lines;
}

void CheckSchemas(const fs::path& path, bool must_accept_canonical) {
  int refused = 0, supported = 0, valid = 0, accepted = 0, missed = 0;
  for (const Json& line : LinesOf(path)) {
    const auto grammar = CompileJsonSchema(line["schema"]);
    if (!grammar) {
      EXPECT_EQ(grammar.error().code, ErrorCode::invalid_request);
      ++refused;
      // A schema of which nothing can be made has no instances.
      const bool never = grammar.error().message.find("can never be") != std::string::npos;
      for (const Json& row : line["instances"]) {
        EXPECT_FALSE(must_accept_canonical && never && row[1].get<bool>() && row[2].get<bool>())
            << DumpJson(line["schema"]) << " has " << row[0];
      }
      continue;
    }
    ++supported;
    for (const Json& row : line["instances"]) {
      const std::string text = row[0].get<std::string>();
      const bool is_valid = row[1].get<bool>(), canonical = row[2].get<bool>();
      const bool accepts = Accepts(*grammar, text);
      valid += is_valid;
      accepted += accepts;
      missed += is_valid && !accepts;
      EXPECT_TRUE(is_valid || !accepts)
          << DumpJson(line["schema"]) << "\n  accepts what is not valid: " << text;
      EXPECT_TRUE(accepts || !must_accept_canonical || !canonical || !is_valid)
          << DumpJson(line["schema"]) << "\n  refuses " << text;
    }
  }
  std::cout << path.filename().string() << ": " << supported << " schemas supported, " << refused
            << " refused; of " << valid << " valid instances " << accepted << " accepted, "
            << missed << " not\n";
}

// The variable names a file of further schemas whose licence keeps them out of here, if there is
// one.
TEST(GrammarGoldens, SchemasAreSoundAndTakeWhatTheyDeclare) {
  CheckSchemas(fs::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/grammar/schemas.jsonl", true);
  if (const char* more = std::getenv("PERDURE_SCHEMA_SUITE")) CheckSchemas(more, false);
}

TEST(GrammarGoldens, PatternsMatchWhatPythonMatches) {
  for (const Json& line :
       LinesOf(fs::path(PERDURE_SOURCE_DIR) / "tests/text/goldens/grammar/patterns.jsonl")) {
    AutomatonBudget budget;
    const auto automaton = CompilePatternInJson(line["pattern"].get<std::string>(), &budget);
    ASSERT_TRUE(automaton) << automaton.error().message;
    for (const Json& row : line["texts"])
      EXPECT_EQ((*automaton)->Matches(JsonQuoted(row[0].get<std::string>())), row[1].get<bool>())
          << line["pattern"] << " in " << row[0];
  }
}

}  // namespace
}  // namespace perdure::text
