// The exact texts of OpenAI's objects.
#include "frontend/response_writer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "frontend/http_response.h"

namespace perdure::frontend {
namespace {

AnswerIdentity Chat(bool include_usage = false) {
  return {protocol::RequestKind::kChat, 0xabc, "org/m", 1'700'000'000, include_usage};
}
AnswerIdentity Completion(bool include_usage = false) {
  return {protocol::RequestKind::kCompletion, 0xabc, "m", 1'700'000'000, include_usage};
}
AnswerEnd End() {
  AnswerEnd end;
  end.usage = {
      10, 4, 3, 2, 5, 1'500, 2'000'000, 1'000'000, 3,
  };
  end.waited_ms = 7;
  end.cache_type = "kv";
  end.conversation_id = "conv_1";
  end.spliced = 1;
  return end;
}

constexpr auto kLength = protocol::FinishReason::kLength;
using protocol::PartKind;

ChoiceAnswer::Part Content(const std::string& text, const std::string& logprobs = "null") {
  return {{{PartKind::kContent, 0, text}}, logprobs};
}
std::vector<WholeChoice> One(const std::string& text) { return {{Content(text), kLength}}; }

// Reasoning, content, two calls.
ChoiceAnswer::Part WithCalls() {
  return {{{PartKind::kReasoning, 0, "Hm."},
           {PartKind::kContent, 0, "I look."},
           {PartKind::kCallBegin, 0, "find"},
           {PartKind::kCallArguments, 0, R"({"a": "b"})"},
           {PartKind::kCallBegin, 1, "tell"},
           {PartKind::kCallArguments, 1, "{}"}},
          "null"};
}

constexpr char kTimings[] =
    R"("timings":{"queue_ms":8.5,"prefill_ms":2000.0,"decode_ms":1000.0,"prompt_tokens":10,"completion_tokens":4,"prefill_tokens_per_second":2.5,"decode_tokens_per_second":4.0,"cache":{"arena":3,"snapshot":2,"computed":5,"spliced":1,"stored":false,"type":"kv","conversation_id":"conv_1"}})";
constexpr char kUsage[] =
    R"("usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":3}})";

TEST(ResponseWriter, WholeChat) {
  EXPECT_EQ(
      WholeAnswer(Chat(), One("a\"\n\xff"), End()),
      std::string(
          R"({"id":"chatcmpl-0000000000000abc","object":"chat.completion","created":1700000000,"model":"org/m","choices":[{"index":0,"message":{"role":"assistant","content":"a\"\n�","refusal":null},"logprobs":null,"finish_reason":"length"}],)") +
          kUsage + "," + kTimings + "}");
}

TEST(ResponseWriter, TellsWhatWasAskedInVain) {
  AnswerEnd end = End();
  end.warnings = {"the cache is kv: \"x\""};
  end.conversation_id.clear();
  EXPECT_NE(
      WholeAnswer(Chat(), One("t"), end)
          .find(
              R"("spliced":1,"stored":false,"type":"kv","warnings":["the cache is kv: \"x\""]}})"),
      std::string::npos);
}

TEST(ResponseWriter, WholeCompletion) {
  EXPECT_EQ(
      WholeAnswer(Completion(), One("t"), End()),
      std::string(
          R"({"id":"cmpl-0000000000000abc","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":"t","logprobs":null,"finish_reason":"length"}],)") +
          kUsage + "," + kTimings + "}");
}

constexpr char kChunk[] =
    R"(data: {"id":"chatcmpl-0000000000000abc","object":"chat.completion.chunk","created":1700000000,"model":"org/m","choices":)";

TEST(ResponseWriter, ChatStream) {
  EXPECT_EQ(
      StreamStart(Chat(), 1),
      std::string(kChunk) +
          R"([{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})"
          "\n\n");
  EXPECT_EQ(StreamDelta(Chat(), 0, Content("é")),
            std::string(kChunk) +
                R"([{"index":0,"delta":{"content":"é"},"logprobs":null,"finish_reason":null}]})"
                "\n\n");
  EXPECT_EQ(StreamEnd(Chat(), 0, kLength, End()),
            std::string(kChunk) +
                R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],)" + kTimings +
                "}\n\ndata: [DONE]\n\n");
}

