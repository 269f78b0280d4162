// 16 lanes in two registers. Needs AVX2, FMA and F16C; uses AVX-VNNI where the file is compiled for
// it.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace perdure::engine {
namespace {

struct Simd {
  struct F {
    __m256 lo, hi;
  };
  struct W {
    __m256i lo, hi;
  };
  // 6 × 1 × 2 accumulators, 2 weights, 1 activation: 15 of 16 registers.
  static constexpr int kSubRows = 6;
  static constexpr int kSubVectors = 1;
  // 3 × 2 × 2 sums, 2 weights, 1 activation: 15 of 16 registers; or those of two panels.
  static constexpr int kDirectRows = 3;
  static constexpr int kDirectVectors = 8;
  static constexpr int kDirectRowsMax = 4;
  // 4 × 1 × 2 integer sums, 2 × 2 weights, 1 activation: 13 of 16 registers.
  static constexpr int kInt8SubRows = 4;
  static constexpr int kInt8SubVectors = 1;
  static constexpr int kInt8DirectTilesMax = 2;

  static __m256i First(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  // A branch that is foreseen costs less than the masks.
  static F LoadFirst(const float* p, int n) {
    if (n >= 16) return Load(p);
    return {_mm256_maskload_ps(p, First(n)),
            n > 8 ? _mm256_maskload_ps(p + 8, First(n - 8)) : _mm256_setzero_ps()};
  }
  static void Store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static void StoreFirst(float* p, F x, int n) {
    if (n >= 16) return Store(p, x);
    _mm256_maskstore_ps(p, First(n), x.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, First(n - 8), x.hi);
  }
  static __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static F LoadF16(const uint16_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))};
  }
  static void StoreF16(uint16_t* p, F x) {
    constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.lo, kMode));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.hi, kMode));
  }
  static __m256 WidenBf16(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static F LoadBf16(const uint16_t* p) {
    return {WidenBf16(Load128(p)), WidenBf16(Load128(p + 8))};
  }
  // 16 bytes, one a lane.
  static W LoadBytes(const uint8_t* p) {
    const __m128i bytes = Load128(p);
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
  }
  // The low bytes of the lanes' bits.
  static void StoreBytes(uint8_t* p, F x) {
    const __m256i mask = _mm256_set1_epi32(255);
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(_mm256_castps_si256(x.lo), mask),
                                              _mm256_and_si256(_mm256_castps_si256(x.hi), mask));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }
  static W LoadWords(const void* p) {
    const auto* words = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
  }
  static F LowHalf(W w) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(w.lo, 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(w.hi, 16))};
  }
  static F HighHalf(W w) {
    const __m256i mask = _mm256_set1_epi32(int(0xFFFF0000u));
    return {_mm256_castsi256_ps(_mm256_and_si256(w.lo, mask)),
            _mm256_castsi256_ps(_mm256_and_si256(w.hi, mask))};
  }
  static F Nibble(W w, int j) {
    const __m256i mask = _mm256_set1_epi32(15);
    return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.lo, 4 * j), mask)),
            _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.hi, 4 * j), mask))};
  }
  static F Byte(W w, int j) {
    const __m256i mask = _mm256_set1_epi32(255);
    return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.lo, 8 * j), mask)),
            _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w.hi, 8 * j), mask))};
  }
  // The permutation looks at the low three bits of an index only; bit 3 is the sign.
  static __m256 E2M1(__m256i bits) {
    const __m256 table = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
    const __m256i sign =
        _mm256_and_si256(_mm256_slli_epi32(bits, 28), _mm256_set1_epi32(INT32_MIN));
    return _mm256_or_ps(_mm256_permutevar8x32_ps(table, bits), _mm256_castsi256_ps(sign));
  }
  static F E2M1(W w, int j) {
    return {E2M1(_mm256_srli_epi32(w.lo, 4 * j)), E2M1(_mm256_srli_epi32(w.hi, 4 * j))};
  }
  // The byte is the exponent of a binary32, but for 0: 2^-127 is subnormal.
  static __m256 E8M0(__m128i bytes) {
    const __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
    return _mm256_max_ps(_mm256_castsi256_ps(exponents), _mm256_set1_ps(0x1p-127f));
  }
  static F LoadE8M0(const uint8_t* p) {
    const __m128i bytes = Load128(p);
    return {E8M0(bytes), E8M0(_mm_srli_si128(bytes, 8))};
  }
  static W SetWords(uint32_t x) {
    const __m256i words = _mm256_set1_epi32(static_cast<int>(x));
    return {words, words};
  }
  static void StoreWords(void* p, W w) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), w.lo);
    _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, w.hi);
  }
  static F AsFloats(W w) { return {_mm256_castsi256_ps(w.lo), _mm256_castsi256_ps(w.hi)}; }
  static W LowNibbles(W w) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(w.lo, mask), _mm256_and_si256(w.hi, mask)};
  }
  static W HighNibbles(W w) {
    return LowNibbles({_mm256_srli_epi32(w.lo, 4), _mm256_srli_epi32(w.hi, 4)});
  }
  // Nibbles in bytes to 12 + twice their E2M1.
  static W E2M1Codes(W nibbles) {
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    return {_mm256_shuffle_epi8(table, nibbles.lo), _mm256_shuffle_epi8(table, nibbles.hi)};
  }
  template <bool kNarrow>
  static __m256i Dot4(__m256i sums, __m256i u, __m256i s) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sums, u, s);
