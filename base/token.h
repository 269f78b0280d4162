// The one type of token ids, shared by text, engine and protocol.
#pragma once

#include <cstdint>

namespace perdure {

using TokenId = int32_t;

}  // namespace perdure
