// The safetensors format: an 8-byte little-endian header length, a JSON header that names dtype,
// shape and byte range of every tensor, then the bytes. Source: the format's README in
// github.com/huggingface/safetensors; like its reference reader, files with overlaps, holes or
// bytes that belong to no tensor are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/result.h"

namespace perdure::engine {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kU16,
  kI16,
  kF16,
  kBf16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};
std::string_view DTypeName(DType dtype);  // as in the header: "BF16"
size_t DTypeBytes(DType dtype);

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;       // outermost first
  std::span<const std::byte> data;  // in the mapping; of any alignment
  const MappedFile* file = nullptr;
};

// "[151936, 1024]"
std::string ShapeText(std::span<const int64_t> shape);

// One mapped file. Immutable, thread-safe to read. Tensors point into it: it must outlive them.
class SafetensorsFile {
 public:
  // bad_model for everything wrong with the content: names the file, the tensor and the reason.
  static Result<SafetensorsFile> Open(const std::filesystem::path& path);

  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  const std::filesystem::path& path() const { return file_->path(); }
  const TensorInfo* Find(std::string_view name) const;
  std::span<const TensorInfo> tensors() const { return tensors_; }  // in the order of their bytes

 private:
  SafetensorsFile() = default;
  Status ParseHeader();

  std::unique_ptr<MappedFile> file_;  // stays where the tensors point
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

}  // namespace perdure::engine
