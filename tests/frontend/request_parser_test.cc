// Tables of request bodies: what is accepted as what, and what is refused with which error.
#include "frontend/request_parser.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/limits.h"

namespace perdure::frontend {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const RequestDefaults kDefaults{77, 1'700'000'000};

Result<ParsedRequest> Chat(const std::string& body) { return ParseChatRequest(body, kDefaults); }
Result<ParsedRequest> Completion(const std::string& body) {
  return ParseCompletionRequest(body, kDefaults);
}
// A chat request with one user message and these fields beside it.
std::string With(const std::string& fields) {
  return R"({"messages":[{"role":"user","content":"hi"}],)" + fields + "}";
}
std::string Messages(const std::string& messages) { return R"({"messages":)" + messages + "}"; }

struct Refused {
  std::string body;
  std::string param;
  ErrorCode code = ErrorCode::invalid_request;
};

constexpr ErrorCode kUnsupported = ErrorCode::unsupported;

void ExpectRefused(const Result<ParsedRequest>& result, const Refused& row) {
  const std::string shown = row.body.substr(0, 200);
  ASSERT_FALSE(result) << shown;
  EXPECT_EQ(result.error().param, row.param) << shown << "\n" << result.error().message;
  EXPECT_EQ(result.error().code, row.code) << shown << "\n" << result.error().message;
  EXPECT_FALSE(result.error().message.empty());
  EXPECT_LT(result.error().message.size(), 600u) << shown;
}

// Rows for each field: the values that are refused, with what they make `param`.
std::vector<Refused> FieldRows() {
  std::vector<Refused> rows;
  auto add = [&rows](const std::string& name, const std::vector<std::string>& values,
                     ErrorCode code = ErrorCode::invalid_request, std::string param = "") {
    if (param.empty()) param = name;
    for (const std::string& value : values)
      rows.push_back({With("\"" + name + "\":" + value), param, code});
  };
  const std::string no_number[] = {"\"1\"", "true", "[]", "{}"};
  for (const std::string& value : no_number) {
    for (const char* name :
         {"temperature", "top_p", "min_p", "top_k", "repetition_penalty", "frequency_penalty",
          "presence_penalty", "seed", "max_tokens", "max_completion_tokens", "n", "top_logprobs"})
      add(name, {value});
  }
  add("temperature", {"-0.1", "2.1", "-1", "1e300"});
  add("top_p", {"0", "-0.5", "1.01", "2"});
  add("min_p", {"-0.01", "1.01"});
  add("top_k", {"-2", "1.5", "2147483648", "9223372036854775808", "-9223372036854775808"});
  add("repetition_penalty", {"0", "-1", "101", "1e-30", "1e300"});
  add("frequency_penalty", {"-2.1", "2.1"});
  add("presence_penalty", {"-2.1", "2.1"});
  add("seed", {"1.5", "9223372036854775808", "18446744073709551615", "1e30"});
  add("max_tokens", {"0", "-1", "1.5", "2147483648", "9223372036854775808", "1e9"});
  add("max_completion_tokens", {"0", "-1", "2147483648", "9223372036854775808"});
  add("n", {"0", "-1", "1.5", "1000000000", "129"});
  add("stream", {"1", "\"true\"", "[]"});
  add("stream_options", {"{}", "{\"include_usage\":true}", "1", "[]", "true"});
  add("ignore_eos", {"1", "\"yes\""});
  add("stop", {"1", "{}", "\"\"", "[\"\"]", "[1]", "[null]", "[\"a\",\"b\",\"c\",\"d\",\"e\"]",
               "\"" + std::string(limits::kStopStringBytesMax + 1, 'x') + "\""});
  add("logit_bias", {"[]", "1", "{\"x\":1}", "{\"-1\":1}", "{\"1.5\":1}", "{\"\":1}",
                     "{\"2147483648\":1}", "{\"99999999999\":1}", "{\"1\":\"1\"}", "{\"1\":null}",
                     "{\"1\":101}", "{\"1\":-101}", "{\"1\":true}"});
  add("model", {"1", "\"\"", "[]", "{}", "true"});
  add("logprobs", {"1", "\"true\""});
  add("top_logprobs", {"-1", "21", "1000000"});
  add("top_logprobs", {"1", "20", "1,\"logprobs\":false", "1,\"logprobs\":null"});
  add("response_format", {"1", "\"text\"", "[]"});
  add("response_format", {"{}", "{\"type\":1}", "{\"type\":\"xml\"}"}, ErrorCode::invalid_request,
      "response_format.type");
  add("response_format", {"{\"type\":\"json_object\"}", "{\"type\":\"json_schema\"}"},
      kUnsupported);
  add("tool_choice", {"1", "\"sometimes\"", "[]"});
  add("tool_choice",
      {"\"required\"", "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}", "{}"},
      kUnsupported);
  add("functions", {"[]", "[{}]"}, kUnsupported);
  add("function_call", {"\"auto\""}, kUnsupported);
  add("audio", {"{}"}, kUnsupported);
  add("modalities", {"[\"audio\"]", "[\"text\",\"audio\"]", "\"text\""}, kUnsupported);
  add("web_search_options", {"{}"}, kUnsupported);
  add("guided_json", {"{}"}, kUnsupported);
  add("grammar", {"\"root ::= x\""}, kUnsupported);
  add("cache", {"1", "true", "[]"});
  add("cache", {R"({"type":1})"}, ErrorCode::invalid_request, "cache.type");
  add("cache", {R"({"max_size":"big"})", R"({"max_size":1.5})", R"({"max_size":9999999999})"},
      ErrorCode::invalid_request, "cache.max_size");
  add("cache", {R"({"bits":"8"})"}, ErrorCode::invalid_request, "cache.bits");
  add("cache", {R"({"compression_ratio":"half"})"}, ErrorCode::invalid_request,
      "cache.compression_ratio");
  add("cache", {R"({"then":{}})", R"({"then":1})"}, ErrorCode::invalid_request, "cache.then");
  add("cache", {R"({"then":[1]})"}, ErrorCode::invalid_request, "cache.then[0]");
  add("cache", {R"({"then":[{"type":"kv"}]})", R"({"then":[{"at":"x"}]})"},
      ErrorCode::invalid_request, "cache.then[0].at");
  std::string many;
  for (int i = 1; i <= 20; ++i) many += (i > 1 ? "," : "") + fmt::format("{{\"at\":{}}}", i);
  add("cache", {"{\"then\":[" + many + "]}"}, ErrorCode::invalid_request, "cache.then");
  add("conversation_id", {"\"\"", R"("a\u0001b")", "\"" + std::string(129, 'x') + "\""});
  add("chat_template_kwargs",
      {"1", "[]", "\"x\"", "{\"messages\":[]}", "{\"tools\":[]}", "{\"messages\":null}"});
  add("conversation_id", {"1", "{}"});
  add("user", {"1"});
  add("reasoning_effort", {"1", "true", R"("huge")"});
  add("max_reasoning_tokens", {"-1", "1.5", R"("1")"});
  add("store", {"1", "\"no\""});
  add("parallel_tool_calls", {"0"});
  add("tools", {"1", "{}", "\"x\""});
  add("tools", {"[1]", "[null]", "[[]]"}, ErrorCode::invalid_request, "tools[0]");
  add("tools", {"[{}]", "[{\"type\":1}]"}, ErrorCode::invalid_request, "tools[0].type");
  add("tools", {"[{\"type\":\"web_search\"}]"}, kUnsupported, "tools[0].type");
  add("tools", {"[{\"type\":\"function\"}]", "[{\"type\":\"function\",\"function\":1}]"},
      ErrorCode::invalid_request, "tools[0].function");
  for (const char* name : {"{}", "{\"name\":\"\"}", "{\"name\":1}", "{\"name\":\"a b\"}",
                           "{\"name\":\"a\\nb\"}", "{\"name\":\"ä\"}"})
    add("tools", {std::string("[{\"type\":\"function\",\"function\":") + name + "}]"},
        ErrorCode::invalid_request, "tools[0].function.name");
  add("tools", {"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":[]}}]"},
      ErrorCode::invalid_request, "tools[0].function.parameters");
  add("tools", {"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":1}}]"},
      ErrorCode::invalid_request, "tools[0].function.description");
  add("tools", {"[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":1}}]"},
      ErrorCode::invalid_request, "tools[0].function.strict");
  rows.push_back({With(R"("stream":true,"stream_options":{"include_usage":1})"),
                  "stream_options.include_usage"});
  rows.push_back({With(R"("stream":true,"stream_options":[])"), "stream_options"});
  rows.push_back(
      {With(R"("stream":false,"stream_options":{"include_usage":true})"), "stream_options"});
  return rows;
}

