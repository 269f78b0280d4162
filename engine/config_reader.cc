#include "engine/config_reader.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace perdure::engine {

ConfigReader ConfigReader::Inner(std::string_view key) const {
  return {json_.at(key), path_, Name(key) + "."};
}

const Json* ConfigReader::Find(std::string_view key) const {
  const auto it = json_.find(key);
  return it == json_.end() || it->is_null() ? nullptr : &*it;
}

std::string ConfigReader::Name(std::string_view key) const {
  return fmt::format("{}{}", prefix_, key);
}

tl::unexpected<Error> ConfigReader::Bad(std::string_view reason) const {
  return Err(ErrorCode::bad_model, fmt::format("{}: {}", path_, reason));
}

tl::unexpected<Error> ConfigReader::Unsupported(std::string_view reason) const {
  return Err(ErrorCode::unsupported, fmt::format("{}: {}", path_, reason));
}

Result<std::optional<int>> ConfigReader::OptionalInt(std::string_view key, int min, int max) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<int>();
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}))
    return Bad(fmt::format("{} is {}, not a whole number", Name(key), DumpJson(*value)));
  const int64_t number = value->get<int64_t>();
  if (number < min || number > max)
    return Bad(fmt::format("{} is {}, outside of [{}, {}]", Name(key), number, min, max));
  return std::optional<int>(static_cast<int>(number));
}

Result<int> ConfigReader::Int(std::string_view key, int min, int max) const {
  ASSIGN_OR_RETURN(const std::optional<int> value, OptionalInt(key, min, max));
  if (!value) return Bad(fmt::format("{} is missing", Name(key)));
  return *value;
}

Result<std::optional<double>> ConfigReader::OptionalNumber(std::string_view key, double min,
                                                           double max) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<double>();
  if (!value->is_number())
    return Bad(fmt::format("{} is {}, not a number", Name(key), DumpJson(*value)));
  const double number = value->get<double>();
  if (!(number >= min && number <= max))
    return Bad(fmt::format("{} is {}, outside of [{}, {}]", Name(key), number, min, max));
  return std::optional<double>(number);
}

Result<double> ConfigReader::Number(std::string_view key, double min, double max) const {
  ASSIGN_OR_RETURN(const std::optional<double> value, OptionalNumber(key, min, max));
  if (!value) return Bad(fmt::format("{} is missing", Name(key)));
  return *value;
}

Result<std::optional<bool>> ConfigReader::OptionalBool(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (!value->is_boolean())
    return Bad(fmt::format("{} is {}, not true or false", Name(key), DumpJson(*value)));
  return std::optional<bool>(value->get<bool>());
}

Result<std::optional<std::string>> ConfigReader::OptionalString(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (!value->is_string())
    return Bad(fmt::format("{} is {}, not a string", Name(key), DumpJson(*value)));
  return std::optional<std::string>(value->get<std::string>());
}

Result<std::optional<std::vector<TokenId>>> ConfigReader::TokenIds(std::string_view key,
                                                                   int vocab_size) const {
  using Ids = std::optional<std::vector<TokenId>>;
  const Json* value = Find(key);
  if (value == nullptr) return Ids();
  std::vector<TokenId> ids;
  const auto add = [&](const Json& id) {
    if (!id.is_number_integer()) return false;
    if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size))
      ids.push_back(id.get<TokenId>());
    return true;
  };
  bool good = true;
  if (value->is_array()) {
    for (const Json& id : *value) good = good && add(id);
  } else {
    good = add(*value);
  }
  if (!good)
    return Bad(fmt::format("{} is {}, neither a token id nor a list of them", Name(key),
                           DumpJson(*value).substr(0, 200)));
  return Ids(std::move(ids));
}

}  // namespace perdure::engine
