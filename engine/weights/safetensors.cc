#include "engine/weights/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "base/limits.h"

namespace perdure::engine {
namespace {

struct DTypeRow {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr DTypeRow kDTypes[] = {
    {DType::kBool, "BOOL", 1},      {DType::kU8, "U8", 1},          {DType::kI8, "I8", 1},
    {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1}, {DType::kF8E8M0, "F8_E8M0", 1},
    {DType::kU16, "U16", 2},        {DType::kI16, "I16", 2},        {DType::kF16, "F16", 2},
    {DType::kBf16, "BF16", 2},      {DType::kU32, "U32", 4},        {DType::kI32, "I32", 4},
    {DType::kF32, "F32", 4},        {DType::kU64, "U64", 8},        {DType::kI64, "I64", 8},
    {DType::kF64, "F64", 8},
};

// The value as a count, nothing where it is not a whole number ≥ 0.
std::optional<uint64_t> AsCount(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

// The fields of one header entry; the error is the reason alone.
struct Entry {
  DType dtype;
  std::vector<int64_t> shape;
  uint64_t begin, end;
};

tl::expected<Entry, std::string> ParseEntry(const Json& json, uint64_t data_bytes) {
  const auto fail = [](std::string reason) { return tl::unexpected<std::string>(reason); };
  if (!json.is_object())
    return fail(fmt::format("its entry is of type {}, not an object", JsonTypeName(json)));
  const auto dtype = json.find("dtype"), shape = json.find("shape"),
             offsets = json.find("data_offsets");
  if (dtype == json.end() || !dtype->is_string()) return fail("dtype is missing or not a string");
  if (shape == json.end() || !shape->is_array()) return fail("shape is missing or not an array");
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2)
    return fail("data_offsets is missing or not a pair");

  Entry entry{};
  const auto& dtype_name = dtype->get_ref<const std::string&>();
  const auto* row = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                 [&](const DTypeRow& r) { return r.name == dtype_name; });
  if (row == std::end(kDTypes)) return fail(fmt::format("unknown dtype \"{}\"", dtype_name));
  entry.dtype = row->dtype;

  uint64_t bytes = row->bytes;
  for (const Json& dimension : *shape) {
    const auto size = AsCount(dimension);
    if (!size || *size > uint64_t{std::numeric_limits<int64_t>::max()})
      return fail(fmt::format("shape {} has an entry that is no size", DumpJson(*shape)));
    entry.shape.push_back(static_cast<int64_t>(*size));
    if (__builtin_mul_overflow(bytes, *size, &bytes))
      return fail(fmt::format("the size of shape {} overflows", DumpJson(*shape)));
  }

  const auto begin = AsCount((*offsets)[0]), end = AsCount((*offsets)[1]);
  if (!begin || !end)
    return fail(fmt::format("data_offsets {} are not whole numbers ≥ 0", DumpJson(*offsets)));
  if (*begin > *end) return fail(fmt::format("data_offsets [{}, {}] are reversed", *begin, *end));
  if (*end > data_bytes)
    return fail(fmt::format("data_offsets [{}, {}] end past the {} bytes of data", *begin, *end,
                            data_bytes));
  if (*end - *begin != bytes)
    return fail(fmt::format("dtype {} and shape {} need {} bytes, data_offsets give {}", dtype_name,
                            ShapeText(entry.shape), bytes, *end - *begin));
  entry.begin = *begin;
  entry.end = *end;
  return entry;
}

}  // namespace

std::string_view DTypeName(DType dtype) {
  for (const DTypeRow& row : kDTypes)
    if (row.dtype == dtype) return row.name;
  return "?";
}

size_t DTypeBytes(DType dtype) {
  for (const DTypeRow& row : kDTypes)
    if (row.dtype == dtype) return row.bytes;
  return 0;
}

std::string ShapeText(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path) {
  SafetensorsFile file;
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  file.file_ = std::make_unique<MappedFile>(std::move(mapped));
  RETURN_IF_ERROR(file.ParseHeader());
  return file;
}

Status SafetensorsFile::ParseHeader() {
  const std::string path = file_->path().string();
  const auto bad = [&](std::string_view reason) {
    return Err(ErrorCode::bad_model, fmt::format("{}: {}", path, reason));
  };
  const std::span<const std::byte> bytes = file_->bytes();
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes)
    return bad(fmt::format("{} bytes are too few for a safetensors file", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes == 0) return bad("the header length is 0");
  if (header_bytes > limits::kSafetensorsHeaderBytesMax)
    return bad(fmt::format("the header length {} is above the limit of {} bytes", header_bytes,
                           limits::kSafetensorsHeaderBytesMax));
  if (header_bytes > bytes.size() - sizeof header_bytes)
    return bad(fmt::format("the header length {} reaches past the end of the file ({} bytes)",
                           header_bytes, bytes.size()));
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + sizeof header_bytes,
                                header_bytes);
  ASSIGN_OR_RETURN(const Json json, ParseJson(header, path + ": the header", ErrorCode::bad_model));
  if (!json.is_object())
    return bad(fmt::format("the header is of type {}, not an object", JsonTypeName(json)));

  const std::span<const std::byte> data = bytes.subspan(sizeof header_bytes + header_bytes);
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      // null: MLX's way to write that there is none.
      if (!value.is_object() && !value.is_null()) return bad("__metadata__ is not an object");
      continue;
    }
    auto entry = ParseEntry(value, data.size());
    if (!entry) return bad(fmt::format("tensor {}: {}", name, entry.error()));
    tensors_.push_back({.name = name,
                        .dtype = entry->dtype,
                        .shape = std::move(entry->shape),
                        .data = data.subspan(entry->begin, entry->end - entry->begin),
                        .file = file_.get()});
  }

  // Every byte belongs to exactly one tensor.
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.data.data(), a.data.size()) < std::pair(b.data.data(), b.data.size());
  });
  const std::byte* end = data.data();
  for (const TensorInfo& tensor : tensors_) {
    if (tensor.data.data() < end)
      return bad(fmt::format("tensor {}: its bytes overlap those of another one", tensor.name));
    if (tensor.data.data() > end)
      return bad(fmt::format("tensor {}: {} bytes before it belong to no tensor", tensor.name,
                             tensor.data.data() - end));
    end = tensor.data.data() + tensor.data.size();
  }
  if (end != data.data() + data.size())
    return bad(
        fmt::format("the last {} bytes belong to no tensor", data.data() + data.size() - end));
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  return {};
}

const TensorInfo* SafetensorsFile::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace perdure::engine
