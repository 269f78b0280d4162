// Schemas that are made to cost: each ends in an error or a grammar, in bounded time and memory.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "grammar_test_tools.h"

namespace perdure::text {
namespace {

std::string Times(std::string_view text, size_t count) {
  std::string all;
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

Json PatternSchema(const std::string& pattern) {
  return Json{{"type", "string"}, {"pattern", pattern}};
}

struct Hostile {
  std::string name;
  std::function<Json()> schema;
  bool fails = true;
};

class HostileSchema : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSchema, EndsSoon) {
  const Json schema = GetParam().schema();
  const auto begin = std::chrono::steady_clock::now();
  const auto grammar = CompileJsonSchema(schema);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  RecordProperty("ms", static_cast<int>(took.count()));
  std::cout << GetParam().name << ": " << took.count() << " ms, "
            << (grammar ? "accepted" : grammar.error().message) << "\n";
  EXPECT_EQ(!grammar, GetParam().fails);
  if (grammar) {
    EXPECT_LT((*grammar)->memory_bytes(), size_t{64} << 20);
    return;
  }
  EXPECT_EQ(grammar.error().code, ErrorCode::invalid_request);
  EXPECT_LT(grammar.error().message.size(), 1000u);
}

INSTANTIATE_TEST_SUITE_P(
    Table, HostileSchema,
    testing::Values(
        Hostile{"nested groups",
                [] { return PatternSchema(Times("(", 60'000) + "a" + Times(")", 60'000)); }},
        Hostile{"groups within the bytes",
                [] { return PatternSchema(Times("(", 8000) + "a" + Times(")", 8000)); }},
        Hostile{"nested repetitions",
                [] { return PatternSchema("((((a{1,1000}){1,1000}){1,1000}){1,1000})"); }},
        Hostile{"exponential states", [] { return PatternSchema("^.*a.{1000}$"); }},
        Hostile{"more exponential states",
                [] { return PatternSchema("^(.*(a|b|c|d|e).{20}|.*f.{19}){1,20}$"); }},
        Hostile{"classes", [] { return PatternSchema("^" + Times("[^a-z]{1,1000}", 100) + "$"); }},
        Hostile{"empty groups", [] { return PatternSchema("((a*)*)*" + Times("(b*)*", 50)); },
                false},
        Hostile{"patterns in many properties",
                [] {
                  Json properties = Json::object();
                  for (int i = 0; i < 500; ++i)
                    properties["p" + std::to_string(i)] =
                        PatternSchema("^.{0," + std::to_string(i + 500) + "}x$");
                  return Json{{"properties", properties}};
                }},
        Hostile{"references in a ring",
                [] {
                  Json defs = Json::object();
                  for (int i = 0; i < 3000; ++i)
                    defs["d" + std::to_string(i)] = {
                        {"$ref", "#/$defs/d" + std::to_string((i + 1) % 3000)}};
                  return Json{{"$defs", defs}, {"$ref", "#/$defs/d0"}};
                }},
        Hostile{"a long chain of objects",
                [] {
                  Json defs = Json::object();
                  for (int i = 0; i < 3000; ++i)
                    defs["d" + std::to_string(i)] = {
                        {"type", "object"},
                        {"properties", {{"x", {{"$ref", "#/$defs/d" + std::to_string(i + 1)}}}}}};
                  defs["d3000"] = {{"type", "null"}};
                  return Json{{"$defs", defs}, {"$ref", "#/$defs/d0"}};
                },
                false},
        Hostile{"references that double",
                [] {
                  Json defs = Json::object();
                  for (int i = 0; i < 40; ++i) {
                    const Json next = {{"$ref", "#/$defs/d" + std::to_string(i + 1)}};
                    defs["d" + std::to_string(i)] = {
                        {"anyOf", {next, {{"allOf", {next, {{"title", "x"}}}}}}}};
                  }
                  defs["d40"] = {{"type", "null"}};
                  return Json{{"$defs", defs}, {"$ref", "#/$defs/d0"}};
                }},
        Hostile{"alternatives that multiply",
                [] {
                  Json all = Json::array();
                  for (int i = 0; i < 40; ++i)
                    all.push_back(
                        {{"anyOf",
                          {{{"minLength", i}}, {{"maxLength", 1000 + i}}, {{"pattern", "^a"}}}}});
                  return Json{{"allOf", all}};
                }},
        Hostile{"deep alternatives",
                [] {
                  Json schema = {{"type", "null"}};
                  for (int i = 0; i < 500; ++i) schema = {{"anyOf", {schema}}};
                  return schema;
                }},
        Hostile{"a large enum",
                [] {
                  Json values = Json::array();
                  for (int i = 0; i < 100'000; ++i) values.push_back("value " + std::to_string(i));
                  return Json{{"enum", values}};
                }},
        Hostile{"long values of an enum",
                [] {
                  Json values = Json::array();
                  for (int i = 0; i < 100; ++i)
                    values.push_back(std::string(1000, static_cast<char>('a' + i % 26)) +
                                     std::to_string(i));
                  return Json{{"enum", values}};
                }},
        Hostile{"an enum of the usual size",
                [] {
                  Json values = Json::array();
                  for (int i = 0; i < 1000; ++i) values.push_back("value " + std::to_string(i));
                  return Json{{"enum", values}};
                },
                false},
        Hostile{"an enum of many objects",
                [] {
                  Json values = Json::array();
                  for (int i = 0; i < 19'000; ++i) values.push_back({{"k", i}});
                  return Json{{"properties", {{"a", {{"enum", values}}}}}};
                }},
        Hostile{"a deep constant",
                [] {
                  Json value = 1;
                  for (int i = 0; i < 1000; ++i) value = Json::array({value});
                  return Json{{"const", value}};
                }},
        Hostile{"1e9 items",
                [] {
                  return Json{{"type", "array"}, {"minItems", 1'000'000'000}};
                }},
        Hostile{"up to 1e9 items of up to 1e9",
                [] {
                  return Json{{"type", "array"},
                              {"maxItems", 1'000'000'000},
                              {"items", {{"type", "array"}, {"maxItems", 1'000'000'000}}}};
                },
                false},
        Hostile{"many properties",
                [] {
                  Json properties = Json::object();
                  using Entries = std::vector<Json::object_t::value_type>;
                  auto& entries = static_cast<Entries&>(properties.get_ref<Json::object_t&>());
                  for (int i = 0; i < 1000; ++i)
                    entries.emplace_back("p" + std::to_string(i), Json{{"type", "string"}});
                  return Json{{"properties", properties}};
                },
                false},
        Hostile{"far too many properties",
                [] {
                  Json properties = Json::object();
                  using Entries = std::vector<Json::object_t::value_type>;
                  auto& entries = static_cast<Entries&>(properties.get_ref<Json::object_t&>());
                  for (int i = 0; i < 100'000; ++i)
                    entries.emplace_back("p" + std::to_string(i), true);
                  return Json{{"properties", properties}};
                }},
        Hostile{"many required names",
                [] {
                  Json names = Json::array();
                  for (int i = 0; i < 100'000; ++i) names.push_back("p" + std::to_string(i));
                  return Json{{"type", "object"}, {"required", names}};
                }},
        Hostile{"a large oneOf",
                [] {
                  Json branches = Json::array();
                  for (int i = 0; i < 2000; ++i) branches.push_back({{"const", i}});
                  return Json{{"oneOf", branches}};
                }},
        Hostile{"a large prime divisor",
                [] {
                  return Json{{"type", "integer"}, {"multipleOf", 1999}};
                }},
        Hostile{"many divisors",
                [] {
                  Json all = Json::array();
                  for (const int divisor : {3, 7, 11, 13, 17, 19, 23, 29})
                    all.push_back({{"type", "integer"}, {"multipleOf", divisor}});
                  return Json{{"allOf", all}};
                }},
        Hostile{"a round divisor",
                [] {
                  return Json{{"type", "integer"}, {"multipleOf", 1000}};
                },
                false},
        Hostile{"a name that is not UTF-8",
                [] {
                  return Json{{"properties", {{"\xFF", true}}}};
                }},
        Hostile{"a constant that is not UTF-8",
                [] {
                  return Json{{"const", "\xFF"}};
                }},
        Hostile{"many lengths",
                [] {
                  Json all = Json::array();
                  for (int i = 0; i < 300; ++i)
                    all.push_back({{"type", "string"}, {"pattern", "^a" + std::to_string(i)}});
                  return Json{{"allOf", all}};
                }}),
    [](const auto& info) {
      std::string name;
      for (const char c : info.param.name) name += std::isalnum(c) ? c : '_';
      return name;
    });

}  // namespace
}  // namespace perdure::text
