// 16 lanes in one register. Needs AVX-512 F, BW, DQ and VL; uses VNNI where the file is compiled
// for it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace perdure::engine {
namespace {

struct Simd {
  using F = __m512;
  using W = __m512i;
  // 12 × 2 accumulators, 2 weights, 1 activation: 27 of 32 registers.
  static constexpr int kSubRows = 12;
  static constexpr int kSubVectors = 2;
  // 12 × 2 sums, 2 weights, 1 activation; or those of several panels.
  static constexpr int kDirectRows = 12;
  static constexpr int kDirectVectors = 28;
  static constexpr int kDirectRowsMax = 48;
  // 8 × 2 integer sums, 4 weights, 1 activation; the sums in f32 lie in memory.
  static constexpr int kInt8SubRows = 8;
  static constexpr int kInt8SubVectors = 2;
  static constexpr int kInt8DirectTilesMax = 8;

  static __mmask16 First(int n) {
    return n >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << (n < 0 ? 0 : n)) - 1u);
  }
  static F Zero() { return _mm512_setzero_ps(); }
  static F Set1(float x) { return _mm512_set1_ps(x); }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F LoadFirst(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  static void Store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void StoreFirst(float* p, F x, int n) { _mm512_mask_storeu_ps(p, First(n), x); }
  static F LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void StoreF16(uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F LoadBf16(const uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  // 16 bytes, one a lane.
  static W LoadBytes(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // The low bytes of the lanes' bits.
  static void StoreBytes(uint8_t* p, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_castps_si512(x)));
  }
  static W LoadWords(const void* p) { return _mm512_loadu_si512(p); }
  static F LowHalf(W w) { return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)); }
  static F HighHalf(W w) {
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(int(0xFFFF0000u))));
  }
  static F Byte(W w, int j) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(w, static_cast<unsigned>(8 * j)),
                                               _mm512_set1_epi32(255)));
  }
  // The permutation looks at the low four bits of an index only: a table of 0.0 … 15.0 saves the
  // mask and the conversion.
  static F Nibble(W w, int j) {
    const __m512 table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(w, static_cast<unsigned>(4 * j)), table);
  }
  static F E2M1(W w, int j) {
    const __m512 table = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
                                        -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(w, static_cast<unsigned>(4 * j)), table);
  }
  // The byte is the exponent of a binary32, but for 0: 2^-127 is subnormal.
  static F LoadE8M0(const uint8_t* p) {
    const __m512i bytes =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_max_ps(_mm512_castsi512_ps(_mm512_slli_epi32(bytes, 23)),
                         _mm512_set1_ps(0x1p-127f));
  }
  static W SetWords(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static void StoreWords(void* p, W w) { _mm512_storeu_si512(p, w); }
  static F AsFloats(W w) { return _mm512_castsi512_ps(w); }
  static W LowNibbles(W w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
  static W HighNibbles(W w) { return LowNibbles(_mm512_srli_epi32(w, 4)); }
  // Nibbles in bytes to 12 + twice their E2M1.
  static W E2M1Codes(W nibbles) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
  }
  // sums + the four products of each lane's bytes: u are unsigned, s signed and not -128. kNarrow:
  // u < 32.
  template <bool kNarrow>
  static W Dot4(W sums, W u, W s) {
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sums, u, s);
#else
    const __m512i ones = _mm512_set1_epi16(1);
    if constexpr (kNarrow)
      return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), ones));
    // The pairs of _mm512_maddubs_epi16 would saturate.
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), _mm512_srai_epi16(s, 8));
    return _mm512_add_epi32(sums, _mm512_add_epi32(even, odd));
#endif
  }
  // (mask & a) | b
  static W Merge(W mask, W a, W b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xEA); }
  // The low bytes of the lanes' bits; of each eight the even lanes first.
  static void StoreLowBytes(const F (&x)[4], void* p) {
    const W low16 = _mm512_set1_epi32(0xFFFF), low8 = _mm512_set1_epi16(0xFF);
    const W x01 =
        Merge(low16, _mm512_castps_si512(x[0]), _mm512_slli_epi32(_mm512_castps_si512(x[1]), 16));
    const W x23 =
        Merge(low16, _mm512_castps_si512(x[2]), _mm512_slli_epi32(_mm512_castps_si512(x[3]), 16));
    // A lane's bytes, those of x[0], x[2], x[1] and x[3], go to the pairs of lanes 0 and 2, 1 and 3
    // of each four; then a vector's pairs meet.
    const W bytes = Merge(low8, x01, _mm512_slli_epi16(x23, 8));
    const __m128i pairs = _mm_setr_epi8(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15);
    const W order = _mm512_set_epi64(
        0x001F'0017'001E'0016, 0x000F'0007'000E'0006, 0x001D'0015'001C'0014, 0x000D'0005'000C'0004,
        0x001B'0013'001A'0012, 0x000B'0003'000A'0002, 0x0019'0011'0018'0010, 0x0009'0001'0008'0000);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(
                               order, _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(pairs))));
  }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  // Of a and |b|; by their bits, so that NaN is above all. a is no less than 0.
  static F MaxMagnitude(F a, F b) {
    const W magnitude = _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(INT32_MAX));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), magnitude));
  }
  static F SelectFirst(F a, F b, int n) { return _mm512_mask_blend_ps(First(n), b, a); }
  static F ZeroBelow(F x, F test, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, bound, _CMP_GE_OQ), x);
  }
  static F AddExponent(F x, F shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
  }
  // to[j]'s lane i is from[i · stride + j]. Rows meet in a register as they are loaded, which needs
  // half as many shuffles as whole rows.
  static void Transpose(const float* from, ptrdiff_t stride, F (&to)[16]) {
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += 4) {
      F x[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const float* p = from + i * stride + j;
        x[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(p + 4 * stride), 1);
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(p + 8 * stride), 2);
        x[i] = _mm512_insertf32x4(x[i], _mm_loadu_ps(p + 12 * stride), 3);
      }
      const F low01 = _mm512_unpacklo_ps(x[0], x[1]), low23 = _mm512_unpacklo_ps(x[2], x[3]);
      const F high01 = _mm512_unpackhi_ps(x[0], x[1]), high23 = _mm512_unpackhi_ps(x[2], x[3]);
      to[j] = _mm512_shuffle_ps(low01, low23, 0x44);
      to[j + 1] = _mm512_shuffle_ps(low01, low23, 0xEE);
      to[j + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
      to[j + 3] = _mm512_shuffle_ps(high01, high23, 0xEE);
    }
  }
  static float ReduceAdd(F x) {
    __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
  }
  static float ReduceMax(F x) {
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
  }
  static float Sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static void FetchToL2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
};

}  // namespace
}  // namespace perdure::engine
