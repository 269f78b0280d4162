// The modules of one model by name: which tensors they are made of, of which shape and type, and
// how they are quantized.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/config.h"
#include "engine/packed_matrix.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/prepared_weights.h"

namespace perdure::engine {

// Where matrices [outputs, inputs] lie. A tensor of rank 3, [parts, rows, inputs], holds several;
// of each of its parts, `outputs` rows from first_row on are read.
struct MatrixSource {
  std::string module;  // as config.json's quantization names it: `<module>.scales`, …
  std::string weight;  // the tensor
  int parts = 0;       // 0: the tensor is of rank 2
  int rows = 0;        // of a part; 0: as many as outputs
  int first_row = 0;
};

// Errors (bad_model) name the file, the tensor, what it is and what is needed.
class WeightReader {
 public:
  // `done` is called with the bytes consumed since the last call. Matrices that are read from a
  // prepared file point into it.
  WeightReader(const Checkpoint& checkpoint, const ModelConfig& config, ThreadPool& pool,
               std::function<void(uint64_t)> done, const WeightsPlace& place = {})
      : checkpoint_(checkpoint),
        config_(config),
        pool_(pool),
        done_(std::move(done)),
        place_(place) {}

  // `<module>.weight` [outputs, inputs] (or its quantized form).
  Result<PackedMatrix> Matrix(const std::string& module, int outputs, int inputs);
  // All matrices of all sources, in order, as the parts of one; they must be of one type.
  Result<PackedMatrix> Matrices(std::span<const MatrixSource> sources, int outputs, int inputs);
  // A tensor [size] of any float type, as f32.
  Result<std::vector<float>> Vector(const std::string& name, int size);

  bool Has(std::string_view name) const { return checkpoint_.Has(name); }
  // `unsupported` where `<module>.bias` is there: for layers that use none.
  Status RefuseBias(const std::string& module) const;
  // Parameters read so far, counted before quantization.
  int64_t parameters() const { return parameters_; }

 private:
  // The tensors of a source, checked.
  struct Tensors {
    std::optional<QuantConfig> quant;  // nothing: floats, or to be quantized
    const TensorInfo* weight = nullptr;
    const TensorInfo* scales = nullptr;  // where there is a quant
    const TensorInfo* biases = nullptr;  // where it is affine
  };
  Result<Tensors> Find(const MatrixSource& source, int outputs, int inputs) const;
  Result<Tensors> FindFloats(const MatrixSource& source, int outputs, int inputs) const;
  Result<const TensorInfo*> Get(const MatrixSource& source, const std::string& name, int outputs,
                                int64_t columns) const;
  Result<std::optional<QuantConfig>> QuantOf(const MatrixSource& source, int inputs) const;
  // Of the prepared file.
  Result<std::span<const std::byte>> Section(const std::string& name, size_t bytes) const;
  Result<PackedMatrix> MappedMatrix(const std::string& section, const PanelLayout& layout,
                                    int outputs, size_t parts) const;
  Result<std::vector<float>> ReadVector(const std::string& name, int size);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  ThreadPool& pool_;
  std::function<void(uint64_t)> done_;
  const WeightsPlace place_;
  int64_t parameters_ = 0;
};

}  // namespace perdure::engine
