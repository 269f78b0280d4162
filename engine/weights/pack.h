// From tensors in a mapped file to packed panels and f32 vectors. Rows are read straight from the
// mapping, in parallel, and dropped from memory as soon as they are packed: the peak is about the
// packed size.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "engine/packed_matrix.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"

namespace perdure::engine {

// Reads the modules of one model. `done` is called with the bytes consumed since the last call.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
               std::function<void(uint64_t)> done)
      : checkpoint_(checkpoint), config_(config), pool_(pool), done_(std::move(done)) {}

  // `<module>.weight` [outputs, inputs] (or its quantized form).
  Result<PackedMatrix> Matrix(const std::string& module, int outputs, int inputs);
  // A tensor [size] of any float type, as f32.
  Result<std::vector<float>> Vector(const std::string& name, int size);

  bool Has(std::string_view name) const { return checkpoint_.Has(name); }
  // Parameters read so far, counted before quantization.
  int64_t parameters() const { return parameters_; }

 private:
  Result<std::optional<QuantConfig>> QuantOf(const std::string& module) const;
  Result<PackedMatrix> FloatMatrix(const std::string& module, int outputs, int inputs);
  Result<PackedMatrix> QuantizedMatrix(const std::string& module, int outputs, int inputs,
                                       QuantConfig quant);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  std::function<void(uint64_t)> done_;
  int64_t parameters_ = 0;
};

}  // namespace perdure::engine
