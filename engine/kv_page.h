// What a page of KV holds, as numbers (engine/kv_view.h has the layout): for pages that leave this
// process, and those that come from elsewhere.
#pragma once

#include <cstddef>
#include <span>

#include "engine/kv_view.h"

namespace perdure::engine {

// Zeroes the positions from `count` on: nobody has computed them, and what lies there is left from
// whatever the memory was used for before.
void ClearBehind(const KvShape& kv, KvPrecision precision, int count, std::span<std::byte> page);

// All its numbers are finite, as those are that an engine has stored; it relies on that. Codes are
// any, their scales and biases are not.
bool AreFinite(const KvShape& kv, KvPrecision precision, std::span<const std::byte> page);

}  // namespace perdure::engine
