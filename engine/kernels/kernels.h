// The arithmetic of a forward pass, one table of functions per instruction set.
//
// Rules that make every path give the same bits (tests/engine/kernels_test.cc compares them):
// - the headers of kernels/ are written once over 16-lane vectors and compiled five times;
// - a matrix product sums over K in order 0 … K-1 with one fused multiply-add per term and output;
//   lanes are outputs, so neither the number of rows nor the threads change a sum;
// - with activations in 8 bits, the sum within a group of K is an integer, so exact in any order;
//   the groups are added in order, as int8.h says;
// - other sums use 16 lanes and the tree (8, 4, 2, 1); exp is our own polynomial.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/isa.h"
#include "engine/kv_view.h"

namespace perdure::engine {

// Goes up with every change that changes a bit of any result: stored KV of another version is
// recomputed.
inline constexpr std::string_view kKernelVersion = "k2";

// Outputs of a packed panel, and rows of the largest micro-kernel tile.
inline constexpr int kPanelWidth = 32;
inline constexpr int kTileRows = 12;
// Rows of K that are unpacked to f32 at once: 16 KiB, which stays in L1 beside the activations. A
// multiple of every quantization group.
inline constexpr int kChunkRows = 128;
// How far before its use a weight is fetched to L2: memory's latency at a core's share of its rate,
// some times over.
inline constexpr size_t kFetchAhead = 8 << 10;

// How the elements of a panel lie. A panel holds 32 outputs × K:
//   kF32   [K][32] float
//   kF16   [K][32] binary16
//   kBf16  [K][16] uint32: output i in the low half of word i, output i + 16 in the high half
//   kQ8    per group: scale[32] bias[32], then [group / 8][2][32] uint32: of eight K the even ones
//   in
//          the ascending bytes of a word, then the odd ones (Q8Byte)
//   kQ4    per group: scale[32] bias[32], then [group / 8][32] uint32, K in ascending nibbles
//   kMxfp4 per group: scale[32] E8M0, then [4][32] uint32, K in ascending nibbles, E2M1
// Of OCP's Microscaling formats: E8M0 is a byte s for 2^(s - 127), 255 (NaN) is not allowed here;
// E2M1 is a sign and one of 0, 0.5, 1, 1.5, 2, 3, 4, 6.
// Both orders give eight K in two words of bytes, the even ones first: what products with 8-bit
// activations want.
enum class PanelFormat : uint8_t { kF32, kF16, kBf16, kQ8, kQ4, kMxfp4 };
enum class ScaleType : uint8_t { kF32, kF16, kBf16 };

struct PanelLayout {
  PanelFormat format = PanelFormat::kF32;
  ScaleType scale_type = ScaleType::kF32;
  int group = 0;  // kQ8, kQ4, kMxfp4
  int k = 0;
  // Bytes of a group's scales and biases, of a group in all, and of a whole panel.
  size_t group_header_bytes = 0;
  size_t group_bytes = 0;
  size_t panel_bytes = 0;
};

inline constexpr int kMxfp4Group = 32;

// Where element k of a group of kQ8 lies in it.
constexpr size_t Q8Byte(size_t k, size_t lane) {
  return ((k / 8 * 2 + k % 2) * kPanelWidth + lane) * 4 + k % 8 / 2;
}

// Fills in the sizes. `group` divides k; it is 32, 64 or 128 for kQ8 and kQ4, 32 for kMxfp4, and
// without meaning elsewhere. `scale_type` is that of kQ8 and kQ4.
PanelLayout MakePanelLayout(PanelFormat format, int k, int group, ScaleType scale_type);

// Queries of `rows` consecutive positions × `group` heads that share one KV head.
struct AttentionTile {
  const std::byte* const* pages = nullptr;  // of the sequence, from position 0
  const KvPrecision* precisions = nullptr;  // of the pages; null: all kF16
  size_t head = 0;                          // of a page's blocks: layer · kv_heads + kv_head
  int head_dim = 0;
  int group = 0;
  int rows = 0;
  int start = 0;             // position of the first row
  int window = 0;            // positions that a query sees, its own the last; 0: all up to it
  int keep = 0;              // first positions that it sees besides
  const float* q = nullptr;  // row r, head g: q + r·q_stride + g·head_dim
  float* out = nullptr;      // the same with out_stride
  ptrdiff_t q_stride = 0;
  ptrdiff_t out_stride = 0;
  float scale = 1.0f;
};

// Queries (rows × group) of a tile: the conversion of a K/V block is shared by all of them.
inline constexpr int kAttentionQueries = 96;
// Floats of scratch that attend() needs.
size_t AttentionScratchFloats(int head_dim);

// Positions whose keys are stored together, as whole vectors instead of single numbers.
inline constexpr int kKeysAtOnce = 16;

// Rows of activations in 8 bits: of each group of 64 along K (the last may have 32) s8 numbers q
// and a scale d, x ≈ d·q. The scale is max |x| / 127, q = x·(127 / max |x|) to nearest even. A
// group whose max |x| is below 2^-100 is zero; in one with a NaN or an infinity the scale is NaN,
// so that every output of the row is.
inline constexpr int kInt8Group = 64;
inline constexpr int kInt8TileRows = 8;
struct Int8Tile {
  int rows = 0;               // ≤ kInt8TileRows
  uint32_t* words = nullptr;  // [k / 8][2][rows]: four even q of eight, then the odd ones
  float* scales = nullptr;    // [⌈k / 64⌉][rows]: d
  float* sums64 = nullptr;    // [⌈k / 64⌉][rows]: d·Σq of each group
  float* sums32 = nullptr;    // [k / 32][rows]: the same of its halves
};
// k: a multiple of 32, as it is of every quantized matrix.
size_t Int8TileFloats(int rows, int k);
Int8Tile Int8TileAt(float* memory, int rows, int k);

// Rows of K of a panel that are unpacked to bytes at once, and the room they take: per group of
// min(layout.group, 64), f32 scale[32], offset[32], bias[32], then words as in kQ8. 38 KiB in
// groups of 64, which an L1 of 48 KiB holds while tiles of activations go through; from L2 they
// come fast enough, too. Smaller chunks would read and write the outputs more often, which costs
// more.
inline constexpr int kInt8ChunkRows = 1024;
inline constexpr size_t kInt8ParamsBytes = 3 * kPanelWidth * sizeof(float);
inline constexpr size_t kInt8ChunkBytes =
    kInt8ChunkRows * kPanelWidth + kInt8ChunkRows / 32 * kInt8ParamsBytes;

// What a product fetches to L2 meanwhile, spread over its groups: without it reading waits.
struct Ahead {
  const std::byte* at = nullptr;
  size_t bytes = 0;
};

struct Kernels {
  Isa isa;
  // Up to so many rows, and tiles of rows in 8 bits, weights that are unpacked in registers for
  // each few of them are faster than weights unpacked once for all.
  int direct_rows;
  int int8_direct_tiles;