TEST(ResponseWriter, ChatStreamWithUsage) {
  EXPECT_EQ(
      StreamDelta(Chat(true), 0, Content("x")),
      std::string(kChunk) +
          R"([{"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}],"usage":null})"
          "\n\n");
  EXPECT_EQ(StreamEnd(Chat(true), 0, kLength, End()),
            std::string(kChunk) +
                R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null})"
                "\n\n" +
                kChunk + "[]," + kUsage + "," + kTimings + "}\n\ndata: [DONE]\n\n");
}

TEST(ResponseWriter, CompletionStream) {
  EXPECT_EQ(StreamStart(Completion(), 3), "");
  EXPECT_EQ(
      StreamDelta(Completion(), 0, Content("x")),
      R"(data: {"id":"cmpl-0000000000000abc","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":"x","logprobs":null,"finish_reason":null}]})"
      "\n\n");
}

TEST(ResponseWriter, SeveralChoices) {
  const std::vector<WholeChoice> choices = {{Content("a"), kLength},
                                            {Content("b", "{}"), protocol::FinishReason::kStop}};
  EXPECT_EQ(
      WholeAnswer(Chat(), choices, End()),
      std::string(
          R"({"id":"chatcmpl-0000000000000abc","object":"chat.completion","created":1700000000,"model":"org/m","choices":[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":"length"},{"index":1,"message":{"role":"assistant","content":"b","refusal":null},"logprobs":{},"finish_reason":"stop"}],)") +
          kUsage + "," + kTimings + "}");
  const auto start = [](int index) {
    return std::string(kChunk) + R"([{"index":)" + std::to_string(index) +
           R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]})"
           "\n\n";
  };
  EXPECT_EQ(StreamStart(Chat(), 2), start(0) + start(1));
  EXPECT_EQ(
      StreamDelta(Chat(), 1, Content("x", R"({"content":[]})")),
      std::string(kChunk) +
          R"([{"index":1,"delta":{"content":"x"},"logprobs":{"content":[]},"finish_reason":null}]})"
          "\n\n");
  EXPECT_EQ(StreamChoiceEnd(Chat(true), 1, kLength),
            std::string(kChunk) +
                R"([{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null})"
                "\n\n");
}

TEST(ResponseWriter, ReasoningAndCallsOfTools) {
  const std::string id = "call_0000000000000abc_";
  const std::vector<WholeChoice> choices = {{WithCalls(), protocol::FinishReason::kToolCalls}};
  const std::string whole = WholeAnswer(Chat(), choices, End());
  EXPECT_NE(
      whole.find(
          R"({"role":"assistant","content":"I look.","reasoning_content":"Hm.","tool_calls":[{"id":")" +
          id +
          R"(0_0","type":"function","function":{"name":"find","arguments":"{\"a\": \"b\"}"}},{"id":")" +
          id +
          R"(0_1","type":"function","function":{"name":"tell","arguments":"{}"}}],"refusal":null})"),
      std::string::npos)
      << whole;
  EXPECT_NE(whole.find(R"("finish_reason":"tool_calls")"), std::string::npos) << whole;

  const auto delta = [](const std::string& content) {
    return std::string(kChunk) + R"([{"index":1,"delta":)" + content +
           R"(,"logprobs":null,"finish_reason":null}]})" + "\n\n";
  };
  EXPECT_EQ(StreamDelta(Chat(), 1, WithCalls()),
            delta(R"({"reasoning_content":"Hm."})") + delta(R"({"content":"I look."})") +
                delta(R"({"tool_calls":[{"index":0,"id":")" + id +
                      R"(1_0","type":"function","function":{"name":"find","arguments":""}}]})") +
                delta(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"a\": \"b\"}"}}]})") +
                delta(R"({"tool_calls":[{"index":1,"id":")" + id +
                      R"(1_1","type":"function","function":{"name":"tell","arguments":""}}]})") +
                delta(R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})"));
}

