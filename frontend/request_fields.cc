#include "frontend/request_fields.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

std::string Describe(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_string()) return "the string " + Quoted(value.get_ref<const std::string&>());
  if (value.is_object() || value.is_array())
    return fmt::format("an {}{}", value.empty() ? "empty " : "", JsonTypeName(value));
  return DumpJson(value);
}

std::string RangeText(const NumberRange& range, std::string_view noun) {
  if (range.min_excluded)
    return fmt::format("{} above {} and at most {}", noun, range.min, range.max);
  return fmt::format("{} from {} to {}", noun, range.min, range.max);
}

}  // namespace

std::string Quoted(std::string_view text) {
  const bool cut = text.size() > limits::kEchoBytesMax;
  if (cut) {
    size_t end = limits::kEchoBytesMax;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end);
  }
  return fmt::format("\"{}{}\"", text, cut ? "…" : "");
}

Error FieldError(std::string param, std::string_view expected, const Json& found) {
  std::string message = fmt::format("{} must be {}, not {}.", param, expected, Describe(found));
  return {ErrorCode::invalid_request, std::move(message), std::move(param), 0};
}

Error Unsupported(std::string param, std::string message) {
  return {ErrorCode::unsupported, std::move(message), std::move(param), 0};
}

const Json* FindField(const Json& object, std::string_view name) {
  for (const auto& [key, value] : object.get_ref<const Json::object_t&>())
    if (key == name) return value.is_null() ? nullptr : &value;
  return nullptr;
}

std::optional<int64_t> AsInteger(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;  // true for unsigned ones, too
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX})
    return std::nullopt;
  const int64_t number = value.get<int64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

Result<std::optional<float>> ReadFloat(const Json& object, std::string_view name,
                                       NumberRange range) {
  const Json* value = FindField(object, name);
  if (!value) return std::optional<float>();
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!value->is_number() || !(number >= range.min && number <= range.max) ||
      (range.min_excluded && number == range.min))
    return Err(FieldError(std::string(name), RangeText(range, "a number"), *value));
  return std::optional<float>(static_cast<float>(number));
}

Result<std::optional<int64_t>> ReadInteger(const Json& object, std::string_view name, int64_t min,
                                           int64_t max) {
  const Json* value = FindField(object, name);
  if (!value) return std::optional<int64_t>();
  const std::optional<int64_t> number = AsInteger(*value, min, max);
  if (!number)
    return Err(
        FieldError(std::string(name), fmt::format("an integer from {} to {}", min, max), *value));
  return number;
}

Result<std::optional<bool>> ReadBool(const Json& object, std::string_view name) {
  const Json* value = FindField(object, name);
  if (!value) return std::optional<bool>();
  if (!value->is_boolean()) return Err(FieldError(std::string(name), "true or false", *value));
  return std::optional<bool>(value->get<bool>());
}

Result<std::optional<std::string>> ReadString(const Json& object, std::string_view name,
                                              size_t bytes_max) {
  const Json* value = FindField(object, name);
  if (!value) return std::optional<std::string>();
  if (!value->is_string()) return Err(FieldError(std::string(name), "a string", *value));
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > bytes_max)
    return Err(
        ErrorCode::invalid_request,
        fmt::format("{} must not exceed {} bytes, but has {}.", name, bytes_max, text.size()),
        std::string(name));
  return std::optional<std::string>(text);
}

}  // namespace perdure::frontend
