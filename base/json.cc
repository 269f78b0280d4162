#include "base/json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/brief.h"
#include "base/limits.h"

namespace perdure {
namespace {

// Builds the value from events, so that depth and duplicate keys are seen before they cost
// anything.
class Builder {
 public:
  explicit Builder(int max_depth) : max_depth_(max_depth) {}

  bool null() { return Add(nullptr); }
  bool boolean(bool v) { return Add(v); }
  bool number_integer(Json::number_integer_t v) { return Add(v); }
  bool number_unsigned(Json::number_unsigned_t v) { return Add(v); }
  bool number_float(Json::number_float_t v, const std::string&) {
    if (!std::isfinite(v)) return Fail("a number is out of range");
    return Add(v);
  }
  bool string(std::string& v) { return Add(std::move(v)); }
  bool binary(Json::binary_t&) { return Fail("binary values are not JSON"); }
  bool start_object(size_t) { return Open(Json::object()); }
  bool start_array(size_t) { return Open(Json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(std::string& k) {
    if (!keys_.back().insert(k).second) return Fail(fmt::format("the key \"{}\" stands twice", k));
    key_ = std::move(k);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) {
    position_ = position;
    // The library's text after its own location, e.g. "syntax error while parsing value - …".
    std::string_view text = e.what();
    if (const size_t at = text.find(": "); at != std::string_view::npos) text.remove_prefix(at + 2);
    if (!problem_) problem_ = std::string(text);
    return false;
  }

  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  const std::optional<std::string>& problem() const { return problem_; }
  size_t position() const { return position_; }
  Json Take() { return std::move(root_); }

 private:
  Json* Place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    // Straight into the vector below: ordered_map's own insertion searches all keys each time.
    using Entries = std::vector<Json::object_t::value_type>;
    auto& entries = static_cast<Entries&>(parent.get_ref<Json::object_t&>());
    return &entries.emplace_back(std::move(key_), std::move(value)).second;
  }
  bool Add(Json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(Json value) {
    if (static_cast<int>(stack_.size()) >= max_depth_)
      return Fail(fmt::format("nested deeper than {} levels", max_depth_));
    stack_.push_back(Place(std::move(value)));
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  int max_depth_;
  Json root_;
  std::vector<Json*> stack_;
  std::vector<std::unordered_set<std::string>> keys_;
  std::string key_;
  std::optional<std::string> problem_;
  size_t position_ = 0;
};

std::string Location(std::string_view text, size_t position) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i + 1 < position && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else {
      ++column;
    }
  }
  return fmt::format("line {}, column {}", line, column);
}

}  // namespace

Result<Json> ParseJson(std::string_view text, std::string_view what, ErrorCode code,
                       int max_depth) {
  Builder builder(max_depth);
  bool ok = false;
  try {
    ok = Json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const std::exception& e) {
    builder.Fail(e.what());
  }
  if (ok) return builder.Take();
  const std::string where =
      builder.position() > 0 ? " (" + Location(text, builder.position()) + ")" : std::string();
  // The library repeats what it has last read, which may be a string of megabytes.
  return Err(code, fmt::format("{} is not valid JSON{}: {}", what, where,
                               Brief(builder.problem().value_or("unknown error"),
                                     limits::kJsonProblemBytesMax)));
}

std::string DumpJson(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string_view JsonTypeName(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
    case Json::value_t::discarded:
      return "null";
    case Json::value_t::boolean:
      return "boolean";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "integer";
    case Json::value_t::number_float:
      return "number";
    case Json::value_t::string:
    case Json::value_t::binary:
      return "string";
    case Json::value_t::array:
      return "array";
    case Json::value_t::object:
      return "object";
  }
  return "null";
}

}  // namespace perdure