  // Rows [k0, k1) of a panel as f32 [k1 - k0][32]. k0 is a multiple of kChunkRows.
  void (*unpack)(const PanelLayout& layout, const std::byte* panel, int k0, int k1, float* out);

  // c[r][0..32) (+)= Σ_i a[i·12 + r] · b[i·32 + …] for r < rows ≤ kTileRows, i in order.
  void (*tile)(const float* a, const float* b, int k, int rows, float* c, ptrdiff_t ldc,
               bool accumulate);

  // c[r][32·p + …) = Σ_k a[r·lda + k] · panel_p[k][…] for p < panels, r < rows.
  // Panels follow each other at layout.panel_bytes.
  void (*direct)(const PanelLayout& layout, const std::byte* first_panel, int panels,
                 const float* a, ptrdiff_t lda, int rows, float* c, ptrdiff_t ldc);

  // out[i·12 + r] = a[r][i] for r < rows; the rows up to 12 are zero.
  void (*pack_rows)(const float* const* a, int rows, int k, float* out);

  // Products with activations in 8 bits, of kQ8, kQ4 and kMxfp4 panels.
  // Rows r < tile.rows of a into a tile made by Int8TileAt.
  void (*int8_pack)(const float* const* a, int k, const Int8Tile& tile);
  // Rows [k0, k1) of a panel; k0 is a multiple of kInt8ChunkRows. `out`: kInt8ChunkBytes.
  void (*int8_unpack)(const PanelLayout& layout, const std::byte* panel, int k0, int k1,
                      std::byte* out);
  // c[r][0..32) (+)= the tile's rows times the rows [k0, k1) of a panel, unpacked.
  void (*int8_tile)(const PanelLayout& layout, const std::byte* chunk, const Int8Tile& a, int k0,
                    int k1, float* c, ptrdiff_t ldc, bool accumulate, Ahead ahead);
  // The same of a panel as it is, unpacked in registers.
  void (*int8_direct)(const PanelLayout& layout, const std::byte* panel, const Int8Tile& a, int k0,
                      int k1, float* c, ptrdiff_t ldc, bool accumulate, Ahead ahead);

  // y = x / rms(x) · weight; y may be x.
  void (*rms_norm)(const float* x, const float* weight, int n, float epsilon, float* y);
  // Half-split rotation of x[0 … 2·half) by the angles whose cosines and sines are given.
  void (*rope)(float* x, const float* cosines, const float* sines, int half);
  void (*add)(float* x, const float* y, size_t n);  // x += y
  // x += factor · y, with one rounding.
  void (*add_scaled)(float* x, const float* y, float factor, size_t n);
  void (*silu_mul)(float* gate, const float* up, size_t n);  // gate = gate · σ(gate) · up
  void (*softmax)(float* x, int n);                          // n ≥ 1
  // Clamped to ±65504 (so stored KV is always finite; NaN becomes -65504), then to nearest even.
  void (*to_f16)(const float* x, uint16_t* y, size_t n);
  // The same of kKeysAtOnce positions at x + r·stride into a page's K, where they lie side by side:
  // number i of position r to y[i·kPageTokens + r]. n is a multiple of 16.
  void (*keys_to_f16)(const float* x, ptrdiff_t stride, int n, uint16_t* y);

  // n numbers of one position, as a page of kQ8 or kQ4 has them: `bits` (8 or 4) a code, one byte
  // each at `codes` (room for whole 16s); each group's scale to params[g · 64], its bias to
  // params[g · 64 + 32]. Numbers are clamped as in to_f16; what is stored is always finite.
  void (*quantize_kv)(const float* x, int n, int bits, uint8_t* codes, uint16_t* params);

  // Causal attention over the pages, block by block of absolute positions, online softmax. Pages
  // that no query of the tile sees are not read, and may be null where the query before them sees
  // none either.
  // `scratch`: AttentionScratchFloats(head_dim), aligned to 64 bytes.
  void (*attend)(const AttentionTile& tile, float* scratch);
};

// CHECKs that this CPU has the instruction set.
const Kernels& KernelsFor(Isa isa);

// One per file under kernels/; only KernelsFor uses them.
extern const Kernels kKernelsScalar;
extern const Kernels kKernelsAvx2;
extern const Kernels kKernelsAvxVnni;
extern const Kernels kKernelsAvx512;
extern const Kernels kKernelsAvx512Vnni;

}  // namespace perdure::engine
