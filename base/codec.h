// Bytes of messages and records: little-endian fixed-width integers, IEEE floats, strings and lists
// with a 32-bit count. A struct names its fields once, in Fields(); writer and reader both follow
// that list.
//
// Decoding never trusts: a count that the remaining bytes cannot hold, a truncated value, a boolean
// other than 0 or 1, or trailing bytes make the whole wrong.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace perdure {

static_assert(std::endian::native == std::endian::little, "bytes are little-endian");

template <class T>
concept HasFields = requires(T& t) {
  t.Fields();
};

class Writer {
 public:
  explicit Writer(std::string* out) : out_(out) {}

  template <class T>
  void Put(const T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      Put(static_cast<uint8_t>(value));
    } else if constexpr (std::is_enum_v<T>) {
      Put(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      out_->append(reinterpret_cast<const char*>(&value), sizeof value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      Put(static_cast<uint32_t>(value.size()));
      out_->append(value);
    } else {
      PutCompound(value);
    }
  }

 private:
  template <class T>
  void PutCompound(const std::vector<T>& values) {
    Put(static_cast<uint32_t>(values.size()));
    for (const T& value : values) Put(value);
  }
  template <class T>
  void PutCompound(const std::optional<T>& value) {
    Put(value.has_value());
    if (value) Put(*value);
  }
  template <class A, class B>
  void PutCompound(const std::pair<A, B>& value) {
    Put(value.first);
    Put(value.second);
  }
  template <HasFields T>
  void PutCompound(const T& value) {
    // Fields() ties references for the reader's sake; nothing is written through them here.
    std::apply([this](const auto&... field) { (Put(field), ...); }, const_cast<T&>(value).Fields());
  }

  std::string* out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }

  template <class T>
  [[nodiscard]] bool Get(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      uint8_t byte = 0;
      if (!Get(byte) || byte > 1) return false;
      value = byte != 0;
      return true;
    } else if constexpr (std::is_enum_v<T>) {
      std::underlying_type_t<T> number{};
      if (!Get(number)) return false;
      value = static_cast<T>(number);  // receivers treat numbers they do not know as errors
      return true;
    } else if constexpr (std::is_arithmetic_v<T>) {
      if (rest_.size() < sizeof value) return false;
      std::memcpy(&value, rest_.data(), sizeof value);
      rest_.remove_prefix(sizeof value);
      return true;
    } else if constexpr (std::is_same_v<T, std::string>) {
      uint32_t size = 0;
      if (!Get(size) || rest_.size() < size) return false;
      value.assign(rest_.substr(0, size));
      rest_.remove_prefix(size);
      return true;
    } else {
      return GetCompound(value);
    }
  }

 private:
  template <class T>
  bool GetCompound(std::vector<T>& values) {
    uint32_t count = 0;
    // Each element takes at least a byte: a count beyond that lies.
    if (!Get(count) || rest_.size() < count) return false;
    values.clear();
    for (uint32_t i = 0; i < count; ++i) {
      if (!Get(values.emplace_back())) return false;
    }
    return true;
  }
  template <class T>
  bool GetCompound(std::optional<T>& value) {
    bool present = false;
    if (!Get(present)) return false;
    value.reset();
    return !present || Get(value.emplace());
  }
  template <class A, class B>
  bool GetCompound(std::pair<A, B>& value) {
    return Get(value.first) && Get(value.second);
  }
  template <HasFields T>
  bool GetCompound(T& value) {
    return std::apply([this](auto&... field) { return (Get(field) && ...); }, value.Fields());
  }

  std::string_view rest_;
};

template <HasFields T>
std::string Encode(const T& message) {
  std::string bytes;
  Writer(&bytes).Put(message);
  return bytes;
}

// Nothing where the bytes are not exactly a T.
template <HasFields T>
std::optional<T> DecodeExactly(std::string_view bytes) {
  Reader reader(bytes);
  T value;
  if (!reader.Get(value) || !reader.done()) return std::nullopt;
  return value;
}

}  // namespace perdure
