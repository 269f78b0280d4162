#include "cli/json_members.h"

#include <nlohmann/json.hpp>

namespace perdure::cli {
namespace {

const Json* Find(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? nullptr : &*it;
}

}  // namespace

double Number(const Json& object, const char* key) {
  const Json* const member = Find(object, key);
  return member != nullptr && member->is_number() ? member->get<double>() : 0.0;
}

uint64_t Count(const Json& object, const char* key) {
  const double number = Number(object, key);
  return number > 0 ? static_cast<uint64_t>(number) : 0;
}

bool IsTrue(const Json& object, const char* key) {
  const Json* const member = Find(object, key);
  return member != nullptr && member->is_boolean() && member->get<bool>();
}

const Json& Member(const Json& object, const char* key) {
  static const Json kNone = Json::object();
  const Json* const member = Find(object, key);
  return member != nullptr && member->is_object() ? *member : kNone;
}

const Json& List(const Json& object, const char* key) {
  static const Json kNone = Json::array();
  const Json* const member = Find(object, key);
  return member != nullptr && member->is_array() ? *member : kNone;
}

}  // namespace perdure::cli
