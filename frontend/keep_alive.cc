#include "frontend/keep_alive.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

constexpr std::string_view kExpected = "seconds, or a duration such as \"5m\" or \"1h30m\"";

std::optional<double> UnitSeconds(std::string_view unit) {
  if (unit.empty() || unit == "s") return 1;
  if (unit == "ms") return 0.001;
  if (unit == "m") return 60;
  if (unit == "h") return 3600;
  return std::nullopt;
}

std::optional<double> SecondsOf(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  if (text.empty()) return std::nullopt;
  double seconds = 0;
  for (bool is_first = true; !text.empty(); is_first = false) {
    if (text.front() < '0' || text.front() > '9') return std::nullopt;  // "inf" is a number, too
    double number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    if (error != std::errc()) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    size_t length = 0;
    while (length < text.size() && text[length] >= 'a' && text[length] <= 'z') ++length;
    const auto unit = UnitSeconds(text.substr(0, length));
    if (!unit) return std::nullopt;
    // A number without a unit stands alone.
    if (length == 0 && !(is_first && text.empty())) return std::nullopt;
    text.remove_prefix(length);
    seconds += number * *unit;
  }
  return negative ? -seconds : seconds;
}

}  // namespace

Result<std::optional<int32_t>> ReadKeepAlive(const Json& body) {
  const Json* field = FindField(body, "keep_alive");
  if (!field) return std::nullopt;
  std::optional<double> seconds;
  if (field->is_number()) seconds = field->get<double>();
  if (field->is_string()) seconds = SecondsOf(field->get_ref<const std::string&>());
  if (!seconds || std::isnan(*seconds)) return Err(FieldError("keep_alive", kExpected, *field));
  if (*seconds < 0) return -1;
  return static_cast<int32_t>(std::min(std::ceil(*seconds), double{INT32_MAX}));
}

}  // namespace perdure::frontend
