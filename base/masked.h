// Ids of conversations as logs show them: a client's own may say anything, and logs repeat nothing
// of what clients say.
#pragma once

#include <string>
#include <string_view>

namespace perdure {

// One that Perdure has made ("conv_", 16 hex digits and perhaps a choice) as it is; of any other a
// number that follows from it.
std::string Masked(std::string_view conversation_id);

}  // namespace perdure
