// Arrays in a prepared file: the big lists of a tokenizer, in the form in which they are searched.
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/prepared_file.h"
#include "base/result.h"

namespace perdure::text {

template <class T>
Status AddSection(PreparedWriter& writer, std::string_view name, std::span<const T> elements) {
  static_assert(std::has_unique_object_representations_v<T>, "no byte of it may be undefined");
  return writer.Add(std::string(name), std::as_bytes(elements));
}

// io_error where there is no such section of whole elements. The file outlives the span.
template <class T>
Result<std::span<const T>> ReadSection(const PreparedFile& file, std::string_view name) {
  const auto bytes = file.Find(name);
  if (!bytes || bytes->size() % sizeof(T) != 0)
    return Err(ErrorCode::io_error,
               fmt::format("{}: the section {} is missing or cut", file.path().string(), name));
  return std::span<const T>(reinterpret_cast<const T*>(bytes->data()), bytes->size() / sizeof(T));
}

}  // namespace perdure::text
