// What pages of docs/ show of the code: tables of fields, and bytes with what they are beside them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/cache_settings.h"
#include "base/file.h"

namespace perdure::snapshot {

template <class T>
std::string TypeName() {
  if constexpr (std::is_same_v<T, bool>) {
    return "bool";
  } else if constexpr (std::is_integral_v<T>) {
    return fmt::format("{}{}", std::is_signed_v<T> ? 'i' : 'u', 8 * sizeof(T));
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "string";
  } else if constexpr (std::is_same_v<T, CacheSchedule>) {
    return "CacheSchedule";
  } else if constexpr (std::is_same_v<T, CacheSegment>) {
    return "CacheSegment";
  } else {
    return fmt::format("list of {}", TypeName<typename T::value_type>());
  }
}

struct Told {
  const char* field;
  const char* meaning;
};

template <class Struct, size_t kFields>
std::string Table(const std::string& title, const Told (&told)[kFields]) {
  using Fields = decltype(std::declval<Struct&>().Fields());
  static_assert(std::tuple_size_v<Fields> == kFields, "a field is not in the table");
  const auto types = []<size_t... kAt>(std::index_sequence<kAt...>) {
    return std::array{TypeName<std::remove_cvref_t<std::tuple_element_t<kAt, Fields>>>()...};
  }
  (std::make_index_sequence<kFields>());
  std::string text = "### " + title + "\n\n| field | type | |\n|---|---|---|\n";
  for (size_t i = 0; i < kFields; ++i)
    text += fmt::format("| `{}` | {} | {} |\n", told[i].field, types[i], told[i].meaning);
  return text + "\n";
}

template <class Record, size_t kFields>
std::string RecordTable(const char* name, const char* where, const Told (&told)[kFields]) {
  return Table<Record>(fmt::format("{}: kind {}, version {}; {}", name,
                                   static_cast<uint16_t>(Record::kKind), Record::kVersion, where),
                       told);
}

// Bytes in hex, and beside them what they are.
class Annotated {
 public:
  explicit Annotated(std::string bytes) : bytes_(std::move(bytes)) {}

  Annotated& Take(size_t bytes, const std::string& what) {
    for (bool is_first = true; bytes > 0 || is_first; is_first = false) {
      constexpr size_t kInLine = 16;
      const size_t now = std::min(bytes, kInLine);
      std::string hex;
      for (size_t i = 0; i < now && at_ + i < bytes_.size(); ++i)
        hex += fmt::format("{}{:02x}", i == 0 ? "" : " ", static_cast<uint8_t>(bytes_[at_ + i]));
      text_ += is_first ? fmt::format("{:<47}  {}\n", hex, what) : hex + "\n";
      at_ += now;
      bytes -= now;
    }
    return *this;
  }
  std::string text() const {
    EXPECT_EQ(at_, bytes_.size()) << "bytes that are not told";
    return text_;
  }

 private:
  const std::string bytes_;
  size_t at_ = 0;
  std::string text_;
};

// `page`: a file of docs/.
inline void ExpectOnPage(const std::string& page, const std::string& name,
                         const std::string& text) {
  const auto shown = ReadFile(PERDURE_SOURCE_DIR "/docs/" + page, 1 << 20);
  ASSERT_TRUE(shown) << shown.error().message;
  EXPECT_NE(shown->find("<!-- " + name + " -->\n\n" + text + "<!-- end -->"), std::string::npos)
      << "docs/" << page << " should have, between <!-- " << name << " --> and <!-- end -->:\n\n"
      << text;
}

}  // namespace perdure::snapshot
