// Regular expressions of tokenizer.json, which are written for Oniguruma, matched by PCRE2.
//
// Oniguruma's meaning is kept: \s is Unicode's White_Space (PCRE2 would add U+180E), \w and \b use
// Unicode's word characters, ^ and $ match at lines, and empty matches are found as its iterator
// finds them. What cannot be translated exactly is refused; known to differ are only [^\p{Lu}] and
// its like under (?i), and U+1171E in \p{Mn}.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/text_range.h"

struct pcre2_real_code_8;

namespace perdure::text {

// Immutable and thread-safe; copies share the compiled code.
class Regex {
 public:
  // `where` stands in errors: "tokenizer.json: pre_tokenizer.pattern". bad_model for a pattern that
  // is none, unsupported for one that means something else to PCRE2.
  static Result<Regex> Compile(std::string_view pattern, std::string_view where);
  // Matches exactly `literal`.
  static Result<Regex> CompileLiteral(std::string_view literal, std::string_view where);
  // A pattern of our own, in PCRE2's syntax.
  static Result<Regex> CompilePcre2(std::string_view pattern, std::string_view where);

 private:
  friend class RegexRunner;
  Regex(std::shared_ptr<pcre2_real_code_8> code, std::string where)
      : code_(std::move(code)), where_(std::move(where)) {}
  static Result<Regex> CompileWith(std::string_view pattern, uint32_t options,
                                   std::string_view where);

  std::shared_ptr<pcre2_real_code_8> code_;
  std::string where_;
};

// The scratch space and the budget of one Encode call, for one thread. Matching work is bounded: a
// pattern that backtracks without end is an error (bad_model), not a hang.
class RegexRunner {
 public:
  // `text_bytes`: length of the whole text, which the budget grows with.
  explicit RegexRunner(size_t text_bytes);
  ~RegexRunner();
  RegexRunner(const RegexRunner&) = delete;
  RegexRunner& operator=(const RegexRunner&) = delete;

  // Appends all matches in `text` (valid UTF-8), in order, to `matches`.
  Status FindAll(const Regex& regex, std::string_view text, std::vector<TextRange>* matches);

 private:
  struct State;
  // PCRE2's return code.
  int MatchAt(const Regex& regex, std::string_view text, size_t start);

  std::unique_ptr<State> state_;
  int64_t budget_;
};

// The pattern in PCRE2's syntax; exposed for tests.
Result<std::string> TranslateOniguruma(std::string_view pattern, std::string_view where);

}  // namespace perdure::text
