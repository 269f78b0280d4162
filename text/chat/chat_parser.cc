#include "text/chat/chat_parser.h"

#include <algorithm>
#include <utility>

#include "text/chat/json_scanner.h"

namespace perdure::text {
namespace {

constexpr std::string_view kTagOpen = "<tool_call>";
constexpr std::string_view kTagClose = "</tool_call>";
constexpr std::string_view kFunction = "<function=";
constexpr std::string_view kToolCalls = "[TOOL_CALLS]";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kFence = "```";
constexpr std::string_view kJsonFence = "```json";

// Qwen3-Coder sometimes leaves the outer tag out.
constexpr std::string_view kHermesMarkers[] = {kTagOpen, kTagClose};
constexpr std::string_view kQwen3CoderMarkers[] = {kTagOpen, kTagClose, kFunction};
constexpr std::string_view kMistralMarkers[] = {kToolCalls};

bool IsLineBreak(char c) { return c == '\n' || c == '\r'; }

}  // namespace

ChatParser::ChatParser(ChatParserSettings settings)
    : settings_(std::make_shared<const ChatParserSettings>(std::move(settings))),
      call_(JsonCall(JsonCall::Keys::kAny)) {
  const bool reasons =
      !settings_->form.reasoning.none() && settings_->reasoning != ReasoningStart::kClosed;
  mode_ = reasons ? Mode::kBeforeReasoning : ContentMode();
}

std::vector<ChatPiece> ChatParser::Push(std::string_view text) {
  ChatPieces out;
  for (const char c : text) Step(c, &out);
  return out.Take();
}

void ChatParser::Step(char c, ChatPieces* out) {
  switch (mode_) {
    case Mode::kBeforeReasoning:
      return StepBeforeReasoning(c, out);
    case Mode::kReasoning:
      return StepReasoning(c, out);
    case Mode::kAfterReasoning:
      if (IsLineBreak(c)) return;
      mode_ = ContentMode();
      return Step(c, out);
    case Mode::kOpening:
      return StepOpening(c, out);
    case Mode::kContent:
      return StepContent(c, out);
    case Mode::kInMarkup:
      return StepInMarkup(c, out);
    case Mode::kItem:
      return StepItem(c, out);
    case Mode::kCall:
      return StepCall(c, out);
    case Mode::kAfterCall:
      return StepAfterCall(c, out);
  }
}

std::vector<ChatPiece> ChatParser::Finish() {
  ChatPieces out;
  if (mode_ == Mode::kBeforeReasoning) {
    mode_ = settings_->reasoning == ReasoningStart::kOpen ? Mode::kReasoning : ContentMode();
    for (const char c : std::exchange(held_, {})) Step(c, &out);
  }
  switch (mode_) {
    case Mode::kBeforeReasoning:
    case Mode::kAfterReasoning:
      break;
    case Mode::kReasoning:
      out.Reasoning(space_ + held_);
      break;
    case Mode::kCall: {
      const CallSink sink{&settings_->tools, calls_, &out};
      const bool begun = std::visit([](const auto& call) { return call.begun(); }, call_);
      if (!begun) {
        GiveUp(&out);
        break;
      }
      std::visit([&sink](auto& call) { call.Finish(sink); }, call_);
      EndCall(std::visit([](const auto& call) { return call.arguments_complete(); }, call_), &out);
      break;
    }
    case Mode::kItem:
    case Mode::kAfterCall:
      // Commas and the like behind a call.
      if (!given_ || !literal_.empty()) GiveUp(&out);
      break;
    default:
      GiveUp(&out);
  }
  if (mode_ == Mode::kContent) {
    for (const char c : held_) ContentByte(c, &out);
    out.Content(space_);
  }
  held_.clear();
  space_.clear();
  return out.Take();
}

// --- Reasoning ---------------------------------------------------------------------------------

void ChatParser::StepBeforeReasoning(char c, ChatPieces* out) {
  const std::string& open = settings_->form.reasoning.open;
  held_ += c;
  if (literal_.empty() && IsJsonSpace(c)) return;
  if (GoesOn(open, c)) {
    literal_ += c;
    if (literal_.size() < open.size()) return;
    held_.clear();
    literal_.clear();
    mode_ = Mode::kReasoning;
    after_markup_ = true;
    return;
  }
  // Some models begin it again where the prompt has done so: there, too, the tag is dropped.
  literal_.clear();
  after_markup_ = settings_->reasoning == ReasoningStart::kOpen;
  mode_ = after_markup_ ? Mode::kReasoning : ContentMode();
  for (const char byte : std::exchange(held_, {})) Step(byte, out);
}

void ChatParser::StepReasoning(char c, ChatPieces* out) {
  const std::string& close = settings_->form.reasoning.close;
  held_ += c;
  while (!held_.empty() && !close.starts_with(held_)) {
    ReasoningByte(held_.front(), out);
    held_.erase(0, 1);
  }
  if (held_ != close) return;
  held_.clear();
  space_.clear();
  after_markup_ = false;
  mode_ = Mode::kAfterReasoning;
}

// Line breaks next to the tags are the template's.
void ChatParser::ReasoningByte(char c, ChatPieces* out) {
  if (IsLineBreak(c)) {
    if (!after_markup_) space_ += c;
    return;
  }
  after_markup_ = false;
  out->Reasoning(space_);
  out->Reasoning(std::string_view(&c, 1));
  space_.clear();
}

// --- Content -----------------------------------------------------------------------------------

bool ChatParser::CallsStandAtStart() const {
  const ToolFormat format = settings_->form.tools;
  return !settings_->tools.empty() &&
         (format == ToolFormat::kLlama3 || format == ToolFormat::kJson);
}

ChatParser::Mode ChatParser::ContentMode() const {
  return CallsStandAtStart() ? Mode::kOpening : Mode::kContent;
}

std::span<const std::string_view> ChatParser::Markers() const {
  if (settings_->tools.empty()) return {};
  switch (settings_->form.tools) {
    case ToolFormat::kHermes:
      return kHermesMarkers;
    case ToolFormat::kQwen3Coder:
      return kQwen3CoderMarkers;
    case ToolFormat::kMistral:
    case ToolFormat::kDevstral:
      return kMistralMarkers;
    default:
      return {};
  }
}

void ChatParser::StepContent(char c, ChatPieces* out) {
  held_ += c;
  while (!held_.empty()) {
    bool begins = false;
    for (const std::string_view marker : Markers()) {
      if (!marker.starts_with(held_)) continue;
      if (marker.size() == held_.size()) return FoundMarker(marker, out);
      begins = true;
    }
    if (begins) return;
    ContentByte(held_.front(), out);
    held_.erase(0, 1);
  }
}

void ChatParser::FoundMarker(std::string_view marker, ChatPieces* out) {
  if (marker == kTagClose) {
    if (in_tag_) {
      space_.clear();
      after_markup_ = true;
      in_tag_ = false;
    } else {
      for (const char c : held_) ContentByte(c, out);
    }
    held_.clear();
    return;
  }
  held_ = std::exchange(space_, {}) + std::string(marker);
  if (marker == kFunction) {
    given_ = given_ && in_tag_;
    in_tag_ = true;
    mode_ = Mode::kCall;
    call_ = XmlCall();
    return;
  }
  given_ = false;
  in_tag_ = marker == kTagOpen;
  mode_ = Mode::kInMarkup;
}

// White space before a call is no content, nor is what follows one.
void ChatParser::ContentByte(char c, ChatPieces* out) {
  if (IsJsonSpace(c)) {
    if (after_markup_) return;
    if (!Markers().empty()) {
      space_ += c;
      return;
    }
  }
  after_markup_ = false;
  out->Content(space_);
  out->Content(std::string_view(&c, 1));
  space_.clear();
}

// --- Calls -------------------------------------------------------------------------------------

bool ChatParser::GoesOn(std::string_view literal, char c) const {
  return literal_.size() < literal.size() && literal.starts_with(literal_) &&
         literal[literal_.size()] == c;
}

void ChatParser::StepOpening(char c, ChatPieces* out) {
  const bool llama = settings_->form.tools == ToolFormat::kLlama3;
  if (GoesOn(llama ? kPythonTag : kJsonFence, c)) {
    held_ += c;
    literal_ += c;
    if (literal_ == kPythonTag) literal_.clear();
    return;
  }
  if (literal_ == kFence || literal_ == kJsonFence) {
    in_fence_ = true;
    literal_.clear();
  }
  if (!literal_.empty()) return GiveUpAt(c, out);
  if (c == '{') return BeginCall(JsonCall(JsonCall::Keys::kStrict), c, out);
  if (c != '[' && !IsJsonSpace(c)) return GiveUpAt(c, out);
  held_ += c;
  if (c != '[') return;
  in_list_ = true;
  mode_ = Mode::kItem;
}

void ChatParser::StepInMarkup(char c, ChatPieces* out) {
  const ToolFormat format = settings_->form.tools;
  if (format == ToolFormat::kQwen3Coder && GoesOn(kFunction, c)) {
    held_ += c;
    literal_ += c;
    if (literal_ != kFunction) return;
    literal_.clear();
    mode_ = Mode::kCall;
    call_ = XmlCall();
    return;
  }
  if (!literal_.empty()) return GiveUpAt(c, out);
  if (c == '{') return BeginCall(JsonCall(JsonCall::Keys::kAny), c, out);
  if (c == '[' || IsJsonSpace(c)) {
    held_ += c;
    if (c != '[') return;
    in_list_ = true;
    mode_ = Mode::kItem;
    return;
  }
  // Which of Mistral's two forms it is shows here: versions of one template differ in it.
  if (format == ToolFormat::kMistral || format == ToolFormat::kDevstral)
    return BeginCall(BracketCall(), c, out);
  GiveUpAt(c, out);
}

void ChatParser::StepItem(char c, ChatPieces* out) {
  if (IsJsonSpace(c)) {
    held_ += c;
    return;
  }
  if (c != '{') return GiveUpAt(c, out);
  BeginCall(JsonCall(CallsStandAtStart() ? JsonCall::Keys::kStrict : JsonCall::Keys::kAny), c, out);
}

void ChatParser::BeginCall(Call call, char first, ChatPieces* out) {
  call_ = std::move(call);
  mode_ = Mode::kCall;
  StepCall(first, out);
}

void ChatParser::StepCall(char c, ChatPieces* out) {
  const CallSink sink{&settings_->tools, calls_, out};
  const CallStep step = std::visit([&](auto& call) { return call.Step(c, sink); }, call_);
  const bool begun = std::visit([](const auto& call) { return call.begun(); }, call_);
  if (begun) {
    given_ = true;
    held_.clear();
  }
  if (step == CallStep::kMore) return;
  if (begun)
    EndCall(std::visit([](const auto& call) { return call.arguments_complete(); }, call_), out);
  if (step == CallStep::kBroken) return GiveUpAt(c, out);
  const XmlCall* xml = std::get_if<XmlCall>(&call_);
  if (xml != nullptr && xml->closed_tag()) in_tag_ = false;
  const bool goes_on =
      std::holds_alternative<JsonCall>(call_) && (in_list_ || in_tag_ || CallsStandAtStart());
  mode_ = goes_on ? Mode::kAfterCall : Mode::kContent;
}

void ChatParser::EndCall(bool complete, ChatPieces* out) {
  out->EndCall(calls_++, complete);
  after_markup_ = true;
}

void ChatParser::StepAfterCall(char c, ChatPieces* out) {
  const std::string_view literal = in_fence_                                      ? kFence
                                   : settings_->form.tools == ToolFormat::kLlama3 ? kPythonTag
                                                                                  : "";
  if (!in_list_ && GoesOn(literal, c)) {
    held_ += c;
    literal_ += c;
    if (literal_ != literal) return;
    literal_.clear();
    if (in_fence_) held_.clear();
    in_fence_ = false;
    return;
  }
  if (!literal_.empty()) return GiveUpAt(c, out);
  if (IsJsonSpace(c)) {
    held_ += c;
  } else if (in_list_) {
    if (c != ',' && c != ']') return GiveUpAt(c, out);
    held_ += c;
    if (c == ',') {
      mode_ = Mode::kItem;
      return;
    }
    held_.clear();
    in_list_ = false;
    if (!in_tag_ && !CallsStandAtStart()) mode_ = Mode::kContent;
  } else if (c == '{') {
    // Several objects, one behind the other.
    mode_ = Mode::kItem;
    StepItem(c, out);
  } else if (CallsStandAtStart() && c == ';' && held_.find(';') == std::string::npos) {
    held_ += c;
  } else if (CallsStandAtStart() && c == '[') {
    held_ += c;
    in_list_ = true;
    mode_ = Mode::kItem;
  } else {
    GiveUpAt(c, out);
  }
}

void ChatParser::GiveUpAt(char c, ChatPieces* out) {
  GiveUp(out);
  Step(c, out);
}

void ChatParser::GiveUp(ChatPieces* out) {
  std::string text = std::exchange(held_, {});
  if (mode_ == Mode::kCall) {
    const auto& rest =
        std::visit([](const auto& call) -> const std::string& { return call.held(); }, call_);
    text += rest;
  }
  literal_.clear();
  mode_ = Mode::kContent;
  in_tag_ = in_tag_ && given_;
  in_list_ = false;
  in_fence_ = false;
  // The end of it may be the beginning of the next markup.
  size_t keep = 0;
  for (const std::string_view marker : Markers()) {
    for (size_t n = std::min(marker.size() - 1, text.size()); n > keep; --n) {
      if (text.ends_with(marker.substr(0, n))) keep = n;
    }
  }
  for (const char byte : std::string_view(text).substr(0, text.size() - keep))
    ContentByte(byte, out);
  held_ = text.substr(text.size() - keep);
}

}  // namespace perdure::text
