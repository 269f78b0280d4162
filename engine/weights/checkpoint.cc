#include "engine/weights/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"

namespace perdure::engine {
namespace {

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// What lies in the folder instead, for the error message.
std::string WhatIsThere(const std::filesystem::path& dir) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    const std::string extension = it->path().extension().string();
    if (extension == ".gguf" || extension == ".bin" || extension == ".pth" || extension == ".npz" ||
        extension == ".safetensors")
      return fmt::format("; there is {}", it->path().filename().string());
  }
  return {};
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

Result<Checkpoint> Checkpoint::Open(const std::filesystem::path& model_dir) {
  Checkpoint checkpoint;
  checkpoint.dir_ = model_dir;
  std::error_code error;
  if (std::filesystem::exists(model_dir / kIndexFile, error)) {
    RETURN_IF_ERROR(checkpoint.OpenShards(model_dir / kIndexFile));
  } else if (std::filesystem::exists(model_dir / kSingleFile, error)) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(model_dir / kSingleFile));
    checkpoint.files_.push_back(std::move(file));
    for (const TensorInfo& tensor : checkpoint.files_[0].tensors())
      checkpoint.by_name_.emplace(tensor.name, &tensor);
  } else {
    return Err(ErrorCode::bad_model, fmt::format("{} has neither {} nor {}{}", model_dir.string(),
                                                 kSingleFile, kIndexFile, WhatIsThere(model_dir)));
  }
  for (const auto& [name, tensor] : checkpoint.by_name_)
    checkpoint.data_bytes_ += tensor->data.size();
  return checkpoint;
}

Status Checkpoint::OpenShards(const std::filesystem::path& index) {
  const auto bad = [&](std::string_view reason) {
    return Err(ErrorCode::bad_model, fmt::format("{}: {}", index.string(), reason));
  };
  ASSIGN_OR_RETURN(const std::string text, ReadFile(index, limits::kModelJsonBytesMax));
  ASSIGN_OR_RETURN(const Json json, ParseJson(text, index.string(), ErrorCode::bad_model));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object())
    return bad("weight_map is missing or not an object");

  std::vector<std::string> names;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return bad(fmt::format("the file of tensor {} is no string", tensor));
    const auto& name = file.get_ref<const std::string&>();
    if (!IsPlainFileName(name))
      return bad(fmt::format(
          "tensor {} is said to lie in \"{}\", which is not a file of this folder", tensor, name));
    names.push_back(name);
  }
  if (names.empty()) return bad("weight_map is empty");
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  if (names.size() > limits::kShardsMax)
    return bad(
        fmt::format("{} shards are above the limit of {}", names.size(), limits::kShardsMax));

  std::vector<std::string> missing;
  std::error_code error;
  std::copy_if(names.begin(), names.end(), std::back_inserter(missing),
               [&](const auto& name) { return !std::filesystem::exists(dir_ / name, error); });
  if (!missing.empty()) {
    const size_t told = std::min<size_t>(missing.size(), 16);
    return bad(fmt::format("{} of {} shards are missing from the folder: {}{}", missing.size(),
                           names.size(), fmt::join(missing.begin(), missing.begin() + told, ", "),
                           told < missing.size() ? ", …" : ""));
  }

  std::unordered_map<std::string, size_t> file_index;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(dir_ / name));
    file_index.emplace(name, files_.size());
    files_.push_back(std::move(file));
  }
  for (const auto& [tensor, file] : map->items()) {
    const auto& name = file.get_ref<const std::string&>();
    const TensorInfo* found = files_[file_index.at(name)].Find(tensor);
    if (found == nullptr) return bad(fmt::format("tensor {} is not in its shard {}", tensor, name));
    by_name_.emplace(tensor, found);
  }
  return {};
}

std::vector<std::filesystem::path> Checkpoint::Paths() const {
  std::vector<std::filesystem::path> paths;
  for (const SafetensorsFile& file : files_) paths.push_back(file.path());
  std::error_code error;
  if (std::filesystem::exists(dir_ / kIndexFile, error)) paths.push_back(dir_ / kIndexFile);
  return paths;
}

const TensorInfo* Checkpoint::Find(std::string_view name) const {
  const auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : it->second;
}

Result<const TensorInfo*> Checkpoint::Get(std::string_view name,
                                          std::span<const int64_t> shape) const {
  const TensorInfo* tensor = Find(name);
  if (tensor == nullptr)
    return Err(ErrorCode::bad_model, fmt::format("{}: tensor {} is missing", dir_.string(), name));
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end()))
    return Err(ErrorCode::bad_model,
               fmt::format("{}: tensor {} has the shape {}, config.json asks for {}",
                           tensor->file->path().string(), name, ShapeText(tensor->shape),
                           ShapeText(shape)));
  return tensor;
}

}  // namespace perdure::engine
