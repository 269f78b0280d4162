#include "text/template/json_value.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

namespace perdure::text::jinja {
namespace {

constexpr std::string_view kRoles[] = {"system",         "developer",  "user",    "assistant",
                                       "tool",           "function",   "ipython", "model",
                                       "tool_responses", "environment"};

}  // namespace

Result<Value> ValueFromJson(const Json& json, bool input) {
  switch (json.type()) {
    case Json::value_t::null:
    case Json::value_t::discarded:
    case Json::value_t::binary:
      return Value::None();
    case Json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::Integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      return Value::Integer(static_cast<Int>(json.get<uint64_t>()));
    case Json::value_t::number_float:
      return Value::Float(json.get<double>());
    case Json::value_t::string:
      return Value::String(json.get_ref<const std::string&>(), input);
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& element : json) {
        ASSIGN_OR_RETURN(Value item, ValueFromJson(element, input));
        items.push_back(std::move(item));
      }
      return MakeList(std::move(items));
    }
    case Json::value_t::object: {
      Dict dict;
      for (const auto& [key, element] : json.items()) {
        ASSIGN_OR_RETURN(Value value, ValueFromJson(element, input));
        RETURN_IF_ERROR(dict.Set(Value::String(key, input), std::move(value)));
      }
      return Value::FromDict(std::make_shared<const Dict>(std::move(dict)));
    }
  }
  return Value::None();
}

Result<Value> MessagesFromJson(const Json& json) {
  if (!json.is_array()) return ValueFromJson(json, true);
  std::vector<Value> messages;
  for (const Json& message : json) {
    if (!message.is_object()) {
      ASSIGN_OR_RETURN(Value value, ValueFromJson(message, true));
      messages.push_back(std::move(value));
      continue;
    }
    Dict dict;
    for (const auto& [key, element] : message.items()) {
      const bool known_role = key == "role" && element.is_string() &&
                              std::find(std::begin(kRoles), std::end(kRoles),
                                        element.get_ref<const std::string&>()) != std::end(kRoles);
      ASSIGN_OR_RETURN(Value value, ValueFromJson(element, !known_role));
      RETURN_IF_ERROR(dict.Set(Value::String(key, true), std::move(value)));
    }
    messages.push_back(Value::FromDict(std::make_shared<const Dict>(std::move(dict))));
  }
  return MakeList(std::move(messages));
}

}  // namespace perdure::text::jinja
