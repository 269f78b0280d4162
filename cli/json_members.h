// Members of a service's answers, whatever a newer service may send: what is missing or of another
// type is nothing.
#pragma once

#include <cstdint>

#include "base/json.h"

namespace perdure::cli {

double Number(const Json& object, const char* key);
uint64_t Count(const Json& object, const char* key);
bool IsTrue(const Json& object, const char* key);
const Json& Member(const Json& object, const char* key);  // an object
const Json& List(const Json& object, const char* key);    // an array

}  // namespace perdure::cli
