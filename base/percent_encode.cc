#include "base/percent_encode.h"

#include <fmt/format.h>

namespace perdure {

std::string PercentEncode(std::string_view text, std::string_view also_kept) {
  std::string encoded;
  for (const char c : text) {
    const bool is_kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                         also_kept.find(c) != std::string_view::npos;
    if (is_kept)
      encoded += c;
    else
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return encoded;
}

}  // namespace perdure
