// Values of a model's JSON file together with their path in it, so that every error names file,
// place and reason: "tokenizer.json: model.dropout must be a number, but is a string".
// A field points into the document it was read from and must not outlive it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/result.h"

namespace perdure::text {

class JsonField {
 public:
  JsonField(const Json& value, std::string_view file) : value_(&value), file_(file) {}

  // The value must be an object for Member*, Get*, Require*; an array for Elements and At.
  // Absent members and null are both "nothing".
  Result<std::optional<JsonField>> Member(std::string_view key) const;
  Result<JsonField> RequireMember(std::string_view key) const;
  Result<bool> GetBool(std::string_view key, bool fallback) const;
  Result<int64_t> GetInt(std::string_view key, int64_t min, int64_t max,
                         std::optional<int64_t> fallback) const;
  // nullopt where there is nothing.
  Result<std::optional<std::string_view>> GetString(std::string_view key) const;
  Result<std::string_view> RequireString(std::string_view key) const;

  Result<size_t> Elements() const;
  JsonField At(size_t index) const;

  Result<std::string_view> AsString() const;
  Result<int64_t> AsInt(int64_t min, int64_t max) const;
  Status ExpectObject() const;

  const Json& json() const { return *value_; }
  std::string_view file() const { return file_; }
  // "model.vocab"; empty for the document itself.
  const std::string& path() const { return path_; }

  // "file: path reason".
  tl::unexpected<Error> Bad(std::string_view reason) const;
  tl::unexpected<Error> Unsupported(std::string_view reason) const;

 private:
  JsonField(const Json& value, std::string_view file, std::string path)
      : value_(&value), file_(file), path_(std::move(path)) {}
  tl::unexpected<Error> WrongType(std::string_view wanted) const;
  JsonField Child(const Json& value, std::string_view key) const;

  const Json* value_;
  std::string_view file_;
  std::string path_;
};

}  // namespace perdure::text
