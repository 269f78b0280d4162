#include "text/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/metaspace.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/unicode_members.h"

namespace perdure::text {
namespace {

// GPT-2's pattern (openai/gpt-2, encoder.py), which ByteLevel uses unless told not to.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Punctuation as the tables of Rust's unicode_categories crate (Unicode 8) have it, and ASCII's.
constexpr std::string_view kPunctuationPattern =
    R"((?![)"
    R"(\x{61D}\x{9FD}\x{A76}\x{C77}\x{C84}\x{1B7D}-\x{1B7E}\x{2E43}-\x{2E4F})"
    R"(\x{2E52}-\x{2E5D}\x{10EAD}\x{10F55}-\x{10F59}\x{10F86}-\x{10F89}\x{1144B}-\x{1144F})"
    R"(\x{1145A}-\x{1145B}\x{1145D}\x{11660}-\x{1166C}\x{116B9}\x{1183B}\x{11944}-\x{11946})"
    R"(\x{119E2}\x{11A3F}-\x{11A46}\x{11A9A}-\x{11A9C}\x{11A9E}-\x{11AA2})"
    R"(\x{11C41}-\x{11C45}\x{11C70}-\x{11C71}\x{11EF7}-\x{11EF8}\x{11FFF})"
    R"(\x{12FF1}-\x{12FF2}\x{16E97}-\x{16E9A}\x{16FE2}\x{1E95E}-\x{1E95F}\x{1B4E}-\x{1B4F})"
    R"(\x{1B7F}\x{10D6E}\x{113D4}-\x{113D5}\x{113D7}-\x{113D8}\x{11B00}-\x{11B09}\x{11BE1})"
    R"(\x{11F43}-\x{11F4F}\x{16D6D}-\x{16D6F}\x{1E5FF})"
    R"(])[\p{P}\x{166D}\x{111C9}!-/:-@\[-`{-~])";

// Rust's char::is_numeric (Unicode 17).
constexpr std::string_view kNumericPattern = R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}])";

// Rebuilds the text word by word: f(word, index, out) appends what the word becomes.
template <class F>
void Rewrite(Words* words, const F& f) {
  std::string out;
  out.reserve(words->text.size() + words->text.size() / 2);
  for (size_t i = 0; i < words->ranges.size(); ++i) {
    TextRange& range = words->ranges[i];
    const size_t begin = out.size();
    f(std::string_view(words->text).substr(range.begin, range.end - range.begin), i, &out);
    range = {begin, out.size()};
  }
  words->text = std::move(out);
}

}  // namespace

Result<PreTokenizer> PreTokenizer::FromJson(const std::optional<JsonField>& field) {
  PreTokenizer pre_tokenizer;
  if (field) RETURN_IF_ERROR(pre_tokenizer.Add(*field));
  return pre_tokenizer;
}

Result<PreTokenizer::Behavior> PreTokenizer::BehaviorFromJson(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string_view name, field.RequireString("behavior"));
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return field.Bad(fmt::format("has the unknown behavior \"{}\"", name));
}

Status PreTokenizer::AddSplit(std::string_view pattern, Behavior behavior, bool invert,
                              const JsonField& field) {
  ASSIGN_OR_RETURN(Regex regex,
                   Regex::Compile(pattern, fmt::format("{}: {}", field.file(), field.path())));
  steps_.emplace_back(Split{std::move(regex), behavior, invert});
  return {};
}

Status PreTokenizer::AddMetaspace(const JsonField& field) {
  ASSIGN_OR_RETURN(const Metaspace metaspace, Metaspace::FromJson(field));
  steps_.emplace_back(ReplaceSpaces{metaspace.replacement});
  if (metaspace.when != Metaspace::When::kNever)
    steps_.emplace_back(Prefix{metaspace.replacement, metaspace.when == Metaspace::When::kFirst});
  if (metaspace.split) {
    ASSIGN_OR_RETURN(Regex regex, Regex::CompileLiteral(metaspace.replacement, field.path()));
    steps_.emplace_back(Split{std::move(regex), Behavior::kMergedWithNext, false});
  }
  return {};
}

PreTokenizer PreTokenizer::BytesOfMatches(Regex pattern) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.steps_.emplace_back(Split{std::move(pattern), Behavior::kRemoved, true});
  pre_tokenizer.steps_.emplace_back(MapBytes{});
  return pre_tokenizer;
}

