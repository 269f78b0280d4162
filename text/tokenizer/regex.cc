#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizer/regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "base/limits.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

struct MatchDataFree {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
struct MatchContextFree {
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
};
struct JitStackFree {
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
struct CompileContextFree {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};

// Almost every match of a sane pattern needs fewer steps than this.
constexpr uint32_t kFirstMatchLimit = 512;
constexpr uint32_t kMatchLimitGrowth = 16;
constexpr size_t kJitStackBytesMin = size_t{32} << 10;

std::string PcreMessage(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0)
    return fmt::format("PCRE2 error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

Result<Regex> Regex::CompileWith(std::string_view pattern, uint32_t options,
                                 std::string_view where) {
  const std::unique_ptr<pcre2_compile_context, CompileContextFree> context(
      pcre2_compile_context_create(nullptr));
  CHECK(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                       options | PCRE2_UTF, &code, &offset, context.get());
  if (compiled == nullptr) {
    return Err(ErrorCode::bad_model,
               fmt::format("{} is not a usable regular expression: {} (at {})", where,
                           PcreMessage(code), offset));
  }
  std::shared_ptr<pcre2_real_code_8> shared(compiled, [](pcre2_code* p) { pcre2_code_free(p); });
  // Without the JIT (SELinux may forbid it) the interpreter matches the same, only slower.
  pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);
  return Regex(std::move(shared), std::string(where));
}

Result<Regex> Regex::Compile(std::string_view pattern, std::string_view where) {
  ASSIGN_OR_RETURN(const std::string translated, TranslateOniguruma(pattern, where));
  return CompilePcre2(translated, where);
}

Result<Regex> Regex::CompilePcre2(std::string_view pattern, std::string_view where) {
  return CompileWith(pattern, PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, where);
}

Result<Regex> Regex::CompileLiteral(std::string_view literal, std::string_view where) {
  if (literal.size() > limits::kTokenizerPatternBytesMax) {
    return Err(ErrorCode::bad_model,
               fmt::format("{} is {} bytes long; at most {} are supported", where, literal.size(),
                           limits::kTokenizerPatternBytesMax));
  }
  return CompileWith(literal, PCRE2_LITERAL, where);
}

struct RegexRunner::State {
  std::unique_ptr<pcre2_match_data, MatchDataFree> match{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, MatchContextFree> context{
      pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, JitStackFree> jit_stack;
};

RegexRunner::RegexRunner(size_t text_bytes)
    : state_(std::make_unique<State>()),
      budget_(limits::kRegexStepsBase +
              limits::kRegexStepsPerByte * static_cast<int64_t>(text_bytes)) {
  CHECK(state_->match != nullptr && state_->context != nullptr);
  pcre2_set_heap_limit(state_->context.get(), limits::kRegexHeapBytesMax >> 10);
}

RegexRunner::~RegexRunner() = default;

int RegexRunner::MatchAt(const Regex& regex, std::string_view text, size_t start) {
  pcre2_match_context* context = state_->context.get();
  // PCRE2 does not tell how many steps a match took. So each is tried with a small limit first,
  // which costs the budget nothing; only those that need more are charged.
  uint32_t limit = kFirstMatchLimit;
  for (;;) {
    pcre2_set_match_limit(context, limit);
    const int rc =
        pcre2_match(regex.code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    start, PCRE2_NO_UTF_CHECK, state_->match.get(), context);
    if (rc == PCRE2_ERROR_MATCHLIMIT && budget_ > 0) {
      limit = static_cast<uint32_t>(
          std::min<int64_t>(int64_t{limit} * kMatchLimitGrowth, std::max<int64_t>(budget_, 1)));
      budget_ -= limit;
      continue;
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && state_->jit_stack == nullptr) {
      state_->jit_stack.reset(
          pcre2_jit_stack_create(kJitStackBytesMin, limits::kRegexJitStackBytesMax, nullptr));
      if (state_->jit_stack == nullptr) return rc;
      pcre2_jit_stack_assign(context, nullptr, state_->jit_stack.get());
      continue;
    }
    return rc;
  }
}

Status RegexRunner::FindAll(const Regex& regex, std::string_view text,
                            std::vector<TextRange>* matches) {
  if (text.empty()) return {};
  size_t at = 0;
  std::optional<size_t> last_end;
  while (at <= text.size()) {
    const int rc = MatchAt(regex, text, at);
    if (rc == PCRE2_ERROR_NOMATCH) return {};
    if (rc < 0) {
      return Err(ErrorCode::bad_model, fmt::format("{} takes too long to match this text ({})",
                                                   regex.where_, PcreMessage(rc)));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state_->match.get());
    const size_t begin = range[0], end = range[1];
    // \K inside a lookbehind could report such a match; it has no meaning here.
    if (begin > end || begin < last_end.value_or(0)) {
      return Err(ErrorCode::bad_model,
                 fmt::format("{} matches text in front of its own start", regex.where_));
    }
    // No empty match right behind a match, else there would be no end.
    if (begin == end && last_end == end) {
      if (end == text.size()) return {};
      at = end + static_cast<size_t>(DecodeUtf8(text, end).length);
      continue;
    }
    matches->push_back({begin, end});
    at = end;
    last_end = end;
  }
  return {};
}

}  // namespace perdure::text
