// The table of one instruction set. To be included after the `Simd` it is written over.
#pragma once

#include "engine/kernels/attention.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_panels.h"
#include "engine/kernels/float_tile.h"
#include "engine/kernels/int8.h"
#include "engine/kernels/kv_pages.h"

namespace perdure::engine {
namespace {

constexpr Kernels MakeKernels(Isa isa) {
  return {.isa = isa,
          .direct_rows = Simd::kDirectRowsMax,
          .int8_direct_tiles = Simd::kInt8DirectTilesMax,
          .unpack = Unpack,
          .tile = Tile,
          .direct = Direct,
          .pack_rows = PackRows,
          .int8_pack = Int8Pack,
          .int8_unpack = Int8Unpack,
          .int8_tile = Int8Tiles,
          .int8_direct = Int8Direct,
          .rms_norm = RmsNorm,
          .rope = Rope,
          .add = AddTo,
          .add_scaled = AddScaled,
          .silu_mul = SiluMul,
          .softmax = Softmax,
          .to_f16 = ToF16,
          .keys_to_f16 = KeysToF16,
          .quantize_kv = QuantizeKv,
          .attend = Attend};
}

}  // namespace
}  // namespace perdure::engine
