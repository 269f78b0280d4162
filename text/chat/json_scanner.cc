#include "text/chat/json_scanner.h"

#include "base/limits.h"
#include "text/utf8.h"

namespace perdure::text {

static_assert(limits::kCallJsonDepthMax <= 64, "the levels are bits of a word");

namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// What stands for itself or a control character behind a backslash; 0 for none.
char Escaped(char c) {
  switch (c) {
    case '"':
    case '\\':
    case '/':
      return c;
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    default:
      return 0;
  }
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

// --- JsonStringReader --------------------------------------------------------------------------

JsonStep JsonStringReader::Step(char c, std::string* out) {
  switch (state_) {
    case State::kText:
      if (c == '"') return JsonStep::kDone;
      if (static_cast<unsigned char>(c) < 0x20) return JsonStep::kBad;
      if (c == '\\') {
        state_ = State::kEscape;
        unsettled_ = 1;
      } else if (out != nullptr) {
        out->push_back(c);
      }
      return JsonStep::kMore;
    case State::kEscape: {
      if (c == 'u') {
        state_ = State::kUnit;
        digits_ = 0;
        unit_ = 0;
        ++unsettled_;
        return JsonStep::kMore;
      }
      const char text = Escaped(c);
      if (text == 0) return JsonStep::kBad;
      if (out != nullptr) out->push_back(text);
      state_ = State::kText;
      unsettled_ = 0;
      return JsonStep::kMore;
    }
    case State::kUnit:
      return StepUnit(c, out);
    case State::kLowBackslash:
      if (c != '\\') return JsonStep::kBad;
      state_ = State::kLowU;
      ++unsettled_;
      return JsonStep::kMore;
    case State::kLowU:
      if (c != 'u') return JsonStep::kBad;
      state_ = State::kUnit;
      digits_ = 0;
      unit_ = 0;
      ++unsettled_;
      return JsonStep::kMore;
  }
  return JsonStep::kBad;
}

JsonStep JsonStringReader::StepUnit(char c, std::string* out) {
  const int digit = HexDigit(c);
  if (digit < 0) return JsonStep::kBad;
  unit_ = static_cast<uint16_t>(unit_ << 4 | digit);
  ++unsettled_;
  if (++digits_ < 4) return JsonStep::kMore;
  const bool is_high = unit_ >= 0xD800 && unit_ <= 0xDBFF;
  const bool is_low = unit_ >= 0xDC00 && unit_ <= 0xDFFF;
  if (is_low != (high_ != 0)) return JsonStep::kBad;
  if (is_high) {
    high_ = unit_;
    state_ = State::kLowBackslash;
    return JsonStep::kMore;
  }
  const char32_t code_point =
      is_low ? 0x10000 + ((high_ - 0xD800U) << 10) + (unit_ - 0xDC00U) : char32_t{unit_};
  if (out != nullptr) AppendUtf8(code_point, out);
  high_ = 0;
  state_ = State::kText;
  unsettled_ = 0;
  return JsonStep::kMore;
}

// --- JsonScanner -------------------------------------------------------------------------------

JsonStep JsonScanner::Open(bool object) {
  if (depth_ >= limits::kCallJsonDepthMax) return JsonStep::kBad;
  const uint64_t bit = uint64_t{1} << depth_++;
  objects_ = object ? objects_ | bit : objects_ & ~bit;
  state_ = object ? State::kFirstKey : State::kFirstItem;
  return JsonStep::kMore;
}

JsonStep JsonScanner::Close(bool object) {
  if (InObject() != object) return JsonStep::kBad;
  --depth_;
  return EndValue();
}

JsonStep JsonScanner::EndValue() {
  state_ = State::kAfterItem;
  return depth_ == 0 ? JsonStep::kDone : JsonStep::kMore;
}

JsonStep JsonScanner::BeginValue(char c) {
  switch (c) {
    case '{':
      return Open(true);
    case '[':
      return Open(false);
    case '"':
      state_ = State::kString;
      string_ = {};
      key_ = false;
      return JsonStep::kMore;
    case 't':
      literal_ = "rue";
      break;
    case 'f':
      literal_ = "alse";
      break;
    case 'n':
      literal_ = "ull";
      break;
    default:
      if (c != '-' && !IsDigit(c)) return JsonStep::kBad;
      state_ = c == '-' ? State::kMinus : c == '0' ? State::kZero : State::kDigits;
      return JsonStep::kMore;
  }
  state_ = State::kLiteral;
  return JsonStep::kMore;
}

JsonStep JsonScanner::StepString(char c) {
  const JsonStep step = string_.Step(c, nullptr);
  if (step != JsonStep::kDone) return step;
  if (!key_) return EndValue();
  state_ = State::kColon;
  return JsonStep::kMore;
}

JsonStep JsonScanner::StepNumber(char c) {
  const auto go = [this](State state) {
    state_ = state;
    return JsonStep::kMore;
  };
  const bool digit = IsDigit(c);
  const bool exponent = c == 'e' || c == 'E';
  switch (state_) {
    case State::kMinus:
      if (!digit) return JsonStep::kBad;
      return go(c == '0' ? State::kZero : State::kDigits);
    case State::kZero:
      if (digit) return JsonStep::kBad;
      if (c == '.') return go(State::kPoint);
      if (exponent) return go(State::kExponent);
      break;
    case State::kDigits:
      if (digit) return JsonStep::kMore;
      if (c == '.') return go(State::kPoint);
      if (exponent) return go(State::kExponent);
      break;
    case State::kPoint:
      return digit ? go(State::kFraction) : JsonStep::kBad;
    case State::kFraction:
      if (digit) return JsonStep::kMore;
      if (exponent) return go(State::kExponent);
      break;
    case State::kExponent:
      if (c == '+' || c == '-') return go(State::kExponentSign);
      return digit ? go(State::kExponentDigits) : JsonStep::kBad;
    case State::kExponentSign:
      return digit ? go(State::kExponentDigits) : JsonStep::kBad;
    default:
      if (digit) return JsonStep::kMore;
      break;
  }
  // The byte stands behind the number.
  if (EndValue() == JsonStep::kMore) return Step(c);
  done_before_ = true;
  return JsonStep::kDone;
}

JsonStep JsonScanner::Step(char c) {
  if (state_ == State::kString) return StepString(c);
  if (state_ == State::kLiteral) {
    if (c != literal_.front()) return JsonStep::kBad;
    literal_.remove_prefix(1);
    return literal_.empty() ? EndValue() : JsonStep::kMore;
  }
  if (state_ >= State::kMinus) return StepNumber(c);
  if (IsJsonSpace(c)) return JsonStep::kMore;
  switch (state_) {
    case State::kFirstItem:
      if (c == ']') return Close(false);
      return BeginValue(c);
    case State::kFirstKey:
      if (c == '}') return Close(true);
      [[fallthrough]];
    case State::kKey:
      if (c != '"') return JsonStep::kBad;
      state_ = State::kString;
      string_ = {};
      key_ = true;
      return JsonStep::kMore;
    case State::kColon:
      if (c != ':') return JsonStep::kBad;
      state_ = State::kValue;
      return JsonStep::kMore;
    case State::kAfterItem:
      if (c == ',' && depth_ > 0) {
        state_ = InObject() ? State::kKey : State::kValue;
        return JsonStep::kMore;
      }
      if (depth_ == 0 || (c != '}' && c != ']')) return JsonStep::kBad;
      return Close(c == '}');
    default:
      return BeginValue(c);
  }
}

}  // namespace perdure::text
