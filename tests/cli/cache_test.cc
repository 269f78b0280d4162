#include "cli/cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "protocol/heritage.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"

namespace perdure::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Format(const std::string& operation, const std::string& nano) {
  return FormatCache(operation, Json::parse("{\"models\":{\"nano\":" + nano + "}}"));
}

TEST(CacheFormat, Stats) {
  const std::string text = Format("stats", R"({
    "description": "kv: 16-bit numbers, every position", "entries": 3, "tokens": 12345,
    "bytes": 1048576, "bytes_granted": 2097152, "bytes_max": 1073741824,
    "memory": {"running_bytes": 1024, "idle_bytes": 2048, "unclaimed_bytes": 0,
               "shared_bytes": 3072, "pinned_bytes": 4096},
    "pages": {"bits16": 10, "bits8": 20, "bits4": 30, "hollow": 4, "dropped": 5000, "damaged": 6},
    "hit_rate": 0.755, "cached_tokens": 7550, "prompt_tokens": 10000, "requests": 42,
    "fragmentation": 0.125, "last_optimized": 0,
    "conversations": {"max": 100, "begun": 7, "continued": 9, "expired": 1, "displaced": 2,
                      "spliced_tokens": 11},
    "types": {"kv": {"entries": 2, "tokens": 1000, "bytes": 512, "requests": 30, "hit_rate": 0.5},
              "rotating_kv": {"entries": 1, "tokens": 11345, "bytes": 2048, "requests": 12,
                              "hit_rate": 1}}})");
  for (const char* part :
       {"nano:\n", "kv: 16-bit numbers, every position",
        "3 of up to 100; 7 begun, 9 turns more, 1 expired, 2 displaced",
        "12,345 tokens in 1.0 MiB; 2.0 MiB asked of the system, up to 1.0 GiB",
        "running requests 1.0 KiB, idle conversations 2.0 KiB, nobody 0 B; 3.0 KiB shared, "
        "4.0 KiB pinned",
        "10 in 16 bits, 20 in 8, 30 in 4; 4 without their numbers; 5,000 dropped, 6 damaged",
        "75.5%: 7,550 of 10,000 prompt tokens, in 42 requests; 11 spliced", "fragmentation  12.5%",
        "optimized      never", "TYPE         CONVERSATIONS  TOKENS  MEMORY   REQUESTS  HIT RATE",
        "kv           2              1,000   512 B    30        50.0%",
        "rotating_kv  1              11,345  2.0 KiB  12        100.0%"})
    EXPECT_THAT(text, HasSubstr(part));
}

TEST(CacheFormat, StatsOfAnEmptyCache) {
  const std::string text = Format("stats", "{}");
  EXPECT_THAT(text, HasSubstr("0 tokens in 0 B"));
  EXPECT_THAT(text, Not(HasSubstr("HIT RATE"))) << "a table of no types";
}

TEST(CacheFormat, SaysWhenItWasOptimized) {
  EXPECT_THAT(
      Format("stats", R"({"last_optimized":1700000000})"),
      testing::ContainsRegex("optimized +2023-11-1[45] [0-9][0-9]:[0-9][0-9]:[0-9][0-9]\n"));
}

TEST(CacheFormat, Optimize) {
  EXPECT_EQ(Format("optimize", R"({"dropped_bytes":2048,"returned_bytes":1048576,
                                   "fragmentation":0.01,"fragmentation_before":0.5})"),
            "nano:\n2.0 KiB that nobody needs dropped, 1.0 MiB returned to the system, "
            "fragmentation 1.0% (was 50.0%)\n");
}

TEST(CacheFormat, Clear) {
  EXPECT_EQ(Format("clear", R"({"conversations":1200,"dropped_bytes":65536,"returned_bytes":0})"),
            "nano:\n1,200 conversations forgotten, 64.0 KiB dropped, 0 B returned to the system\n");
}

TEST(CacheFormat, Health) {
  EXPECT_EQ(Format("health", R"({"healthy":true,"checked_pages":1500,"checked_bytes":3145728,
                                 "seconds":0.25,"issues":[]})"),
            "nano:\nhealthy: 1,500 pages, 3.0 MiB, compared with their checksums in 0.2 s\n");
  EXPECT_EQ(Format("health", R"({"healthy":false,"checked_pages":2,"checked_bytes":1024,
                                 "seconds":2,"issues":["page 7 is damaged","page 9 has no owner"]})"),
            "nano:\ndamaged: 2 pages, 1.0 KiB, compared with their checksums in 2.0 s\n"
            "- page 7 is damaged\n- page 9 has no owner\n");
  EXPECT_THAT(Format("health", "{}"), HasSubstr("damaged")) << "health is not assumed";
}

TEST(CacheFormat, Recommend) {
  EXPECT_EQ(Format("recommend", R"({"recommendations":[
                {"text":"Half of it would do.","setting":"kv_bytes_max = \"1 GiB\""},
                {"text":"Nothing is ever found again."}]})"),
            "nano:\n- Half of it would do.\n  kv_bytes_max = \"1 GiB\"\n"
            "- Nothing is ever found again.\n  -\n");
  for (const char* none : {"{}", R"({"recommendations":[]})"})
    EXPECT_THAT(Format("recommend", none), HasSubstr("nothing to recommend")) << none;
}

