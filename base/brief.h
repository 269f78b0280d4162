// Text from outside, cut for an error message or a log line.
#pragma once

#include <cstddef>
#include <string>

namespace perdure {

// At most `bytes_max` bytes and an ellipsis; UTF-8 stays whole.
std::string Brief(std::string text, size_t bytes_max);

}  // namespace perdure
