// Reading fields of a JSON object from a client: typed, range-checked, null counting as absent, and
// every error naming the field, what it may be and what it was. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace perdure::frontend {

// Bounds of a number: [min, max], or (min, max] with min_excluded.
struct NumberRange {
  double min;
  double max;
  bool min_excluded = false;
};

// "param must be <expected>, not <what it is>."
Error FieldError(std::string param, std::string_view expected, const Json& found);
// A field that is understood but asks for something this version does not do.
Error Unsupported(std::string param, std::string message);

// The field's value; null where it is absent or JSON null.
const Json* FindField(const Json& object, std::string_view name);

Result<std::optional<float>> ReadFloat(const Json& object, std::string_view name,
                                       NumberRange range);
Result<std::optional<int64_t>> ReadInteger(const Json& object, std::string_view name, int64_t min,
                                           int64_t max);
Result<std::optional<bool>> ReadBool(const Json& object, std::string_view name);
Result<std::optional<std::string>> ReadString(const Json& object, std::string_view name,
                                              size_t bytes_max);

// An integer value within [min, max]; empty for anything else, floats included.
std::optional<int64_t> AsInteger(const Json& value, int64_t min, int64_t max);

// Client text for an error message: cut to kEchoBytesMax at a character's boundary, in quotes.
std::string Quoted(std::string_view text);

}  // namespace perdure::frontend
