// The tensors of a model folder: model.safetensors, or the shards that
// model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "engine/weights/safetensors.h"

namespace perdure::engine {

// Immutable, thread-safe to read.
class Checkpoint {
 public:
  static Result<Checkpoint> Open(const std::filesystem::path& model_dir);

  const std::filesystem::path& dir() const { return dir_; }
  uint64_t data_bytes() const { return data_bytes_; }  // of all tensors
  // The safetensors files and, where there is one, their index.
  std::vector<std::filesystem::path> Paths() const;

  const std::unordered_map<std::string, const TensorInfo*>& tensors() const { return by_name_; }
  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  const TensorInfo* Find(std::string_view name) const;
  // bad_model where the tensor is missing or has another shape.
  Result<const TensorInfo*> Get(std::string_view name, std::span<const int64_t> shape) const;

 private:
  Status OpenShards(const std::filesystem::path& index);

  std::filesystem::path dir_;
  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, const TensorInfo*> by_name_;
  uint64_t data_bytes_ = 0;
};

}  // namespace perdure::engine
