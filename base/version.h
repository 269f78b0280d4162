// The version of this build, from CMakeLists.txt.
#pragma once

#include <string_view>

namespace perdure {

inline constexpr std::string_view kVersion = PERDURE_VERSION;

}  // namespace perdure