TEST(ChatRequest, RefusesFields) {
  const auto rows = FieldRows();
  EXPECT_GT(rows.size(), 150u);
  for (const Refused& row : rows) ExpectRefused(Chat(row.body), row);
}

TEST(ChatRequest, RefusesMessages) {
  const std::string call =
      R"({"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]})";
  auto with_call = [](const std::string& one) {
    return Messages(R"([{"role":"assistant","tool_calls":[)" + one + "]}]");
  };
  const std::vector<Refused> rows = {
      {"{}", "messages"},
      {Messages("null"), "messages"},
      {Messages("[]"), "messages"},
      {Messages("{}"), "messages"},
      {Messages("\"hi\""), "messages"},
      {Messages("1"), "messages"},
      {Messages("[1]"), "messages[0]"},
      {Messages("[null]"), "messages[0]"},
      {Messages("[[]]"), "messages[0]"},
      {Messages("[{}]"), "messages[0].role"},
      {Messages(R"([{"content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":null,"content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":1,"content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":"","content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":"User","content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":"function","content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":"narrator","content":"x"}])"), "messages[0].role"},
      {Messages(R"([{"role":"user"}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":null}])"), "messages[0].content"},
      {Messages(R"([{"role":"assistant","content":null}])"), "messages[0].content"},
      {Messages(R"([{"role":"assistant","content":null,"tool_calls":[]}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":1}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":true}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":{}}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":{"type":"text","text":"x"}}])"),
       "messages[0].content"},
      {Messages(R"([{"role":"user","content":[]}])"), "messages[0].content"},
      {Messages(R"([{"role":"user","content":["x"]}])"), "messages[0].content[0]"},
      {Messages(R"([{"role":"user","content":[null]}])"), "messages[0].content[0]"},
      {Messages(R"([{"role":"user","content":[{}]}])"), "messages[0].content[0].type"},
      {Messages(R"([{"role":"user","content":[{"type":1}]}])"), "messages[0].content[0].type"},
      {Messages(R"([{"role":"user","content":[{"type":"text"}]}])"), "messages[0].content[0].text"},
      {Messages(R"([{"role":"user","content":[{"type":"text","text":1}]}])"),
       "messages[0].content[0].text"},
      {Messages(
           R"([{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"u"}}]}])"),
       "messages[0].content[1].type", kUnsupported},
      {Messages(R"([{"role":"user","content":[{"type":"input_audio"}]}])"),
       "messages[0].content[0].type", kUnsupported},
      {Messages(R"([{"role":"user","content":[{"type":"file"}]}])"), "messages[0].content[0].type",
       kUnsupported},
      {Messages(R"([{"role":"user","content":"x"},{"role":"x","content":"y"}])"),
       "messages[1].role"},
      {Messages(R"([{"role":"user","content":"x","name":1}])"), "messages[0].name"},
      {Messages(R"([{"role":"user","content":"x","tool_calls":[]}])"), "messages[0].tool_calls"},
      {Messages(R"([{"role":"assistant","content":"x","tool_calls":{}}])"),
       "messages[0].tool_calls"},
      {Messages(R"([{"role":"assistant","content":"x","function_call":{}}])"),
       "messages[0].function_call", kUnsupported},
      {Messages(R"([{"role":"assistant","content":"x","reasoning_content":1}])"),
       "messages[0].reasoning_content"},
      {with_call("1"), "messages[0].tool_calls[0]"},
      {with_call("{}"), "messages[0].tool_calls[0].id"},
      {with_call(R"({"id":1})"), "messages[0].tool_calls[0].id"},
      {with_call(R"({"id":""})"), "messages[0].tool_calls[0].id"},
      {with_call(R"({"id":"a"})"), "messages[0].tool_calls[0].function"},
      {with_call(R"({"id":"a","type":"custom","function":{"name":"f"}})"),
       "messages[0].tool_calls[0].type"},
      {with_call(R"({"id":"a","function":"f"})"), "messages[0].tool_calls[0].function"},
      {with_call(R"({"id":"a","function":{}})"), "messages[0].tool_calls[0].function.name"},
      {with_call(R"({"id":"a","function":{"name":"f","arguments":1}})"),
       "messages[0].tool_calls[0].function.arguments"},
      {with_call(R"({"id":"a","function":{"name":"f","arguments":[]}})"),
       "messages[0].tool_calls[0].function.arguments"},
      {Messages(R"([{"role":"tool","content":"x"}])"), "messages[0].tool_call_id"},
      {Messages(R"([{"role":"tool","content":"x","tool_call_id":"c1"}])"),
       "messages[0].tool_call_id"},
      {Messages("[" + call + R"(,{"role":"tool","content":"x","tool_call_id":"c2"}])"),
       "messages[1].tool_call_id"},
      {Messages(R"([{"role":"tool","content":"x","tool_call_id":"c1"},)" + call + "]"),
       "messages[0].tool_call_id"},
      {Messages("[" + call + R"(,{"role":"tool","content":"x","tool_call_id":1}])"),
       "messages[1].tool_call_id"},
      {Messages("[" + call + R"(,{"role":"tool","content":null,"tool_call_id":"c1"}])"),
       "messages[1].content"},
  };
  for (const Refused& row : rows) ExpectRefused(Chat(row.body), row);

  std::string many = "[";
  for (size_t i = 0; i <= limits::kMessagesMax; ++i)
    many += std::string(i ? "," : "") + R"({"role":"user","content":"x"})";
  ExpectRefused(Chat(Messages(many + "]")), {"too many messages", "messages"});
}

