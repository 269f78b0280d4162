// JSON that comes byte by byte: is what has come so far the beginning of a value, and where does it
// end? Nothing is kept of it. Grammar of RFC 8259, without lone surrogates in escapes and no deeper
// than limits::kCallJsonDepthMax; the input is UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace perdure::text {

// Of JSON: blank, tab, line feed, carriage return.
inline bool IsJsonSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// What a byte was to a reader. kBad: what has come is no beginning of a value; the reader must not
// be used any more.
enum class JsonStep : uint8_t { kMore, kDone, kBad };

// A string behind its opening quote. A value of a few bytes.
class JsonStringReader {
 public:
  // Appends to `out`, unless that is null, what the byte completes of the string's text. kDone: it
  // was the closing quote.
  JsonStep Step(char c, std::string* out);
  // An escape has begun and stands for nothing yet; how many of the last bytes belong to it.
  int unsettled() const { return unsettled_; }

 private:
  JsonStep StepUnit(char c, std::string* out);

  enum class State : uint8_t { kText, kEscape, kUnit, kLowBackslash, kLowU };
  State state_ = State::kText;
  uint8_t digits_ = 0;  // of a \u escape
  uint16_t unit_ = 0;   // its value so far
  uint16_t high_ = 0;   // the surrogate before it, or 0
  uint8_t unsettled_ = 0;
};

// Any value. A value of a few bytes.
class JsonScanner {
 public:
  // White space before the value is kMore. kDone: the byte ends the value. A number at the top ends
  // only before a byte that is not of it: see `done_before`.
  JsonStep Step(char c);
  // kDone was said of a number: the byte is not part of it.
  bool done_before() const { return done_before_; }

 private:
  enum class State : uint8_t {
    kValue,
    kFirstItem,  // or ]
    kFirstKey,   // or }
    kKey,
    kColon,
    kAfterItem,
    kString,
    kLiteral,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
  };

  JsonStep BeginValue(char c);
  JsonStep Open(bool object);
  JsonStep Close(bool object);
  JsonStep EndValue();
  JsonStep StepString(char c);
  JsonStep StepNumber(char c);
  bool InObject() const { return (objects_ >> (depth_ - 1) & 1) != 0; }

  State state_ = State::kValue;
  bool key_ = false;  // the string is one
  bool done_before_ = false;
  int depth_ = 0;
  uint64_t objects_ = 0;  // by depth, from bit 0: an object, else a list
  JsonStringReader string_;
  std::string_view literal_;  // what is left of it
};

}  // namespace perdure::text
