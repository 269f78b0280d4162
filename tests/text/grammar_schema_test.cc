// Schemas with texts that they accept and refuse.
#include <gtest/gtest.h>

#include "grammar_test_tools.h"

namespace perdure::text {
namespace {

struct Row {
  std::string schema;
  std::vector<std::string> accepted;
  std::vector<std::string> refused;
};

class JsonSchemaTable : public testing::TestWithParam<Row> {};

TEST_P(JsonSchemaTable, AcceptsAndRefuses) {
  const GrammarPtr grammar = SchemaGrammar(JsonOf(GetParam().schema));
  ASSERT_TRUE(grammar);
  for (const std::string& text : GetParam().accepted)
    EXPECT_TRUE(Accepts(grammar, text)) << GetParam().schema << "\n  should accept " << text;
  for (const std::string& text : GetParam().refused)
    EXPECT_FALSE(Accepts(grammar, text)) << GetParam().schema << "\n  should refuse " << text;
}

INSTANTIATE_TEST_SUITE_P(
    Types, JsonSchemaTable,
    testing::Values(Row{R"({"type":"null"})", {"null"}, {"nul", "nulls", "true", "\"\""}},
                    Row{R"({"type":"boolean"})", {"true", "false"}, {"null", "0"}},
                    Row{R"({"type":"integer"})",
                        {"0", "-1", "12345", "-0"},
                        {"", "-", "01", "1.0", "1e3", "+1", "12345678901234567890"}},
                    Row{R"({"type":"number"})",
                        {"0", "-1.5", "1e10", "2.5E-3", "0.001"},
                        {".5", "1.", "1e", "00", "1e999", "NaN", "Infinity"}},
                    Row{R"({"type":"string"})",
                        {R"("")", R"("a")", R"("\n\t\"\\\/")", R"("é")", R"("\u00e9\ud83d\ude00")",
                         "\"😀\""},
                        {"\"", "\"\n\"", R"("\x")", R"("\ud83d")", R"("\ude00")", R"("\u12")",
                         "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "a"}},
                    Row{R"({"type":["string","null"]})", {R"("x")", "null"}, {"1"}},
                    Row{R"({"type":["integer","number"]})", {"1", "1.5"}, {"null"}},
                    Row{"true", {"1", "{}", "[]", R"({"a":[1,{"b":null}]})"}, {"", "{", "[1,]"}},
                    Row{"{}", {"1", R"("x")"}, {"x"}},
                    Row{R"({"description":"d","title":"t","default":1,"examples":[2],"$comment":"c",
               "deprecated":true,"readOnly":true,"x-other":{}})",
                        {"1"},
                        {}}));

INSTANTIATE_TEST_SUITE_P(
    Objects, JsonSchemaTable,
    testing::Values(
        Row{R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},
               "required":["a","b"],"additionalProperties":false})",
            {R"({"a":1,"b":"x"})", R"({"a": 1, "b": "x"})", "{\n  \"a\": 1,\n  \"b\": \"x\"\n}"},
            {R"({"b":"x","a":1})", R"({"a":1})", R"({"a":1,"b":"x","c":1})", R"({"a":1,"b":"x",})",
             R"({ "a"  :1,"b":"x"})", "{\"a\":1,\n\n\"b\":\"x\"}", R"({"a":1,"b":"x"} )"}},
        // Optional properties in every combination, in their order.
        Row{R"({"properties":{"a":{"const":1},"b":{"const":2},"c":{"const":3}},"required":["b"]})",
            {R"({"b":2})", R"({"a":1,"b":2})", R"({"b":2,"c":3})", R"({"a":1,"b":2,"c":3})"},
            {"{}", R"({"a":1})", R"({"a":1,"c":3})", R"({"b":2,"a":1})", R"({,"b":2})",
             R"({"b":2,})", R"({"b":2"c":3})", R"({"b":2,"d":4})"}},
        Row{R"({"properties":{"a":true,"b":true}})",
            {"{}", "{ }", "{\n}", R"({"a":1})", R"({"b":1})", R"({"a":1,"b":2})"},
            {R"({"c":1})", R"({"a":1,"a":1})"}},
        Row{R"({"type":"object"})", {"{}", R"({"x":{"y":[]}})"}, {"[]"}},
        Row{R"({"type":"object","additionalProperties":false})", {"{}"}, {R"({"a":1})"}},
        Row{R"({"properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"string"}})",
            {"{}", R"({"a":1})", R"({"a":1,"b":"x","aa":"y","":"z"})", R"({"b":"x"})"},
            {R"({"a":"x"})", R"({"b":1})", R"({"b":"x","a":"y"})", R"({"b":"x","\u0061":"y"})"}},
        Row{R"({"required":["z"],"properties":{"a":true},"additionalProperties":{"type":"null"}})",
            {R"({"z":null})", R"({"a":1,"z":null})"},
            {"{}", R"({"a":1})", R"({"z":1})"}},
        Row{R"({"type":"object","required":["a"]})", {R"({"a":1,"b":2})"}, {"{}", R"({"b":1})"}},
        Row{R"({"properties":{"a":false,"b":true}})", {"{}", R"({"b":1})"}, {R"({"a":1})"}},
        Row{R"({"properties":{"é\"\n":{"const":1}},"required":["é\"\n"]})",
            {R"({"é\"\n":1})"},
            {R"({"e":1})"}},
        Row{R"({"patternProperties":{"^x":{"type":"integer"}},"additionalProperties":false})",
            {"{}", R"({"x":1,"xy":2})"},
            {R"({"x":"s"})", R"({"y":1})"}},
        Row{R"({"patternProperties":{"^x":{"type":"integer"}},"properties":{"xa":{"minimum":3}},
               "additionalProperties":{"type":"string"}})",
            {R"({"xa":3,"xb":1,"y":"s"})", R"({"y":"s","xb":1})"},
            {R"({"xa":2})", R"({"xa":3.5})", R"({"xb":"s"})", R"({"y":1})"}},
        Row{R"({"type":"object","propertyNames":{"pattern":"^[a-z]+$"}})",
            {"{}", R"({"abc":1})"},
            {R"({"A":1})", R"({"":1})"}},
        Row{R"({"type":"object","minProperties":1,"additionalProperties":{"type":"integer"}})",
            {R"({"a":1})", R"({"a":1,"b":2})"},
            {"{}"}},
        Row{R"({"type":"object","maxProperties":2})",
            {"{}", R"({"a":1,"b":2})"},
            {R"({"a":1,"b":2,"c":3})"}},
        Row{R"({"properties":{"a":true,"b":true},"minProperties":1})",
            {R"({"a":1})", R"({"b":1})"},
            {"{}"}}));

