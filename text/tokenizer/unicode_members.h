// What \p{…} and \w mean to Oniguruma as `tokenizers` 0.23 carries it (Unicode 16), in terms of
// PCRE2 10.42 (Unicode 14): its own property plus the characters that came later.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace perdure::text {

// The members of \p{name} as they stand in a character class, without brackets. Known are general
// categories ("L", "Nd"; not those with unassigned characters) and the scripts that patterns of
// tokenizers use; nullopt for others. One character is off: U+1171E counts as Mn, not as Mc.
std::optional<std::string> PropertyMembers(std::string_view name);
// Those of \w: Oniguruma's (which has superscript digits and fractions of Latin-1, but not where \w
// stands inside a class) and Rust's (which has U+200C and U+200D).
std::string OnigurumaWordMembers();
std::string OnigurumaWordMembersInClass();
std::string RustWordMembers();

}  // namespace perdure::text
