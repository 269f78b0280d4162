// An answer run through a ChatParser, cut in every way.
#pragma once

#include <string>
#include <vector>

#include "text/chat/chat_parser.h"

namespace perdure::text {

struct ReadCall {
  std::string name;
  std::string arguments;
  bool complete = true;
  bool operator==(const ReadCall&) const = default;
};

struct ReadAnswer {
  std::string content;
  std::string reasoning;
  std::vector<ReadCall> calls;
  bool operator==(const ReadAnswer&) const = default;
};

void PrintTo(const ReadAnswer& answer, std::ostream* out);

// Joins pieces, and expects that they come in order: begin, arguments, end, no call in another.
ReadAnswer Join(const std::vector<ChatPiece>& pieces);

// The parts of the answer, one after the other.
ReadAnswer Read(const ChatParserSettings& settings, const std::vector<std::string>& parts);

// Read of the whole text. Expects that it is the same byte by byte, cut at every two places, and
// from a copy made at every place.
ReadAnswer ReadEveryWay(const ChatParserSettings& settings, const std::string& text);

// get_weather(place: string, days: integer, …) and others: see the source.
ChatParserSettings Settings(ToolFormat format, ReasoningTags reasoning = {},
                            ReasoningStart start = ReasoningStart::kUndecided);

inline const ReasoningTags kThink = {"<think>", "</think>"};

}  // namespace perdure::text
