// An answer's text made into content, reasoning and calls of tools: a pure fold over characters,
// the last stage behind OutputFold. The same text gives the same pieces wherever it is cut, but for
// where neighbouring pieces of one kind meet.
//
//   text → reasoning (once, at the start) → content, and calls in it
//
// A call is given out when its tool's name is known and its arguments have begun; from then on they
// stream, byte for byte as the model wrote them. What looks like a call and is none (broken JSON, a
// name that no tool has) comes back as content, with its markup. docs/tool_calls.md tells more.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/chat/bracket_call.h"
#include "text/chat/chat_form.h"
#include "text/chat/chat_piece.h"
#include "text/chat/json_call.h"
#include "text/chat/tool_signature.h"
#include "text/chat/xml_call.h"

namespace perdure::text {

struct ChatParserSettings {
  ChatForm form;
  ReasoningStart reasoning = ReasoningStart::kUndecided;
  std::vector<ToolSignature> tools;  // none: markup of calls is content like any other text
};

// A value that is cheap to copy; copies share the settings. Not thread-safe.
class ChatParser {
 public:
  explicit ChatParser(ChatParserSettings settings);

  // The answer's next text, whole characters.
  std::vector<ChatPiece> Push(std::string_view text);
  // The end of the answer: settles what was held back. Nothing may be pushed any more.
  std::vector<ChatPiece> Finish();

  // Calls that have ended so far.
  int calls() const { return calls_; }
  bool in_reasoning() const { return mode_ == Mode::kReasoning; }

 private:
  using Call = std::variant<JsonCall, XmlCall, BracketCall>;
  enum class Mode : uint8_t {
    kBeforeReasoning,  // white space, then the opening tag, or something else
    kReasoning,
    kAfterReasoning,  // line breaks that are no content
    kOpening,         // formats whose calls stand at the start: what may come before a call
    kContent,
    kInMarkup,   // behind the markup that announces a call
    kItem,       // in a list, where a call must come
    kCall,       // call_ reads it
    kAfterCall,  // in a list, or where several calls need no markup between them
  };

  void Step(char c, ChatPieces* out);
  void StepBeforeReasoning(char c, ChatPieces* out);
  void StepReasoning(char c, ChatPieces* out);
  void StepOpening(char c, ChatPieces* out);
  void StepContent(char c, ChatPieces* out);
  void StepInMarkup(char c, ChatPieces* out);
  void StepItem(char c, ChatPieces* out);
  void StepCall(char c, ChatPieces* out);
  void StepAfterCall(char c, ChatPieces* out);

  // With what content begins.
  Mode ContentMode() const;
  bool CallsStandAtStart() const;
  std::span<const std::string_view> Markers() const;
  void FoundMarker(std::string_view marker, ChatPieces* out);
  // `c` goes on with a literal of which literal_ is the beginning.
  bool GoesOn(std::string_view literal, char c) const;
  void BeginCall(Call call, char first, ChatPieces* out);
  void EndCall(bool complete, ChatPieces* out);
  // What is held was no call after all.
  void GiveUp(ChatPieces* out);
  void GiveUpAt(char c, ChatPieces* out);
  void ReasoningByte(char c, ChatPieces* out);
  void ContentByte(char c, ChatPieces* out);

  std::shared_ptr<const ChatParserSettings> settings_;
  Mode mode_;
  // Read and not given out: what could be the beginning of markup, or has begun a call.
  std::string held_;
  std::string literal_;        // the end of it that is the beginning of expected markup
  std::string space_;          // behind content or reasoning: part of it, if more of it follows
  bool after_markup_ = false;  // white space that comes next is no content
  bool in_tag_ = false;        // a closing tag may come
  bool in_list_ = false;
  bool in_fence_ = false;
  bool given_ = false;  // of the calls that this markup announced, one was given out
  int calls_ = 0;
  Call call_;
};

}  // namespace perdure::text
