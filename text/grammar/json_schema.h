// JSON Schema (2020-12, and draft 7 where it differs) to grammars.
//
// Whatever the grammar accepts is valid. Not all that is valid is accepted: properties come in the
// order in which the schema declares them, and docs/structured_output.md tells what else is fixed.
// A keyword that cannot be kept exactly is an error, never ignored.
#pragma once

#include "base/json.h"
#include "base/result.h"
#include "text/grammar/grammar.h"

namespace perdure::text {

struct JsonSchemaOptions {
  // None, a blank, or a newline and some indentation where JSON texts usually have some; else none.
  bool white_space = true;
};

// Values that `schema` allows, as a part of a grammar that `builder` makes. The schema is not
// needed afterwards. Errors (invalid_request) name keyword and JSON pointer: 'schema keyword "not"
// at
// #/properties/a is not supported'. Bounded in time and memory whatever the schema is; it comes
// from ParseJson, which bounds its depth.
Result<Expression> AddJsonSchema(const Json& schema, const JsonSchemaOptions& options,
                                 GrammarBuilder* builder);

// The same as a grammar of its own; invalid_request also for a schema that nothing satisfies.
Result<GrammarPtr> CompileJsonSchema(const Json& schema, const JsonSchemaOptions& options = {});

}  // namespace perdure::text
