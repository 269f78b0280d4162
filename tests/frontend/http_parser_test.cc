// Requests in tables, each fed whole, byte by byte, and in two parts at every place.
#include "frontend/http_parser.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

constexpr uint64_t kBodyMax = 1000;

struct Outcome {
  bool done = false;
  std::optional<ErrorCode> error;
  HttpRequest request;
  size_t left = 0;  // bytes after the request
};

// Feeds `bytes` in parts of `step`, keeping what was not taken, as a session does.
Outcome Parse(const std::string& bytes, size_t step) {
  HttpParser parser(kBodyMax);
  Outcome outcome;
  std::string pending;
  for (size_t at = 0; at < bytes.size(); at += step) {
    pending += bytes.substr(at, step);
    while (!parser.done()) {
      const auto taken = parser.Feed(pending);
      if (!taken) {
        outcome.error = taken.error().code;
        return outcome;
      }
      pending.erase(0, *taken);
      if (*taken == 0 || pending.empty()) break;
    }
  }
  outcome.done = parser.done();
  outcome.left = pending.size();
  outcome.request = parser.request();
  return outcome;
}

const std::string kHost = "Host: h\r\n";

TEST(HttpParser, ReadsRequests) {
  struct Row {
    std::string bytes, method, target, body;
    bool keep_alive;
  };
  const std::vector<Row> rows = {
      {"GET / HTTP/1.1\r\n" + kHost + "\r\n", "GET", "/", "", true},
      {"GET / HTTP/1.0\r\n\r\n", "GET", "/", "", false},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET", "/", "", true},
      {"GET / HTTP/1.1\r\n" + kHost + "Connection: Close\r\n\r\n", "GET", "/", "", false},
      {"POST /a?b=c HTTP/1.1\r\n" + kHost + "Content-Length: 5\r\n\r\nhello", "POST", "/a?b=c",
       "hello", true},
      {"POST / HTTP/1.1\r\n" + kHost + "Content-Length: 0\r\n\r\n", "POST", "/", "", true},
      {"POST / HTTP/1.1\r\n" + kHost + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
       "POST", "/", "hello", true},
      {"POST / HTTP/1.1\r\n" + kHost +
           "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n",
       "POST", "/", "hello", true},
      {"POST / HTTP/1.1\r\n" + kHost +
           "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\nB: y\r\n\r\n",
       "POST", "/", "hello", true},
      {"BREW /pot HTTP/1.1\r\n" + kHost + "\r\n", "BREW", "/pot", "", true},
  };
  for (const Row& row : rows) {
    for (size_t step : {row.bytes.size(), size_t{1}, size_t{2}, size_t{7}}) {
      const Outcome outcome = Parse(row.bytes, step);
      ASSERT_FALSE(outcome.error) << row.bytes << step;
      ASSERT_TRUE(outcome.done) << row.bytes << step;
      EXPECT_EQ(outcome.request.method, row.method);
      EXPECT_EQ(outcome.request.target, row.target);
      EXPECT_EQ(outcome.request.body, row.body);
      EXPECT_EQ(outcome.request.keep_alive, row.keep_alive) << row.bytes;
      EXPECT_EQ(outcome.left, 0u);
    }
    // A part of a request is never one.
    for (size_t size = 1; size < row.bytes.size(); ++size) {
      const Outcome outcome = Parse(row.bytes.substr(0, size), size);
      EXPECT_FALSE(outcome.done) << row.bytes.substr(0, size);
      EXPECT_FALSE(outcome.error) << row.bytes.substr(0, size);
    }
  }
}

TEST(HttpParser, LeavesTheNextRequest) {
  const std::string one = "POST / HTTP/1.1\r\n" + kHost + "Content-Length: 2\r\n\r\nab";
  const Outcome outcome = Parse(one + one, 2 * one.size());
  EXPECT_TRUE(outcome.done);
  EXPECT_EQ(outcome.left, one.size());
}