TEST(ChatRequest, RefusesBodiesThatAreNoJsonObjects) {
  const std::vector<std::string> bodies = {
      "",
      " ",
      "null",
      "[]",
      "1",
      "\"x\"",
      "{",
      "{}{}",
      "{\"messages\":}",
      "{'messages':[]}",
      "{\"a\":1,}",
      "{\"a\":NaN}",
      "{\"a\":Infinity}",
      "{\"a\":1e999}",
      "{\"a\":-1e999}",
      "{\"a\":01}",
      "{\"a\":\"\\ud800\"}",
      "{\"a\":\"\\udc00\\ud800\"}",
      "{\"a\":\"\xc0\xaf\"}",
      "{\"a\":\"\xed\xa0\x80\"}",
      "{\"a\":\"\xff\"}",
      "{\"a\":\"\xf5\x80\x80\x80\"}",
      "{\"a\":\"\x01\"}",
      std::string("{\"a\":\"\0\"}", 9),
      With(R"("temperature":1,"temperature":1)"),
      R"({"messages":[{"role":"user","role":"user","content":"x"}]})",
      With("\"x\":" + std::string(100, '[') + std::string(100, ']')),
      std::string(100'000, '['),
      "{\"a\":" + std::string(100'000, '{'),
      "\xef\xbb\xbf{",
      "grant_type=x&messages=y",
  };
  for (const std::string& body : bodies) {
    ExpectRefused(Chat(body), {body, ""});
    ExpectRefused(Completion(body), {body, ""});
  }
}

TEST(ChatRequest, ReadsEveryField) {
  const auto parsed = Chat(R"({
    "model": "org/name", "stream": true, "stream_options": {"include_usage": true},
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": 40, "repetition_penalty": 1.1,
    "frequency_penalty": -2, "presence_penalty": 2, "logit_bias": {"0": -100, "2147483647": 0.5},
    "seed": -1, "max_tokens": 5, "max_completion_tokens": 7, "stop": ["a", "b", "c", "d"],
    "ignore_eos": true, "n": 1})");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->model, "org/name");
  EXPECT_TRUE(parsed->stream);
  EXPECT_TRUE(parsed->include_usage);
  const protocol::GenerationRequest& generation = parsed->generation;
  const protocol::SamplingRequest& sampling = generation.sampling;
  EXPECT_EQ(generation.kind, protocol::RequestKind::kChat);
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.9f);
  EXPECT_EQ(sampling.min_p, 0.1f);
  EXPECT_EQ(sampling.top_k, 40);
  EXPECT_EQ(sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(sampling.frequency_penalty, -2.f);
  EXPECT_EQ(sampling.presence_penalty, 2.f);
  const std::vector<std::pair<TokenId, float>> bias = {{0, -100.f}, {2147483647, 0.5f}};
  EXPECT_EQ(sampling.logit_bias, bias);
  EXPECT_EQ(generation.seed, 18446744073709551615u);
  EXPECT_EQ(generation.max_tokens, 7);
  EXPECT_EQ(generation.stop, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_TRUE(generation.ignore_eos);
  EXPECT_EQ(generation.choices, 1);
  EXPECT_EQ(generation.unix_time, kDefaults.unix_time);
}

TEST(ChatRequest, LeavesOutWhatTheClientLeftOut) {
  const std::vector<std::string> bodies = {
      With(R"("x":1)"),
      With(R"("model":null,"stream":null,"stream_options":null,"temperature":null,"top_p":null,
              "min_p":null,"top_k":null,"repetition_penalty":null,"frequency_penalty":null,
              "presence_penalty":null,"logit_bias":null,"seed":null,"max_tokens":null,
              "max_completion_tokens":null,"stop":null,"ignore_eos":null,"n":null,"tools":null,
              "tool_choice":null,"response_format":null,"logprobs":null,"top_logprobs":null,
              "chat_template_kwargs":null,"cache":null,"audio":null,"user":null,"store":null)"),
  };
  for (const std::string& body : bodies) {
    const auto parsed = Chat(body);
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(parsed->model, "");
    EXPECT_FALSE(parsed->stream);
    EXPECT_FALSE(parsed->generation.sampling.temperature);
    EXPECT_FALSE(parsed->generation.sampling.top_k);
    EXPECT_FALSE(parsed->generation.max_tokens);
    EXPECT_EQ(parsed->generation.seed, kDefaults.seed);
    EXPECT_TRUE(parsed->generation.stop.empty());
    EXPECT_EQ(parsed->generation.chat_json, R"({"messages":[{"role":"user","content":"hi"}]})");
  }
}

TEST(ChatRequest, SaysHowItsCacheIsKept) {
  const auto parsed = Chat(With(
      R"("conversation_id":"mine","cache":{"type":"kv","then":[{"at":4096,"type":"rotating_kv",)"
      R"("max_size":1000,"keep":8,"bits":8},{"at":9000,"quantization_bits":4,"chunk_size":64,)"
      R"("compression_ratio":0.5,"optimization_interval":3}]})"));
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->generation.conversation_id, "mine");
  EXPECT_EQ(parsed->generation.tenant, "");
  CacheChoice expected;
  expected.settings.type = "kv";
  expected.then.resize(2);
  expected.then[0].at = 4096;
  expected.then[0].settings.type = "rotating_kv";
  expected.then[0].settings.max_size = 1000;
  expected.then[0].settings.keep = 8;
  expected.then[0].settings.bits = 8;
  expected.then[1].at = 9000;
  expected.then[1].settings.bits = 4;
  expected.then[1].settings.chunk_size = 64;
  expected.then[1].settings.compression_ratio = 0.5f;
  expected.then[1].settings.optimization_interval = 3;
  EXPECT_EQ(parsed->generation.cache, expected);
  EXPECT_EQ(Chat(With(R"("cache":"chunked_kv")"))->generation.cache.settings.type, "chunked_kv");
  EXPECT_EQ(Chat(With(R"("n":1)"))->generation.cache, CacheChoice());
}

TEST(ChatRequest, AnEffortBoundsTheReasoningAndTheTemplateLearnsOfIt) {
  const auto bound = [](const std::string& fields) {
    return Chat(With(fields))->generation.reasoning_tokens_max;
  };
  EXPECT_EQ(bound(R"("n":1)"), std::nullopt);
  EXPECT_EQ(bound(R"("reasoning_effort":"none")"), 0);
  EXPECT_EQ(bound(R"("reasoning_effort":"minimal")"), 256);
  EXPECT_EQ(bound(R"("reasoning_effort":"low")"), 1024);
  EXPECT_EQ(bound(R"("reasoning_effort":"medium")"), 4096);
  EXPECT_EQ(bound(R"("reasoning_effort":"high")"), std::nullopt);
  EXPECT_EQ(bound(R"("reasoning_effort":"low","max_reasoning_tokens":7)"), 7);
  const auto kwargs = [](const std::string& fields) {
    return Json::parse(Chat(With(fields))->generation.chat_json)
        .value("chat_template_kwargs", Json());
  };
  EXPECT_TRUE(kwargs(R"("max_reasoning_tokens":7)").is_null());
  EXPECT_EQ(kwargs(R"("reasoning_effort":"low")"), Json({{"reasoning_effort", "low"}}));
  EXPECT_EQ(kwargs(R"("reasoning_effort":"none")"),
            Json({{"reasoning_effort", "none"}, {"enable_thinking", false}}));
  EXPECT_EQ(kwargs(R"("reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":true})"),
            Json({{"enable_thinking", true}, {"reasoning_effort", "none"}}));
}

TEST(ChatRequest, AcceptsWhatIsHarmless) {
  for (const char* fields : {
           R"("response_format":{"type":"text"})",
           R"("tool_choice":"auto")",
           R"("tool_choice":"none")",
           R"("tools":[])",
           R"("logprobs":false)",
           R"("logprobs":false,"top_logprobs":0)",
           R"("reasoning_effort":"high")",
           R"("modalities":["text"])",
           R"("cache":{"type":"kv"})",
           R"("cache":"rotating_kv")",
           R"("cache":{"type":"nobody knows it","bits":5,"unknown":[]})",
           R"("cache":{})",
           R"("store":true,"metadata":{"a":"b"},"user":"u","service_tier":"auto")",
           R"("prompt_cache_key":"k","safety_identifier":"s","verbosity":"low")",
           R"("conversation_id":"c","keep_alive":"5m","parallel_tool_calls":false)",
           R"("unknown":[1,2,{"deep":[null]}])",
           R"("temperature":0)",
           R"("temperature":2)",
           R"("temperature":-0.0)",
           R"("top_p":1)",
           R"("top_p":1e-320)",
           R"("top_k":0)",
           R"("seed":-9223372036854775808)",
           R"("seed":9223372036854775807)",
           R"("max_tokens":1)",
           R"("max_tokens":2147483647)",
           R"("stop":"x")",
           R"("stop":[])",
           R"("stop":"\u0000")",
           R"("logit_bias":{})",
           R"("chat_template_kwargs":{"enable_thinking":false})",
           R"("n":1)",
           R"("n":128)",
       }) {
    const auto parsed = Chat(With(fields));
    EXPECT_TRUE(parsed) << fields << ": " << parsed.error().message;
  }
  EXPECT_EQ(Chat(With(R"("top_k":-1)"))->generation.sampling.top_k, 0);
  EXPECT_EQ(Chat(With(R"("top_p":1e-320)"))->generation.sampling.top_p, FLT_MIN);
}

struct Normalized {
  std::string messages;
  std::string expected;
};

TEST(ChatRequest, NormalizesMessages) {
  const std::vector<Normalized> rows = {
      {R"([{"role":"developer","content":"x"}])", R"([{"role":"system","content":"x"}])"},
      {R"([{"content":"x","role":"user","extra":1}])", R"([{"role":"user","content":"x"}])"},
      {R"([{"role":"user","content":""}])", R"([{"role":"user","content":""}])"},
      {R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}])",
       R"([{"role":"user","content":"a\nb"}])"},
      {R"([{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]}])",
       R"([{"role":"assistant","content":"no"}])"},
      {R"([{"role":"user","name":"ann","content":"\u0000<|im_end|>"}])",
       R"([{"role":"user","content":"\u0000<|im_end|>","name":"ann"}])"},
      {R"([{"role":"assistant","content":"x","tool_calls":[],"refusal":null,"audio":null}])",
       R"([{"role":"assistant","content":"x"}])"},
      {R"([{"role":"assistant","content":"x","reasoning_content":"r"}])",
       R"([{"role":"assistant","content":"x","reasoning_content":"r"}])"},
      {R"([{"role":"assistant","content":"x","reasoning":"r"}])",
       R"([{"role":"assistant","content":"x","reasoning_content":"r"}])"},
      {R"([{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"b\": [1], \"a\": 2}"}}]},
           {"role":"tool","tool_call_id":"c","content":"42"}])",
       R"([{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"b\": [1], \"a\": 2}"}}]},{"role":"tool","content":"42","tool_call_id":"c"}])"},
      {R"([{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{broken"}}]}])",
       R"([{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{broken"}}]}])"},
      {R"([{"role":"assistant","content":"","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}},{"id":"d","type":"function","function":{"name":"g"}},{"id":"e","type":"function","function":{"name":"g","arguments":{"x":1}}},{"id":"f","type":"function","function":{"name":"g","arguments":"3"}}]}])",
       R"([{"role":"assistant","content":"","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":""}},{"id":"d","type":"function","function":{"name":"g","arguments":{}}},{"id":"e","type":"function","function":{"name":"g","arguments":{"x":1}}},{"id":"f","type":"function","function":{"name":"g","arguments":"3"}}]}])"},
  };
  for (const Normalized& row : rows) {
    const auto parsed = Chat(Messages(row.messages));
    ASSERT_TRUE(parsed) << row.messages << ": " << parsed.error().message;
    EXPECT_EQ(parsed->generation.chat_json, Messages(row.expected));
  }
}