INSTANTIATE_TEST_SUITE_P(
    Arrays, JsonSchemaTable,
    testing::Values(
        Row{R"({"type":"array","items":{"type":"integer"}})",
            {"[]", "[ ]", "[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
            {"[,]", "[1,]", "[1 ,2]", "[\"a\"]", "[1"}},
        Row{R"({"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3})",
            {"[1,2]", "[1,2,3]"},
            {"[]", "[1]", "[1,2,3,4]"}},
        Row{R"({"type":"array","minItems":1})", {"[1]", "[[],{}]"}, {"[]"}},
        Row{R"({"type":"array","maxItems":0})", {"[]"}, {"[1]"}},
        Row{R"({"type":"array","maxItems":1e9,"items":{"const":0}})", {"[]", "[0,0,0]"}, {"[1]"}},
        Row{R"({"prefixItems":[{"const":1},{"const":2}],"items":{"const":3}})",
            {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
            {"[2]", "[1,3]", "[1,2,2]"}},
        Row{R"({"prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":1})",
            {"[1]", "[1,2]"},
            {"[]", "[1,2,3]"}},
        Row{R"({"prefixItems":[{"const":1}],"minItems":3})",
            {"[1,2,3]", "[1,null,{}]"},
            {"[1]", "[1,2]"}},
        Row{R"({"items":[{"const":1}],"additionalItems":{"const":2}})",
            {"[]", "[1,2,2]"},
            {"[2]", "[1,1]"}},
        Row{R"({"type":"array","items":false})", {"[]"}, {"[1]"}},
        Row{R"({"type":"array","uniqueItems":true,"maxItems":1})", {"[]", "[1]"}, {"[1,2]"}},
        Row{R"({"type":"array","uniqueItems":false})", {"[1,1]"}, {}}));

