#include "text/tokenizer/metaspace.h"

#include <fmt/format.h>

#include "text/utf8.h"

namespace perdure::text {

Result<Metaspace> Metaspace::FromJson(const JsonField& field) {
  Metaspace metaspace;
  ASSIGN_OR_RETURN(const auto replacement, field.GetString("replacement"));
  metaspace.replacement = replacement.value_or("\u2581");
  if (!IsOneCharacter(metaspace.replacement))
    return field.Bad("must have a \"replacement\" of one character");
  ASSIGN_OR_RETURN(metaspace.split, field.GetBool("split", true));
  // Files of old versions have only this one.
  ASSIGN_OR_RETURN(const bool add_prefix_space, field.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const auto scheme, field.GetString("prepend_scheme"));
  const std::string_view when = scheme.value_or(add_prefix_space ? "always" : "never");
  if (when == "always") {
    metaspace.when = When::kAlways;
  } else if (when == "first") {
    metaspace.when = When::kFirst;
  } else if (when == "never") {
    metaspace.when = When::kNever;
  } else {
    return field.Bad(fmt::format("has the unknown prepend_scheme \"{}\"", when));
  }
  if (!add_prefix_space && metaspace.when != When::kNever)
    return field.Bad(fmt::format("has no add_prefix_space, but the prepend_scheme \"{}\"", when));
  return metaspace;
}

}  // namespace perdure::text