TEST(ChatRequest, DeepArgumentsStayWithinWhatWorkersParse) {
  const std::string deep = std::string(60, '[') + std::string(60, ']');
  const auto parsed = Chat(Messages(
      R"([{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"x\":)" +
      deep + R"(}"}}]}])"));
  ASSERT_TRUE(parsed) << parsed.error().message;
  const json chat = json::parse(parsed->generation.chat_json);
  EXPECT_TRUE(chat["messages"][0]["tool_calls"][0]["function"]["arguments"].is_string());
}

TEST(ChatRequest, PassesToolsOnAsTheyAre) {
  const std::string tools =
      R"([{"type":"function","function":{"name":"get.weather","description":"d","parameters":{"type":"object","properties":{"b":{},"a":{}}},"strict":true}}])";
  const std::string message = R"({"messages":[{"role":"user","content":"hi"}])";
  EXPECT_EQ(Chat(With("\"tools\":" + tools))->generation.chat_json,
            message + ",\"tools\":" + tools + "}");
  EXPECT_EQ(Chat(With("\"tool_choice\":\"none\",\"tools\":" + tools))->generation.chat_json,
            message + "}");
  EXPECT_EQ(
      Chat(With(R"("tools":[],"chat_template_kwargs":{"z":1,"a":{"b":2}})"))->generation.chat_json,
      message + R"(,"chat_template_kwargs":{"z":1,"a":{"b":2}}})");
}