INSTANTIATE_TEST_SUITE_P(
    Scalars, JsonSchemaTable,
    testing::Values(
        Row{R"({"enum":["a","b\n",1,1.5,null,true,{"k":[1,2]},[]]})",
            {R"("a")", R"("b\n")", "1", "1.5", "null", "true", R"({"k":[1,2]})", R"({"k": [1, 2]})",
             "[]"},
            {R"("b")", "2", "false", R"({"k":[1]})"}},
        Row{R"({"const":"é"})", {R"("é")"}, {R"("e")"}},
        Row{R"({"type":"string","enum":["a",1,"b"]})", {R"("a")", R"("b")"}, {"1"}},
        Row{R"({"enum":["a","bb","ccc"],"minLength":2})", {R"("bb")", R"("ccc")"}, {R"("a")"}},
        Row{R"({"enum":[1,2,3],"minimum":2})", {"2", "3"}, {"1"}},
        Row{R"({"enum":["a","b"],"const":"a"})", {R"("a")"}, {R"("b")"}},
        Row{R"({"type":"string","minLength":2,"maxLength":3})",
            {R"("ab")", R"("abc")", R"("éé")", R"("\n\n")", R"("\ud83d\ude00\u0041")", "\"😀😀😀\""},
            {R"("a")", R"("abcd")", R"("😀")", R"("éééé")"}},
        Row{R"({"type":"string","maxLength":0})", {R"("")"}, {R"("a")"}},
        Row{R"({"type":"string","pattern":"^[a-z]+$"})",
            {R"("abc")"},
            {R"("")", R"("aB")", R"("a\n")"}},
        Row{R"({"type":"string","pattern":"b"})", {R"("b")", R"("abc")"}, {R"("ac")"}},
        Row{R"({"type":"string","pattern":"^a|b$"})", {R"("ax")", R"("xb")"}, {R"("xax")"}},
        Row{R"({"type":"string","pattern":"^\"\\\\\\n$"})", {R"("\"\\\n")"}, {R"("x")"}},
        Row{R"({"type":"string","pattern":"^a*$","minLength":1,"maxLength":3})",
            {R"("a")", R"("aaa")"},
            {R"("")", R"("aaaa")"}},
        Row{R"({"type":"integer","minimum":-5,"maximum":12})",
            {"-5", "-1", "0", "9", "10", "12"},
            {"-6", "13", "100", "-10"}},
        Row{R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":100})",
            {"1", "99"},
            {"0", "100", "-1"}},
        Row{R"({"type":"integer","minimum":2.5})", {"3", "1000"}, {"2"}},
        Row{R"({"type":"number","minimum":0,"maximum":1})",
            {"0", "1", "0.5", "1.0", "0.999", "0.0"},
            {"1.1", "-0.1", "2", "1e0", "1.00001"}},
        Row{R"({"type":"number","exclusiveMinimum":0.25})",
            {"0.2500001", "0.3", "1", "7"},
            {"0.25", "0.2", "0.250", "-1", "0"}},
        Row{R"({"type":"number","maximum":-1.5})",
            {"-1.5", "-2", "-1.50", "-10.25"},
            {"-1.4", "0"}},
        Row{R"({"type":"number","minimum":-1.5})", {"-1.5", "-1.4999", "0", "3"}, {"-1.6", "-2"}},
        Row{R"({"type":"integer","multipleOf":7})", {"0", "7", "-14", "700"}, {"1", "8", "-6"}},
        Row{R"({"type":"integer","multipleOf":5,"minimum":11,"maximum":20})",
            {"15", "20"},
            {"10", "16", "25"}},
        Row{R"({"type":"number","multipleOf":0.01})", {"1", "1.5", "1.55", "-0.01"}, {"1.555"}},
        Row{R"({"type":"number","multipleOf":0.25})", {"0.25", "0.5", "1", "0.50"}, {"0.3", "0.1"}},
        Row{R"({"type":"string","format":"date"})",
            {R"("2024-02-29")", R"("2023-12-31")", R"("2000-02-29")"},
            {R"("2023-02-29")", R"("1900-02-29")", R"("2023-13-01")", R"("2023-04-31")",
             R"("0000-01-01")"}},
        Row{R"({"type":"string","format":"date-time"})",
            {R"("2024-01-01T00:00:00Z")", R"("2024-01-01T23:59:59.123+01:30")"},
            {R"("2024-01-01")", R"("2024-01-01T24:00:00Z")", R"("2024-01-01T00:00:00")"}},
        Row{R"({"type":"string","format":"uuid"})",
            {R"("123e4567-e89b-12d3-a456-426614174000")"},
            {R"("123e4567e89b12d3a456426614174000")"}},
        Row{R"({"type":"string","format":"email"})",
            {R"("a.b@example.com")"},
            {R"("a@@b")", R"("a.@b.c")"}},
        Row{R"({"type":"string","format":"ipv4"})",
            {R"("0.0.0.0")", R"("255.10.1.99")"},
            {R"("256.1.1.1")", R"("01.1.1.1")", R"("1.1.1")"}},
        Row{R"({"type":"string","format":"ipv6"})",
            {R"("::")", R"("::1")", R"("1:2:3:4:5:6:7:8")", R"("fe80::1:2")", R"("1::")"},
            {R"("1:2:3:4:5:6:7")", R"("1::2::3")", R"("12345::")", R"("1:2:3:4:5:6:7:8::")"}},
        Row{R"({"type":"string","format":"duration"})",
            {R"("P1Y2M3DT4H5M6S")", R"("PT1M")", R"("P3W")"},
            {R"("P")", R"("PT")", R"("P1D2Y")", R"("P1Y3W")"}},
        Row{R"({"type":"string","format":"hostname"})",
            {R"("example.com")", R"("a-b.c")"},
            {R"("-a.com")", R"("a..b")", R"("a_b")"}},
        Row{R"({"type":"string","format":"uri"})",
            {R"("https://example.com:80/a/b?c=d#e")", R"("mailto:a@b.c")", R"("urn:isbn:1")"},
            {R"("no scheme")", R"("//a/b")", R"("http://a b")"}},
        Row{R"({"type":"string","format":"time"})",
            {R"("12:00:00Z")"},
            {R"("12:00")", R"("25:00:00Z")"}}));

INSTANTIATE_TEST_SUITE_P(
    Combinations, JsonSchemaTable,
    testing::Values(
        Row{R"({"anyOf":[{"type":"string"},{"type":"integer"}]})",
            {R"("a")", "1"},
            {"null", "1.5"}},
        Row{R"({"type":"integer","anyOf":[{"minimum":10},{"maximum":0}]})",
            {"10", "0", "-3"},
            {"5", "1"}},
        Row{R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
                         {"properties":{"b":{"type":"string"}},"required":["b"]}]})",
            {R"({"a":1,"b":"x"})"},
            {R"({"a":1})", R"({"b":"x"})"}},
        Row{R"({"allOf":[{"properties":{"a":{"minimum":1}}},{"properties":{"a":{"maximum":3}}}],
               "type":"object"})",
            {R"({"a":2})"},
            {R"({"a":0})", R"({"a":4})"}},
        Row{R"({"oneOf":[{"type":"string"},{"type":"null"}]})", {R"("x")", "null"}, {"1"}},
        Row{R"({"oneOf":[
                {"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},
                 "required":["kind","x"]},
                {"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"string"}},
                 "required":["kind","y"]}]})",
            {R"({"kind":"a","x":1})", R"({"kind":"b","y":"s"})"},
            {R"({"kind":"a","y":"s"})", R"({"kind":"b","x":1})"}},
        Row{R"({"oneOf":[{"type":"integer","maximum":3},{"type":"integer","minimum":4}]})",
            {"3", "4"},
            {}},
        Row{R"({"$ref":"#/$defs/a","$defs":{"a":{"type":"integer"}}})", {"1"}, {"null"}},
        Row{R"({"$ref":"#/definitions/a~1b%20c","definitions":{"a/b c":{"const":7}}})",
            {"7"},
            {"1"}},
        Row{R"({"type":"array","items":{"$ref":"#/properties/x"},"properties":{"x":{"const":1}}})",
            {"[1,1]"},
            {"[2]"}},
        // A tree.
        Row{R"({"type":"object","properties":{"v":{"type":"integer"},
               "next":{"type":"array","items":{"$ref":"#"}}},"required":["v","next"]})",
            {R"({"v":1,"next":[]})", R"({"v":1,"next":[{"v":2,"next":[{"v":3,"next":[]}]}]})"},
            {R"({"v":1})", R"({"v":1,"next":[1]})"}},
        Row{R"({"$defs":{"l":{"anyOf":[{"type":"null"},{"type":"object",
               "properties":{"n":{"$ref":"#/$defs/l"}},"required":["n"]}]}},"$ref":"#/$defs/l"})",
            {"null", R"({"n":{"n":null}})"},
            {"{}"}},
        // What can never end is left out where it may be.
        Row{R"({"type":"object","properties":{"a":{"$ref":"#/$defs/i"},"b":{"const":1}},
               "$defs":{"i":{"type":"object","properties":{"i":{"$ref":"#/$defs/i"}},
               "required":["i"]}}})",
            {"{}", R"({"b":1})"},
            {R"({"a":1})", R"({"a":{"i":1}})"}}));