Status PreTokenizer::Add(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string_view type, field.RequireString("type"));
  if (steps_.size() >= limits::kTokenizerStepsMax)
    return field.Bad(
        fmt::format("is one step more than the {} that are supported", limits::kTokenizerStepsMax));
  if (type == "Sequence") {
    ASSIGN_OR_RETURN(const JsonField members, field.RequireMember("pretokenizers"));
    ASSIGN_OR_RETURN(const size_t count, members.Elements());
    for (size_t i = 0; i < count; ++i) RETURN_IF_ERROR(Add(members.At(i)));
    return {};
  }
  if (type == "Split") {
    ASSIGN_OR_RETURN(const JsonField pattern, field.RequireMember("pattern"));
    ASSIGN_OR_RETURN(Regex regex, PatternFromJson(pattern));
    ASSIGN_OR_RETURN(const Behavior behavior, BehaviorFromJson(field));
    ASSIGN_OR_RETURN(const bool invert, field.GetBool("invert", false));
    steps_.emplace_back(Split{std::move(regex), behavior, invert});
    return {};
  }
  if (type == "ByteLevel") {
    ASSIGN_OR_RETURN(const bool add_prefix_space, field.GetBool("add_prefix_space", true));
    ASSIGN_OR_RETURN(const bool use_regex, field.GetBool("use_regex", true));
    if (add_prefix_space) steps_.emplace_back(Prefix{" ", false});
    if (use_regex) RETURN_IF_ERROR(AddSplit(kGpt2Pattern, Behavior::kIsolated, false, field));
    steps_.emplace_back(MapBytes{});
    return {};
  }
  if (type == "Metaspace") return AddMetaspace(field);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, field.GetBool("individual_digits", false));
    return AddSplit(kNumericPattern, individual ? Behavior::kIsolated : Behavior::kContiguous,
                    false, field);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const auto written, field.GetString("behavior"));
    Behavior behavior = Behavior::kIsolated;
    if (written) {
      ASSIGN_OR_RETURN(behavior, BehaviorFromJson(field));
    }
    return AddSplit(kPunctuationPattern, behavior, false, field);
  }
  if (type == "Whitespace") {
    ASSIGN_OR_RETURN(
        Regex regex,
        Regex::CompilePcre2(fmt::format("[{0}]+|[^{0}\\p{{White_Space}}]+", RustWordMembers()),
                            field.path()));
    steps_.emplace_back(Split{std::move(regex), Behavior::kRemoved, true});
    return {};
  }
  if (type == "WhitespaceSplit") return AddSplit("\\s", Behavior::kRemoved, false, field);
  if (type == "BertPreTokenizer") {
    RETURN_IF_ERROR(AddSplit("\\s", Behavior::kRemoved, false, field));
    return AddSplit(kPunctuationPattern, Behavior::kIsolated, false, field);
  }
  return field.Unsupported(
      fmt::format("is of type \"{}\"; supported are Split, ByteLevel, Metaspace, Digits, "
                  "Punctuation, Whitespace, WhitespaceSplit, BertPreTokenizer and Sequence",
                  type));
}

Status PreTokenizer::Apply(std::string text, bool at_start, RegexRunner& runner,
                           Words* words) const {
  words->text = std::move(text);
  words->ranges.clear();
  if (words->text.empty()) return {};
  words->ranges.push_back({0, words->text.size()});
  const size_t bytes_max =
      words->text.size() * limits::kNormalizedGrowthMax + limits::kNormalizedSlackBytes;
  for (const Step& step : steps_) {
    RETURN_IF_ERROR(std::visit(
        [&](const auto& alternative) { return Do(alternative, at_start, runner, words); }, step));
    if (words->text.size() > bytes_max)
      return Err(ErrorCode::invalid_request,
                 fmt::format("the text is longer than {} bytes after pre-tokenization", bytes_max));
  }
  return {};
}

Status PreTokenizer::Do(const Split& step, bool, RegexRunner& runner, Words* words) {
  std::vector<TextRange> out;
  out.reserve(words->ranges.size());
  std::vector<TextRange> matches;
  for (const TextRange word : words->ranges) {
    matches.clear();
    const std::string_view text =
        std::string_view(words->text).substr(word.begin, word.end - word.begin);
    RETURN_IF_ERROR(runner.FindAll(step.pattern, text, &matches));

    // Matches and what is between them, in order; each is passed with whether it delimits.
    const size_t first_out = out.size();
    bool previous_delimits = false;
    bool any = false;
    const auto add = [&](size_t begin, size_t end, bool is_match) {
      const bool delimits = is_match != step.invert;
      const TextRange range{word.begin + begin, word.begin + end};
      bool extend_last = false;
      switch (step.behavior) {
        case Behavior::kIsolated:
          break;
        case Behavior::kRemoved:
          if (delimits) return;
          break;
        case Behavior::kMergedWithPrevious:
          extend_last = any && delimits && !previous_delimits;
          break;
        case Behavior::kMergedWithNext:
          extend_last = any && previous_delimits && !delimits;
          break;
        case Behavior::kContiguous:
          extend_last = any && delimits == previous_delimits;
          break;
      }
      if (extend_last) {
        out.back().end = range.end;
      } else {
        out.push_back(range);
      }
      previous_delimits = delimits;
      any = true;
    };
    size_t at = 0;
    for (const TextRange match : matches) {
      if (match.begin > at) add(at, match.begin, false);
      add(match.begin, match.end, true);
      at = match.end;
    }
    if (at < text.size()) add(at, text.size(), false);
    out.erase(std::remove_if(out.begin() + static_cast<ptrdiff_t>(first_out), out.end(),
                             [](const TextRange& r) { return r.begin == r.end; }),
              out.end());
  }
  words->ranges = std::move(out);
  return {};
}

Status PreTokenizer::Do(const Prefix& step, bool at_start, RegexRunner&, Words* words) {
  Rewrite(words, [&](std::string_view word, size_t index, std::string* out) {
    const bool applies = !step.only_first || (at_start && index == 0);
    if (applies && !word.starts_with(step.prefix)) *out += step.prefix;
    *out += word;
  });
  return {};
}

Status PreTokenizer::Do(const ReplaceSpaces& step, bool, RegexRunner&, Words* words) {
  Rewrite(words, [&](std::string_view word, size_t, std::string* out) {
    for (const char c : word) {
      if (c == ' ') {
        *out += step.replacement;
      } else {
        out->push_back(c);
      }
    }
  });
  return {};
}

Status PreTokenizer::Do(const MapBytes&, bool, RegexRunner&, Words* words) {
  Rewrite(words,
          [](std::string_view word, size_t, std::string* out) { AppendByteLevel(word, out); });
  return {};
}

}  // namespace perdure::text
