#include "frontend/cache_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

// Errors name the field within `cache`.
template <class T>
Result<T> Within(const std::string& where, Result<T> value) {
  if (value) return value;
  Error& error = value.error();
  error.param = fmt::format("{}.{}", where, error.param);
  error.message = fmt::format("{}.{}", where, error.message);  // begins with the field's name
  return value;
}

Status ReadNumber(const Json& object, const std::string& where, const char* name,
                  std::optional<int32_t>* to) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> number,
                   Within(where, ReadInteger(object, name, INT32_MIN, INT32_MAX)));
  if (number) *to = static_cast<int32_t>(*number);
  return {};
}

Result<CacheSettings> ReadSettings(const Json& object, const std::string& where) {
  if (!object.is_object()) return Err(FieldError(where, "an object", object));
  CacheSettings settings;
  ASSIGN_OR_RETURN(const std::optional<std::string> type,
                   Within(where, ReadString(object, "type", limits::kCacheTypeNameBytesMax)));
  settings.type = type.value_or(std::string());
  // The other name is that of MLX Server Nano.
  RETURN_IF_ERROR(ReadNumber(object, where, "quantization_bits", &settings.bits));
  RETURN_IF_ERROR(ReadNumber(object, where, "bits", &settings.bits));
  RETURN_IF_ERROR(ReadNumber(object, where, "max_size", &settings.max_size));
  RETURN_IF_ERROR(ReadNumber(object, where, "keep", &settings.keep));
  RETURN_IF_ERROR(ReadNumber(object, where, "chunk_size", &settings.chunk_size));
  RETURN_IF_ERROR(
      ReadNumber(object, where, "optimization_interval", &settings.optimization_interval));
  ASSIGN_OR_RETURN(
      settings.compression_ratio,
      Within(where, ReadFloat(object, "compression_ratio", {-double{FLT_MAX}, FLT_MAX})));
  return settings;
}

}  // namespace

Result<CacheChoice> ReadCache(const Json& body) {
  CacheChoice choice;
  const Json* cache = FindField(body, "cache");
  if (!cache) return choice;
  if (cache->is_string()) {
    ASSIGN_OR_RETURN(const auto type, ReadString(body, "cache", limits::kCacheTypeNameBytesMax));
    choice.settings.type = type.value_or(std::string());
    return choice;
  }
  ASSIGN_OR_RETURN(choice.settings, ReadSettings(*cache, "cache"));
  const Json* then = FindField(*cache, "then");
  if (!then) return choice;
  if (!then->is_array()) return Err(FieldError("cache.then", "an array of objects", *then));
  if (then->size() >= static_cast<size_t>(limits::kCacheSegmentsMax))
    return Err(ErrorCode::invalid_request,
               fmt::format("cache.then has {} entries; at most {} are allowed.", then->size(),
                           limits::kCacheSegmentsMax - 1),
               "cache.then");
  for (size_t i = 0; i < then->size(); ++i) {
    const std::string where = fmt::format("cache.then[{}]", i);
    CachePhase phase;
    ASSIGN_OR_RETURN(phase.settings, ReadSettings((*then)[i], where));
    std::optional<int32_t> at;
    RETURN_IF_ERROR(ReadNumber((*then)[i], where, "at", &at));
    if (!at)
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.at is required: the position from which on it holds.", where),
                 where + ".at");
    phase.at = *at;
    choice.then.push_back(std::move(phase));
  }
  return choice;
}

Result<std::string> ReadConversationId(const Json& body) {
  ASSIGN_OR_RETURN(const std::optional<std::string> id,
                   ReadString(body, "conversation_id", limits::kConversationIdBytesMax));
  if (!id) return std::string();
  const bool is_plain =
      std::ranges::none_of(*id, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (id->empty() || !is_plain)
    return Err(ErrorCode::invalid_request,
               fmt::format("conversation_id must have 1 to {} bytes, none of them a control "
                           "character.",
                           limits::kConversationIdBytesMax),
               "conversation_id");
  return *id;
}

}  // namespace perdure::frontend