#else
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (kNarrow)
      return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), ones));
    // The pairs of _mm256_maddubs_epi16 would saturate.
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
    return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
#endif
  }
  // sums + the four products of each lane's bytes: u are unsigned, s signed and not -128. kNarrow:
  // u < 32.
  template <bool kNarrow>
  static W Dot4(W sums, W u, W s) {
    return {Dot4<kNarrow>(sums.lo, u.lo, s.lo), Dot4<kNarrow>(sums.hi, u.hi, s.hi)};
  }
  // The low bytes of eight lanes, the even lanes first.
  static __m128i LowBytes(__m256 x) {
    const __m256i order =
        _mm256_setr_epi8(0, 8, -1, -1, 4, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 8,
                         -1, -1, 4, 12, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_castps_si256(x), order);
    return _mm_or_si128(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  }
  // The low bytes of the lanes' bits; of each eight the even lanes first.
  static void StoreLowBytes(const F (&x)[4], void* p) {
    auto* to = static_cast<__m128i*>(p);
    for (const F& v : x) _mm_storeu_si128(to++, _mm_unpacklo_epi64(LowBytes(v.lo), LowBytes(v.hi)));
  }
  static F Fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F Add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F Sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F Mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F Div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F Max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F Min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static __m256 MaxMagnitude(__m256 a, __m256 b) {
    const __m256i magnitude =
        _mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(INT32_MAX));
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_castps_si256(a), magnitude));
  }
  // Of a and |b|; by their bits, so that NaN is above all. a is no less than 0.
  static F MaxMagnitude(F a, F b) { return {MaxMagnitude(a.lo, b.lo), MaxMagnitude(a.hi, b.hi)}; }
  static F SelectFirst(F a, F b, int n) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(First(n))),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(First(n - 8)))};
  }
  static F ZeroBelow(F x, F test, F bound) {
    return {_mm256_and_ps(x.lo, _mm256_cmp_ps(test.lo, bound.lo, _CMP_GE_OQ)),
            _mm256_and_ps(x.hi, _mm256_cmp_ps(test.hi, bound.hi, _CMP_GE_OQ))};
  }
  static __m256 AddExponent(__m256 x, __m256 shifted) {
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
  }
  static F AddExponent(F x, F shifted) {
    return {AddExponent(x.lo, shifted.lo), AddExponent(x.hi, shifted.hi)};
  }
  // to[j]'s lane i is from[i · stride + j], eight rows × four.
  static void Transpose(const float* from, ptrdiff_t stride, __m256 (&to)[4]) {
    __m256 x[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = from + i * stride;
      x[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)),
                                  _mm_loadu_ps(p + 4 * stride), 1);
    }
    const __m256 low01 = _mm256_unpacklo_ps(x[0], x[1]), low23 = _mm256_unpacklo_ps(x[2], x[3]);
    const __m256 high01 = _mm256_unpackhi_ps(x[0], x[1]), high23 = _mm256_unpackhi_ps(x[2], x[3]);
    to[0] = _mm256_shuffle_ps(low01, low23, 0x44);
    to[1] = _mm256_shuffle_ps(low01, low23, 0xEE);
    to[2] = _mm256_shuffle_ps(high01, high23, 0x44);
    to[3] = _mm256_shuffle_ps(high01, high23, 0xEE);
  }
  // The same of 16 × 16. Rows meet in a register as they are loaded, which needs fewer shuffles
  // than whole rows.
  static void Transpose(const float* from, ptrdiff_t stride, F (&to)[16]) {
#pragma GCC unroll 4
    for (int j = 0; j < 16; j += 4) {
      __m256 lo[4], hi[4];
      Transpose(from + j, stride, lo);
      Transpose(from + 8 * stride + j, stride, hi);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) to[j + i] = {lo[i], hi[i]};
    }
  }
  static float ReduceAdd(F x) {
    __m256 y = _mm256_add_ps(x.lo, x.hi);
    __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_add_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
  }
  static float ReduceMax(F x) {
    __m256 y = _mm256_max_ps(x.lo, x.hi);
    __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    z = _mm_max_ps(z, _mm_movehl_ps(z, z));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
  }
  static float Sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static void FetchToL2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
};

}  // namespace
}  // namespace perdure::engine