TEST(ResponseWriter, ContentIsNullOnlyBesideCalls) {
  const ChoiceAnswer::Part call = {{{PartKind::kCallBegin, 0, "f"}}, "null"};
  const std::vector<WholeChoice> choices = {{call, protocol::FinishReason::kToolCalls},
                                            {{}, protocol::FinishReason::kStop}};
  const std::string whole = WholeAnswer(Chat(), choices, End());
  EXPECT_NE(whole.find(R"("content":null,"tool_calls":[{)"), std::string::npos) << whole;
  EXPECT_NE(whole.find(R"("content":"","refusal":null)"), std::string::npos) << whole;
}

TEST(ResponseWriter, LogprobsOfSeveralPartsComeWithTheLast) {
  ChoiceAnswer::Part part = WithCalls();
  part.parts.resize(2);
  part.logprobs = "{}";
  EXPECT_EQ(
      StreamDelta(Chat(), 0, part),
      std::string(kChunk) +
          R"([{"index":0,"delta":{"reasoning_content":"Hm."},"logprobs":null,"finish_reason":null}]})" +
          "\n\n" + kChunk +
          R"([{"index":0,"delta":{"content":"I look."},"logprobs":{},"finish_reason":null}]})" +
          "\n\n");
}

TEST(ResponseWriter, Errors) {
  EXPECT_EQ(
      ErrorBody({ErrorCode::context_length_exceeded, "too \"long\"", "messages", 0}),
      R"({"error":{"message":"too \"long\"","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}})");
  EXPECT_EQ(
      StreamError({ErrorCode::worker_lost, "gone", "", 1}),
      "data: "
      R"({"error":{"message":"gone","type":"server_error","param":null,"code":"worker_lost"}})"
      "\n\n");
  EXPECT_EQ(RequestIdText(0xabc), "req_0000000000000abc");
}

TEST(ResponseWriter, Models) {
  protocol::RosterEntry ready;
  ready.name = "a";
  ready.state = protocol::ModelState::kReady;
  ready.is_default = true;
  ready.created_unix = 5;
  ready.max_context = 4096;
  protocol::RosterEntry loading;
  loading.name = "b";
  loading.state = protocol::ModelState::kLoading;
  loading.reason = "r";
  loading.load_bytes_done = 1;
  loading.load_bytes_total = 2;
  const std::vector<protocol::RosterEntry> models = {ready, loading};
  EXPECT_EQ(
      ModelList(models),
      R"({"object":"list","data":[{"id":"a","object":"model","created":5,"owned_by":"perdure","state":"ready","default":true,"max_context":4096},{"id":"b","object":"model","created":0,"owned_by":"perdure","state":"loading","default":false}]})");
  EXPECT_EQ(
      HealthBody("ok", models),
      R"({"status":"ok","models":{"a":{"state":"ready"},"b":{"state":"loading","reason":"r","load":{"bytes_done":1,"bytes_total":2}}}})");
}

TEST(HttpResponse, Heads) {
  HttpResponse response = JsonResponse(200, "{}");
  response.headers = {{"x", "y"}};
  EXPECT_EQ(SerializeHead(response, BodyFraming::kLength, 784111777),
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\nconnection: keep-alive\r\n"
            "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: perdure\r\n\r\n");
  response.close = true;
  EXPECT_EQ(SerializeHead(response, BodyFraming::kChunked, 0),
            "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
            "date: Thu, 01 Jan 1970 00:00:00 GMT\r\nserver: perdure\r\n\r\n");
  EXPECT_EQ(Chunk("abcdefghijklmnopq"), "11\r\nabcdefghijklmnopq\r\n");
  EXPECT_EQ(Chunk(""), "");
}

TEST(HttpResponse, EveryErrorHasAReasonPhrase) {
  for (uint16_t wire = 1; wire <= 27; ++wire) {
    const HttpResponse response = ErrorResponse({ErrorCodeFromWire(wire), "m", "", 0});
    EXPECT_NE(ReasonPhrase(response.status), "Unknown") << response.status;
    bool has_retry = false;
    for (const auto& [name, value] : response.headers) has_retry |= name == "retry-after";
    EXPECT_EQ(has_retry, InfoOf(ErrorCodeFromWire(wire)).retryable);
  }
}

}  // namespace
}  // namespace perdure::frontend
