// 16 lanes in one register. Needs AVX-512 F, BW, DQ and VL; uses VNNI where the file is compiled
// for it.
#pragma once

#include <immintrin.h>

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
  // The low bytes of the lanes' bits; of each eight the even lanes first.
  static void StoreLowBytes(F x, uint8_t* p) {
    const __m128i order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_castps_si512(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_shuffle_epi8(bytes, order));
  }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F SelectFirst(F a, F b, int n) { return _mm512_mask_blend_ps(First(n), b, a); }
  static F ZeroBelow(F x, F test, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(test, bound, _CMP_GE_OQ), x);
  }
  static F AddExponent(F x, F shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
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
