// From tensors in mapped files to packed panels. Rows are read straight from the mapping, in
// parallel, and dropped from memory as soon as they are packed: the peak is about the packed size.
#pragma once

#include <functional>
#include <span>

#include "base/result.h"
#include "engine/config.h"
#include "engine/packed_matrix.h"
#include "engine/thread_pool.h"
#include "engine/weights/source_matrix.h"

namespace perdure::engine {

// Affine numbers of up to 4 bits lie in nibbles, wider ones take a byte each.
PanelFormat PanelFormatOf(const QuantConfig& quant);

// Packs matrices of one layout, [outputs, layout.k] each, as the parts of one. `bits` is the width
// of a quantized number in the checkpoint, or as it is quantized. `done` is called with the bytes
// consumed since the last call. out_of_memory names the first tensor; bad_model: an mxfp4 scale
// that is NaN, or a float to be quantized that is not finite.
Result<PackedMatrix> Pack(const PanelLayout& layout, int outputs, int bits,
                          std::span<const SourceMatrix> sources, ThreadPool& pool,
                          const std::function<void(uint64_t)>& done);

// Changes whenever a build packs or quantizes any layout in another way: a hash of small matrices,
// packed.
uint64_t PanelsFingerprint();

}  // namespace perdure::engine
