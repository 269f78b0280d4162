// JSON documents as template values.
#pragma once

#include "base/json.h"
#include "text/template/value.h"

namespace perdure::text::jinja {

// Strings, keys too, are marked as input when `input`. bad_template when nested too deeply.
Result<Value> ValueFromJson(const Json& json, bool input);

// The conversation: as ValueFromJson(json, true), but the role of each message, where it is one of
// the roles that APIs define, is the template's own text. Templates build special tokens from it
// ("<|" + role + "|>"), and a client chooses among those roles anyway.
Result<Value> MessagesFromJson(const Json& json);

}  // namespace perdure::text::jinja
