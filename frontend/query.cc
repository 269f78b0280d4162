#include "frontend/query.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/json.h"
#include "base/percent_encode.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {

std::string_view PathOf(std::string_view target) { return target.substr(0, target.find('?')); }

Result<std::vector<std::pair<std::string, std::string>>> QueryOf(std::string_view target) {
  std::vector<std::pair<std::string, std::string>> parameters;
  const size_t question = target.find('?');
  if (question == std::string_view::npos) return parameters;
  std::string_view query = target.substr(question + 1);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    auto value = PercentDecode(pair.substr(std::min(pair.size(), equals + 1)));
    if (!value)
      return Err(ErrorCode::invalid_request, "The query is not percent-encoded properly.");
    if (!name.empty()) parameters.emplace_back(name, std::move(*value));
  }
  return parameters;
}

tl::unexpected<Error> UnknownParameter(std::string_view name) {
  return Err(ErrorCode::invalid_request,
             fmt::format("There is no parameter {} here.", Quoted(name)), std::string(name));
}

Result<int64_t> NumberOf(std::string_view name, std::string_view text, int64_t min, int64_t max) {
  int64_t number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || number < min ||
      number > max)
    return Err(
        ErrorCode::invalid_request,
        fmt::format("{} must be an integer from {} to {}, not {}.", name, min, max, Quoted(text)),
        std::string(name));
  return number;
}

}  // namespace perdure::frontend