TEST(CompletionRequest, RefusesFields) {
  auto with = [](const std::string& fields) { return R"({"prompt":"p",)" + fields + "}"; };
  auto prompt = [](const std::string& value) { return R"({"prompt":)" + value + "}"; };
  std::vector<Refused> rows = {
      {"{}", "prompt"},
      {prompt("null"), "prompt"},
      {prompt("1"), "prompt"},
      {prompt("{}"), "prompt"},
      {prompt("true"), "prompt"},
      {prompt("[]"), "prompt"},
      {prompt("[null]"), "prompt"},
      {prompt("[{}]"), "prompt"},
      {prompt("[[]]"), "prompt"},
      {prompt("[[\"a\"]]"), "prompt"},
      {prompt("[\"a\",\"b\"]"), "prompt", kUnsupported},
      {prompt("[[1],[2]]"), "prompt", kUnsupported},
      {prompt("[\"a\",1]"), "prompt", kUnsupported},
      {prompt("[1,\"a\"]"), "prompt"},
      {prompt("[1,-1]"), "prompt"},
      {prompt("[-1]"), "prompt"},
      {prompt("[1.5]"), "prompt"},
      {prompt("[2147483648]"), "prompt"},
      {prompt("[[1,9223372036854775808]]"), "prompt"},
      {with(R"("echo":1)"), "echo"},
      {with(R"("suffix":1)"), "suffix"},
      {with(R"("suffix":"x")"), "suffix", kUnsupported},
      {with(R"("best_of":2)"), "best_of", kUnsupported},
      {with(R"("best_of":0)"), "best_of"},
      {with(R"("best_of":3,"n":2)"), "best_of", kUnsupported},
      {with(R"("n":2,"best_of":1)"), "best_of", kUnsupported},
      {with(R"("logprobs":0,"echo":true)"), "logprobs", kUnsupported},
      {with(R"("logprobs":6)"), "logprobs"},
      {with(R"("logprobs":-1)"), "logprobs"},
      {with(R"("logprobs":1000000)"), "logprobs"},
      {with(R"("logprobs":true)"), "logprobs"},
      {with(R"("n":129)"), "n"},
      {with(R"("temperature":3)"), "temperature"},
      {with(R"("max_tokens":-1)"), "max_tokens"},
  };
  std::string million = "[\"x\"";
  for (int i = 0; i < 1'000'000; ++i) million += ",\"x\"";
  rows.push_back({prompt(million + "]"), "prompt", kUnsupported});
  for (const Refused& row : rows) ExpectRefused(Completion(row.body), row);
}

