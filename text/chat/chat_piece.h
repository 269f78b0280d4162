// What an answer's text is made into.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace perdure::text {

struct ChatPiece {
  enum class Kind : uint8_t {
    kContent,
    kReasoning,
    kCallBegin,      // text: the tool's name
    kCallArguments,  // text: the next part of the arguments, an object as JSON
    kCallEnd,
  };
  Kind kind = Kind::kContent;
  int index = 0;         // of the call, from 0 in each answer
  std::string text;      // not empty but for kCallEnd
  bool complete = true;  // kCallEnd: the arguments are whole, hence valid JSON
  bool operator==(const ChatPiece&) const = default;
};

// Pieces in the order in which they came; neighbours of one kind are one piece.
class ChatPieces {
 public:
  void Content(std::string_view text) { Add(ChatPiece::Kind::kContent, 0, text); }
  void Reasoning(std::string_view text) { Add(ChatPiece::Kind::kReasoning, 0, text); }
  void BeginCall(int index, std::string_view name) {
    Add(ChatPiece::Kind::kCallBegin, index, name);
  }
  void Arguments(int index, std::string_view text) {
    Add(ChatPiece::Kind::kCallArguments, index, text);
  }
  void EndCall(int index, bool complete) {
    pieces_.push_back({ChatPiece::Kind::kCallEnd, index, {}, complete});
  }
  std::vector<ChatPiece> Take() { return std::move(pieces_); }

 private:
  void Add(ChatPiece::Kind kind, int index, std::string_view text) {
    if (text.empty()) return;
    const bool extends = !pieces_.empty() && pieces_.back().kind == kind &&
                         pieces_.back().index == index && kind != ChatPiece::Kind::kCallBegin;
    if (extends)
      pieces_.back().text += text;
    else
      pieces_.push_back({kind, index, std::string(text), true});
  }

  std::vector<ChatPiece> pieces_;
};

}  // namespace perdure::text