TEST(HttpParser, TrailersChangeNothing) {
  const Outcome outcome = Parse("POST / HTTP/1.1\r\n" + kHost +
                                    "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\r\n"
                                    "Authorization: Bearer x\r\n\r\n",
                                1000);
  ASSERT_TRUE(outcome.done);
  EXPECT_EQ(outcome.request.Count("host"), 1);
  EXPECT_EQ(outcome.request.Find("authorization"), nullptr);
}

TEST(HttpParser, RefusesWhatIsAmbiguousMalformedOrTooLarge) {
  struct Row {
    std::string bytes;
    ErrorCode code = ErrorCode::invalid_request;
  };
  auto post = [](const std::string& headers, const std::string& rest = "") {
    return "POST / HTTP/1.1\r\nHost: h\r\n" + headers + "\r\n" + rest;
  };
  std::string many_headers;
  for (size_t i = 0; i <= limits::kHttpHeadersMax; ++i) many_headers += "a: b\r\n";
  std::string many_extensions;
  for (int i = 0; i < 100; ++i) many_extensions += "1;a=" + std::string(50, 'x') + "\r\nx\r\n";
  std::string many_trailers = "0\r\n";
  for (size_t i = 0; i <= limits::kHttpHeadersMax; ++i) many_trailers += "a: b\r\n";
  const std::vector<Row> rows = {
      {post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")},
      {post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")},
      {post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")},
      {post("Content-Length: 5, 6\r\n", "hello!")},
      {post("Content-Length: -5\r\n")},
      {post("Content-Length: +5\r\n", "hello")},
      {post("Content-Length: 0x5\r\n", "hello")},
      {post("Content-Length: \r\n")},
      {post("Content-Length: 99999999999999999999999\r\n")},
      {post("Content-Length: 1001\r\n"), ErrorCode::payload_too_large},
      {post("Content-Length: 18446744073709551615\r\n"), ErrorCode::payload_too_large},
      {post("Transfer-Encoding: gzip\r\n")},
      {post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")},
      {post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n")},
      {post("Transfer-Encoding: identity\r\n")},
      {post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")},
      {post("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n", "hello")},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {post("Transfer-Encoding: chunked\r\n", "x\r\n")},
      {post("Transfer-Encoding: chunked\r\n", "-1\r\n")},
      {post("Transfer-Encoding: chunked\r\n", "3\r\nhelXX\r\n")},
      {post("Transfer-Encoding: chunked\r\n", "3e9\r\n"), ErrorCode::payload_too_large},
      {post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n"),
       ErrorCode::payload_too_large},
      {post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n")},
      {post("Transfer-Encoding: chunked\r\n",
            "1f4\r\n" + std::string(500, 'x') + "\r\n1f5\r\n" + std::string(501, 'x') + "\r\n"),
       ErrorCode::payload_too_large},
      {post("Transfer-Encoding: chunked\r\n", many_extensions), ErrorCode::header_too_large},
      {post("Transfer-Encoding: chunked\r\n", "1;" + std::string(20'000, 'a')),
       ErrorCode::header_too_large},
      {post("Transfer-Encoding: chunked\r\n", many_trailers + "\r\n"), ErrorCode::header_too_large},
      {post("Transfer-Encoding: chunked\r\n", "0\r\na: " + std::string(20'000, 'a')),
       ErrorCode::header_too_large},
      {post("Host: other\r\n")},
      {post("Expect: 200-ok\r\n")},
      {post("a: " + std::string(20'000, 'x') + "\r\n"), ErrorCode::header_too_large},
      {post(many_headers), ErrorCode::header_too_large},
      {post("a\x01: b\r\n")},
      {post("a : b\r\n")},
      {post(": b\r\n")},
      {post("no colon\r\n")},
      {post("a: b\x01\r\n")},
      {post(std::string("a: b\0c\r\n", 8))},
      {post("a: b\nc: d\r\n")},
      {"GET  / HTTP/1.1\r\n\r\n"},
      {"GET /\r\n\r\n"},
      {"GET / HTTP/1.2\r\n\r\n"},
      {"GET / HTTP/2.0\r\n\r\n"},
      {"GET / HTTP/0.9\r\n\r\n"},
      {"GET / http/1.1\r\n\r\n"},
      {"GET / HTTP/1.1\n\r\n\r\n"},
      {"G@T / HTTP/1.1\r\n\r\n"},
      {"GET /a\x7f HTTP/1.1\r\n\r\n"},
      {std::string(100, 'A') + " / HTTP/1.1\r\n\r\n"},
      {"GET /" + std::string(3000, 'a') + " HTTP/1.1\r\n\r\n", ErrorCode::header_too_large},
      {std::string(20'000, 'A'), ErrorCode::header_too_large},
      {"GET /" + std::string(70'000, 'a'), ErrorCode::header_too_large},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)},  // TLS
      {std::string("\0\0\0\0", 4)},
  };
  for (const Row& row : rows) {
    for (size_t step : {row.bytes.size(), size_t{1}, size_t{13}}) {
      const Outcome outcome = Parse(row.bytes, step);
      ASSERT_TRUE(outcome.error) << row.bytes.substr(0, 300) << " in steps of " << step;
      EXPECT_EQ(*outcome.error, row.code) << row.bytes.substr(0, 300) << " in steps of " << step;
    }
  }
}

TEST(HttpParser, CountsAllHeaderBytesHoweverSlowlyTheyCome) {
  HttpParser parser(kBodyMax);
  ASSERT_TRUE(parser.Feed("GET / HTTP/1.1\r\n"));
  const std::string line = "a: " + std::string(400, 'x') + "\r\n";
  std::string pending;
  size_t fed = 0;
  while (fed < 4 * limits::kHttpHeaderBytesMax) {
    pending += line;
    fed += line.size();
    const auto taken = parser.Feed(pending);
    if (!taken) {
      EXPECT_EQ(taken.error().code, ErrorCode::header_too_large);
      EXPECT_LE(fed, limits::kHttpHeaderBytesMax + line.size());
      return;
    }
    pending.erase(0, *taken);
  }
  FAIL() << "headers without end were read";
}

TEST(HttpParser, StopsAfterTheHeader) {
  HttpParser parser(kBodyMax);
  const std::string head =
      "POST / HTTP/1.1\r\n" + kHost + "Expect: 100-Continue\r\n" + "Content-Length: 3\r\n\r\n";
  const auto taken = parser.Feed(head + "abc");
  ASSERT_TRUE(taken);
  EXPECT_EQ(*taken, head.size());
  EXPECT_TRUE(parser.header_done());
  EXPECT_FALSE(parser.done());
  EXPECT_TRUE(parser.expects_continue());
  EXPECT_EQ(parser.content_length(), 3u);
}

// Whatever arrives, in whatever parts: an end, an error or a wait, within the bounds.
TEST(HttpParser, SurvivesMutations) {
  const std::vector<std::string> seeds = {
      "GET /v1/models HTTP/1.1\r\nHost: localhost:8000\r\nConnection: keep-alive\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b\"\r\nhel\r\n2\r\nlo"
      "\r\n0\r\nT: x\r\n\r\n",
  };
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    std::mt19937 random(seed);
    std::string bytes = seeds[seed % seeds.size()];
    for (uint32_t i = random() % 6; i > 0; --i) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, 1 + random() % 8);
          break;
        case 2:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 20));
          break;
        case 3:
          bytes[at] = "\r\n :;0,\t"[random() % 8];
          break;
      }
      if (bytes.empty()) bytes = "x";
    }
    const Outcome outcome = Parse(bytes, 1 + random() % bytes.size());
    EXPECT_LE(outcome.request.body.size(), kBodyMax);
    // In parts or whole, it is the same request.
    if (outcome.done && !outcome.error) {
      const Outcome whole = Parse(bytes, bytes.size());
      EXPECT_TRUE(whole.done) << bytes;
      EXPECT_EQ(whole.request.body, outcome.request.body) << bytes;
    }
  }
}

}  // namespace
}  // namespace perdure::frontend