TEST(JsonSchemaOptions, WithoutWhiteSpace) {
  const auto grammar = CompileJsonSchema(
      JsonOf(R"({"properties":{"a":{"type":"array"}},"required":["a"]})"), {.white_space = false});
  ASSERT_TRUE(grammar);
  EXPECT_TRUE(Accepts(*grammar, R"({"a":[]})"));
  EXPECT_FALSE(Accepts(*grammar, R"({"a": []})"));
}

struct Refusal {
  std::string schema;
  std::string error;  // a part of it
};

class JsonSchemaRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(JsonSchemaRefusal, NamesTheReason) {
  const auto grammar = CompileJsonSchema(JsonOf(GetParam().schema));
  ASSERT_FALSE(grammar) << GetParam().schema;
  EXPECT_EQ(grammar.error().code, ErrorCode::invalid_request);
  EXPECT_NE(grammar.error().message.find(GetParam().error), std::string::npos)
      << grammar.error().message;
}

INSTANTIATE_TEST_SUITE_P(
    Table, JsonSchemaRefusal,
    testing::Values(
        Refusal{R"({"properties":{"a":{"not":{}}}})",
                R"(schema keyword "not" at #/properties/a is not supported)"},
        Refusal{R"({"type":"array","items":{"contains":{}}})", "\"contains\" at #/items"},
        Refusal{R"({"type":"array","uniqueItems":true})", "\"uniqueItems\" at #"},
        Refusal{R"({"if":{},"then":{}})", "\"if\""},
        Refusal{R"({"dependentRequired":{"a":["b"]}})", "\"dependentRequired\""},
        Refusal{R"({"unevaluatedProperties":false})", "\"unevaluatedProperties\""},
        Refusal{R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "0 and 1 may both match"},
        Refusal{R"({"anyOf":[{"type":"string","format":"regex"}]})",
                R"("format" at #/anyOf/0 "regex" is not supported)"},
        Refusal{R"r({"type":"string","pattern":"(?=a)"})r", "lookahead"},
        Refusal{R"r({"type":"string","pattern":"(?<!a)b"})r", "lookbehind"},
        Refusal{R"r({"type":"string","pattern":"(a)\\1"})r", "backreference"},
        Refusal{R"({"type":"string","pattern":"*a"})", "nothing before it"},
        Refusal{R"({"type":"string","pattern":"a{2,1}"})", "reversed"},
        Refusal{R"({"type":"string","pattern":"(a"})", "without \")\""},
        Refusal{R"r({"type":"string","pattern":"a)"})r", "without \"(\""},
        Refusal{R"({"type":"string","pattern":"[b-a]"})", "reversed"},
        Refusal{R"({"type":"string","pattern":"\\bword\\b"})", "\\b"},
        Refusal{R"({"type":"string","pattern":"a{0,1000000000}"})", "1000"},
        Refusal{R"({"type":"string","pattern":"\\p{L}"})", "\\p"},
        Refusal{R"({"type":"widget"})", "\"type\""},
        Refusal{R"({"type":"string","minLength":-1})", "\"minLength\""},
        Refusal{R"({"type":"string","minLength":1e9})", "1000000"},
        Refusal{R"({"type":"string","minLength":"1"})", "\"minLength\""},
        Refusal{R"({"type":"integer","exclusiveMinimum":true})", "\"exclusiveMinimum\""},
        Refusal{R"({"type":"integer","multipleOf":0})", "above 0"},
        Refusal{R"({"type":"integer","multipleOf":1234567})", "\"multipleOf\""},
        Refusal{R"({"enum":1})", "must be a list"}, Refusal{R"({"anyOf":[]})", "\"anyOf\""},
        Refusal{R"({"properties":[]})", "\"properties\""},
        Refusal{R"({"properties":{"a":1}})", "#/properties/a must be an object or a boolean"},
        Refusal{R"([])", "must be an object or a boolean"},
        Refusal{R"({"$ref":"https://example.com/s"})", "within the schema"},
        Refusal{R"({"$ref":"#/$defs/none"})", "nothing in this place"},
        Refusal{R"({"$ref":"#name"})", "$anchor"}, Refusal{R"({"$ref":"#"})", "back to itself"},
        Refusal{R"({"allOf":[{"$ref":"#"}]})", "back to itself"},
        Refusal{R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "back to itself"},
        Refusal{R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},
                   "b":{"anyOf":[{"$ref":"#/$defs/a"}]}}})",
                "back to itself"},
        Refusal{"false", "can never be satisfied"},
        Refusal{R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})",
                "can never be satisfied"},
        Refusal{R"({"type":"integer","minimum":3,"maximum":2})", "can never be satisfied"},
        Refusal{R"({"type":"string","pattern":"a^"})", "can never be satisfied"},
        Refusal{R"({"type":"array","minItems":3,"maxItems":2})", "can never be satisfied"},
        Refusal{R"({"allOf":[{"type":"string"},{"type":"null"}]})", "can never be satisfied"},
        Refusal{R"({"required":["a"],"additionalProperties":false,"type":"object"})",
                "can never be satisfied"},
        Refusal{R"({"enum":[]})", "can never be satisfied"}));

}  // namespace
}  // namespace perdure::text