TEST(ChatRequest, ReadsLogprobsAndN) {
  using Top = std::optional<int32_t>;
  EXPECT_EQ(Chat(With(R"("n":1)"))->generation.top_logprobs, Top());
  EXPECT_EQ(Chat(With(R"("logprobs":false)"))->generation.top_logprobs, Top());
  EXPECT_EQ(Chat(With(R"("logprobs":true)"))->generation.top_logprobs, Top(0));
  EXPECT_EQ(Chat(With(R"("logprobs":true,"top_logprobs":null)"))->generation.top_logprobs, Top(0));
  EXPECT_EQ(Chat(With(R"("logprobs":true,"top_logprobs":20)"))->generation.top_logprobs, Top(20));
  EXPECT_EQ(Chat(With(R"("n":3)"))->generation.choices, 3);
  EXPECT_EQ(Chat(With(R"("n":null)"))->generation.choices, 1);
}

TEST(CompletionRequest, ReadsLogprobsAndN) {
  using Top = std::optional<int32_t>;
  EXPECT_EQ(Completion(R"({"prompt":"x"})")->generation.top_logprobs, Top());
  EXPECT_EQ(Completion(R"({"prompt":"x","logprobs":0})")->generation.top_logprobs, Top(0));
  EXPECT_EQ(Completion(R"({"prompt":"x","logprobs":5})")->generation.top_logprobs, Top(5));
  EXPECT_EQ(Completion(R"({"prompt":"x","n":3,"best_of":3})")->generation.choices, 3);
}

