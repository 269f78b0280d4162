// For engine/config.cc and its parts alone: one JSON object of a model's folder, with errors that
// name file and key.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "base/token.h"
#include "engine/config.h"

namespace perdure::engine {

// bad_model where a value is of the wrong type or out of its bounds (both inclusive). Null counts
// as absent: writers use both.
class ConfigReader {
 public:
  // `json` is an object and outlives the reader; `prefix` stands before its keys in errors.
  ConfigReader(const Json& json, std::string path, std::string prefix = {})
      : json_(json), path_(std::move(path)), prefix_(std::move(prefix)) {}

  // Of the object under `key`.
  ConfigReader Inner(std::string_view key) const;

  const Json& json() const { return json_; }
  const Json* Find(std::string_view key) const;
  // As errors name it: "text_config.rope_theta".
  std::string Name(std::string_view key) const;

  Result<int> Int(std::string_view key, int min, int max) const;
  Result<double> Number(std::string_view key, double min, double max) const;
  Result<std::optional<int>> OptionalInt(std::string_view key, int min, int max) const;
  Result<std::optional<double>> OptionalNumber(std::string_view key, double min, double max) const;
  Result<std::optional<bool>> OptionalBool(std::string_view key) const;
  Result<std::optional<std::string>> OptionalString(std::string_view key) const;
  // One id or a list of them; ids outside of the vocabulary can never be drawn and are left out.
  Result<std::optional<std::vector<TokenId>>> TokenIds(std::string_view key, int vocab_size) const;

  // Errors about this file: `reason` names the key.
  tl::unexpected<Error> Bad(std::string_view reason) const;
  tl::unexpected<Error> Unsupported(std::string_view reason) const;

 private:
  const Json& json_;
  std::string path_;
  std::string prefix_;
};

// rope_theta, rope_scaling, rope_parameters.
Result<RopeConfig> ReadRope(const ConfigReader& reader);
// quantization, or quantization_config where MLX wrote it.
Result<std::optional<QuantizationConfig>> ReadQuantization(const ConfigReader& reader);

}  // namespace perdure::engine
