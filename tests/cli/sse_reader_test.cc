#include "cli/sse_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace perdure::cli {
namespace {

constexpr std::string_view kStream =
    ": waiting\n\ndata: one\n\ndata: two\r\ndata:three\r\n\r\nevent: x\n\ndata: \n\ndata: "
    "[DONE]\n\n";

TEST(SseReader, CutsEventsWhereverThePiecesEnd) {
  for (size_t cut = 0; cut <= kStream.size(); ++cut) {
    SseReader reader;
    std::vector<std::string> events;
    const auto collect = [&](std::string_view data) { events.emplace_back(data); };
    reader.Append(kStream.substr(0, cut), collect);
    reader.Append(kStream.substr(cut), collect);
    EXPECT_EQ(events, (std::vector<std::string>{"one", "two\nthree", "", "[DONE]"})) << cut;
  }
}

TEST(SseReader, AnUnfinishedEventIsNone) {
  SseReader reader;
  int events = 0;
  reader.Append("data: one\n", [&](std::string_view) { ++events; });
  EXPECT_EQ(events, 0);
}

}  // namespace
}  // namespace perdure::cli
