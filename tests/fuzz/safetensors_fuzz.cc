// A safetensors file, alone and as the weights of a model.

#include "engine/model_summary.h"
#include "engine/weights/safetensors.h"
#include "fuzz_target.h"

namespace perdure::engine {
namespace {

// Quantized and with experts, so that every kind of tensor has a reader.
constexpr std::string_view kConfig =
    R"({"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64, "vocab_size": 32,
        "max_position_embeddings": 64, "num_experts": 4, "num_experts_per_tok": 2,
        "quantization": {"group_size": 32, "bits": 4,
                         "model.norm": {"group_size": 64, "bits": 3}}})";

void CheckTensors(const SafetensorsFile& file) {
  const std::byte* end = nullptr;
  for (const TensorInfo& tensor : file.tensors()) {
    CHECK(file.Find(tensor.name) == &tensor);
    uint64_t bytes = DTypeBytes(tensor.dtype);
    for (const int64_t size : tensor.shape) {
      CHECK(size >= 0);
      CHECK(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes));
    }
    CHECK(bytes == tensor.data.size());
    CHECK(end == nullptr || tensor.data.data() == end);
    end = tensor.data.data() + tensor.data.size();
    const std::span<const std::byte> all = tensor.file->bytes();
    CHECK(tensor.data.data() >= all.data() && end <= all.data() + all.size());
    // Every byte is there to be read.
    for (const std::byte& byte : tensor.data) [[maybe_unused]] const volatile auto read = byte;
  }
}

}  // namespace

FUZZ_TARGET(safetensors) {
  static fuzz::Folder folder;
  static const bool once = [] {
    folder.Write("config.json", kConfig);
    return true;
  }();
  CHECK(once);
  folder.Write("model.safetensors", input);
  {
    const auto file = SafetensorsFile::Open(folder.path() / "model.safetensors");
    if (!file) return fuzz::CheckError(file.error());
    CheckTensors(*file);
  }
  const ModelSummary summary = SummarizeModel(folder.path());
  CHECK(summary.config && summary.weights);
  CHECK(summary.weights->parameters >= summary.weights->active_parameters);
  CHECK(summary.weights->active_parameters >= 0);
}

}  // namespace perdure::engine