TEST(CompletionRequest, ReadsPrompts) {
  const auto text = Completion(R"({"prompt":"a\u0000ü","echo":true,"suffix":"","best_of":1})");
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->generation.kind, protocol::RequestKind::kCompletion);
  EXPECT_EQ(text->generation.prompt, std::string("a\0ü", 4));
  EXPECT_TRUE(text->generation.echo);
  EXPECT_FALSE(text->generation.prompt_ids);
  EXPECT_TRUE(text->generation.chat_json.empty());
  EXPECT_EQ(Completion(R"({"prompt":""})")->generation.prompt, "");
  EXPECT_EQ(Completion(R"({"prompt":["one"]})")->generation.prompt, "one");
  const std::vector<TokenId> ids = {0, 5, 2147483647};
  EXPECT_EQ(Completion(R"({"prompt":[0,5,2147483647]})")->generation.prompt_ids, ids);
  EXPECT_EQ(Completion(R"({"prompt":[[0,5,2147483647]]})")->generation.prompt_ids, ids);
  EXPECT_EQ(
      Completion(R"({"prompt":"x","max_completion_tokens":"ignored"})")->generation.max_tokens,
      std::nullopt);
}

TEST(RequestErrors, ShowLittleOfWhatTheClientSent) {
  const std::string long_role(100'000, 'r');
  const auto refused = Chat(Messages(R"([{"role":")" + long_role + R"(","content":"x"}])"));
  ASSERT_FALSE(refused);
  EXPECT_LT(refused.error().message.size(), 300u);
  EXPECT_THAT(refused.error().message, HasSubstr("rrrr…"));
}

// Valid requests with values and keys swapped around: accepted or refused, never worse.
TEST(RequestParser, SurvivesMutations) {
  const std::string seed_body = R"({"model":"m","messages":[{"role":"system","content":"s"},
    {"role":"user","content":[{"type":"text","text":"t"}]},{"role":"assistant","content":null,
    "tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},
    {"role":"tool","tool_call_id":"c","content":"r"}],"prompt":[1,2],"temperature":1,"top_k":3,
    "stop":["x"],"logit_bias":{"5":1},"stream":true,"stream_options":{"include_usage":true},
    "tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto",
    "chat_template_kwargs":{"k":true},"response_format":{"type":"text"},"seed":1,"n":1})";
  const std::vector<std::string> values = {"null", "true", "-1", "1e308",  "18446744073709551615",
                                           "\"\"", "[]",   "{}", "[null]", "{\"type\":\"text\"}"};
  ASSERT_TRUE(Chat(seed_body)) << Chat(seed_body).error().message;
  int accepted = 0;
  for (uint32_t seed = 0; seed < 5'000; ++seed) {
    std::mt19937 random(seed);
    json body = json::parse(seed_body);
    for (uint32_t i = 1 + random() % 2; i > 0; --i) {
      json flat = body.flatten();
      auto at = flat.begin();
      std::advance(at, random() % flat.size());
      json::json_pointer pointer(at.key());
      for (uint32_t up = random() % 3; up > 0 && !pointer.parent_pointer().empty(); --up)
        pointer = pointer.parent_pointer();
      body[pointer] = json::parse(values[random() % values.size()]);
    }
    for (const auto& parsed : {Chat(body.dump()), Completion(body.dump())}) {
      if (parsed) {
        ++accepted;
        EXPECT_TRUE(parsed->generation.chat_json.empty() ||
                    json::accept(parsed->generation.chat_json));
      } else {
        EXPECT_FALSE(parsed.error().message.empty());
        EXPECT_EQ(InfoOf(parsed.error().code).http_status, 400);
      }
    }
  }
  EXPECT_GT(accepted, 100);
}

TEST(RequestParser, WhetherATurnIsStoredIsTheRequestsToSayAndThenItsKeys) {
  const auto stores = [](const std::string& field, bool by_default) {
    RequestDefaults defaults;
    defaults.store = by_default;
    const auto parsed =
        ParseChatRequest(R"({"messages":[{"role":"user","content":"x"}])" + field + "}", defaults);
    EXPECT_TRUE(parsed);
    return parsed && parsed->generation.store;
  };
  EXPECT_TRUE(stores("", true));
  EXPECT_FALSE(stores("", false));
  EXPECT_FALSE(stores(R"(,"store":null)", false));
  EXPECT_TRUE(stores(R"(,"store":true)", false));
  EXPECT_FALSE(stores(R"(,"store":false)", true));
}

}  // namespace
}  // namespace perdure::frontend