TEST(CacheFormat, Monitor) {
  const std::string text = Format("monitor", R"({"seconds":60,"requests":1234,
      "avg_response_ms":150.4,"median_response_ms":100,"p95_response_ms":900.6,"hit_rate":0.333,
      "prompt_tokens":5000,"memory_efficiency":0.8})");
  EXPECT_THAT(text, HasSubstr("watched            60 s\n"));
  EXPECT_THAT(text, HasSubstr("requests           1,234\n"));
  EXPECT_THAT(text, HasSubstr("150 ms on average, half below 100, 95% below 901\n"));
  EXPECT_THAT(text, HasSubstr("33.3% of 5,000 prompt tokens\n"));
  EXPECT_THAT(text, HasSubstr("memory efficiency  80.0%\n"));
}

TEST(CacheFormat, AModelThatCannotAnswerSaysWhy) {
  const Json answer = Json::parse(R"({"models":{
      "a":{"error":{"message":"The model's process ended.","code":"worker_lost"}},
      "b":{"conversations":0}}})");
  EXPECT_EQ(FormatCache("clear", answer),
            "a:\nThe model's process ended.\n\n"
            "b:\n0 conversations forgotten, 0 B dropped, 0 B returned to the system\n");
  for (const char* operation : {"stats", "optimize", "health", "recommend", "monitor"})
    EXPECT_THAT(FormatCache(operation, answer), testing::StartsWith("a:\nThe model's process ended."
                                                                    "\n\nb:\n"))
        << operation;
}

TEST(CacheFormat, TakesWhateverANewerServiceSends) {
  for (const char* operation : {"stats", "optimize", "clear", "health", "recommend", "monitor"}) {
    for (const char* models : {"{}", R"({"models":[]})", R"({"models":null})", "[]"})
      EXPECT_EQ(FormatCache(operation, Json::parse(models)), "") << operation << models;
    for (const char* nano :
         {"7", "[]", "null", R"({"error":"text"})", R"({"healthy":7})", R"({"types":7,"pages":[]})",
          R"({"issues":[7],"recommendations":{},"entries":-1,"bytes":"x"})"})
      EXPECT_THAT(Format(operation, nano), testing::StartsWith("nano:\n")) << operation << nano;
  }
}

Result<CommandLine> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"perdure", "cache"});
  const ParsedCommandLine parsed =
      ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
  if (parsed.command_line) return *parsed.command_line;
  return Err(ErrorCode::invalid_request, std::to_string(parsed.exit_code));
}

TEST(CacheCommandLine, NamesAnOperation) {
  for (const char* operation : {"stats", "optimize", "clear", "health", "recommend", "monitor"}) {
    const auto line = Parse({operation});
    ASSERT_TRUE(line) << operation;
    EXPECT_EQ(line->command, Command::kCache);
    EXPECT_EQ(line->cache.operation, operation);
    EXPECT_EQ(line->model, "");
    EXPECT_FALSE(line->json);
    EXPECT_FALSE(line->cache.unused_only);
    EXPECT_EQ(line->cache.seconds, 60);
  }
}

TEST(CacheCommandLine, TakesAModelAndOptions) {
  auto line = Parse({"clear", "nano", "--unused", "--json", "--runtime-dir", "/r"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->model, "nano");
  EXPECT_TRUE(line->cache.unused_only);
  EXPECT_TRUE(line->json);
  EXPECT_EQ(line->flags.runtime_dir, "/r");
  line = Parse({"monitor", "--seconds", "3600"});
  ASSERT_TRUE(line);
  EXPECT_EQ(line->cache.seconds, 3600);
}

class CacheCommandTest : public testing::Test {
 protected:
  Output Run(const std::string& arguments) {
    return RunPerdure(home_.path(), "cache " + arguments + " --runtime-dir '" +
                                        (home_.path() / "run").string() + "'");
  }
  engine::TempDir home_;
};

TEST_F(CacheCommandTest, MistakesAreNamed) {
  struct Row {
    const char* arguments;
    const char* named;
  };
  for (const Row& row :
       {Row{"erase", "subcommand is required"}, Row{"stats --unused", "--unused"},
        Row{"clear --seconds 5", "--seconds"}, Row{"monitor --seconds 0", "--seconds"},
        Row{"monitor --seconds 3601", "--seconds"}, Row{"monitor --seconds soon", "--seconds"},
        Row{"stats one two", "two"}}) {
    const Output output = Run(row.arguments);
    EXPECT_EQ(output.code, protocol::kExitUsage) << row.arguments << "\n" << output.text;
    EXPECT_THAT(output.text, HasSubstr(row.named)) << row.arguments;
  }
  const Output none = RunPerdure(home_.path(), "cache");
  EXPECT_EQ(none.code, protocol::kExitUsage) << none.text;
  EXPECT_THAT(none.text, HasSubstr("subcommand"));
}

TEST_F(CacheCommandTest, WithoutAServiceItSaysHowToStartOne) {
  for (const char* arguments : {"stats", "clear nano --json", "monitor --seconds 1"}) {
    const Output output = Run(arguments);
    EXPECT_EQ(output.code, protocol::kExitSystem) << output.text;
    EXPECT_THAT(output.text,
                HasSubstr("no service is running at " + (home_.path() / "run").string()));
    EXPECT_THAT(output.text, HasSubstr("`perdure serve`"));
    EXPECT_THAT(output.text, HasSubstr("--runtime-dir"));
  }
}

}  // namespace
}  // namespace perdure::cli
