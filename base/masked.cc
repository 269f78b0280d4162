#include "base/masked.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/hash.h"

namespace perdure {
namespace {

constexpr std::string_view kOwnBegin = "conv_";
constexpr size_t kOwnDigits = 16;

bool IsOwn(std::string_view id) {
  if (!id.starts_with(kOwnBegin)) return false;
  id.remove_prefix(kOwnBegin.size());
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (id.size() < kOwnDigits || !std::ranges::all_of(id.substr(0, kOwnDigits), hex)) return false;
  id.remove_prefix(kOwnDigits);
  // The choice: 1 to 127.
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return id.empty() || (id.size() <= 4 && id.size() >= 2 && id.front() == '_' &&
                        std::ranges::all_of(id.substr(1), digit));
}

}  // namespace

std::string Masked(std::string_view conversation_id) {
  if (IsOwn(conversation_id)) return std::string(conversation_id);
  return fmt::format("#{:016x}", Hash64(conversation_id));
}

}  // namespace perdure
