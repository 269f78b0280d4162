// 16 lanes as an array: the oracle of the vector paths. std::fma rounds once, as they do.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/float16.h"

namespace perdure::engine {
namespace {

struct Simd {
  struct F {
    float v[16];
  };
  struct W {
    uint32_t v[16];
  };
  static constexpr int kSubRows = 1;
  static constexpr int kSubVectors = 1;
  static constexpr int kDirectRows = 1;
  static constexpr int kDirectVectors = 4;
  static constexpr int kDirectRowsMax = 4;
  static constexpr int kInt8SubRows = 1;
  static constexpr int kInt8SubVectors = 1;
  static constexpr int kInt8DirectTilesMax = 2;

  template <class Fn>
  static F Map(Fn fn) {
    F out;
    for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
    return out;
  }
  static F Zero() { return Set1(0.0f); }
  static F Set1(float x) {
    return Map([&](int) { return x; });
  }
  static F Load(const float* p) {
    F out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static F LoadFirst(const float* p, int n) {
    return Map([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void Store(float* p, F x) { std::memcpy(p, x.v, sizeof x.v); }
  static void StoreFirst(float* p, F x, int n) {
    for (int i = 0; i < n && i < 16; ++i) p[i] = x.v[i];
  }
  static F LoadF16(const uint16_t* p) {
    return Map([&](int i) { return F16ToF32(p[i]); });
  }
  static void StoreF16(uint16_t* p, F x) {
    for (int i = 0; i < 16; ++i) p[i] = F32ToF16(x.v[i]);
  }
  static F LoadBf16(const uint16_t* p) {
    return Map([&](int i) { return Bf16ToF32(p[i]); });
  }
  // 16 bytes, one a lane.
  static W LoadBytes(const uint8_t* p) {
    return MapWords([&](int i) { return uint32_t{p[i]}; });
  }
  // The low bytes of the lanes' bits.
  static void StoreBytes(uint8_t* p, F x) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(std::bit_cast<uint32_t>(x.v[i]));
  }
  static W LoadWords(const void* p) {
    W out;
    std::memcpy(out.v, p, sizeof out.v);
    return out;
  }
  static F LowHalf(W w) {
    return Map([&](int i) { return Bf16ToF32(static_cast<uint16_t>(w.v[i])); });
  }
  static F HighHalf(W w) {
    return Map([&](int i) { return Bf16ToF32(static_cast<uint16_t>(w.v[i] >> 16)); });
  }
  static F Nibble(W w, int j) {
    return Map([&](int i) { return static_cast<float>((w.v[i] >> (4 * j)) & 15u); });
  }
  static F Byte(W w, int j) {
    return Map([&](int i) { return static_cast<float>((w.v[i] >> (8 * j)) & 255u); });
  }
  static F E2M1(W w, int j) {
    constexpr float kMagnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    return Map([&](int i) {
      const uint32_t bits = w.v[i] >> (4 * j);
      return (bits & 8u) != 0 ? -kMagnitudes[bits & 7u] : kMagnitudes[bits & 7u];
    });
  }
  static F LoadE8M0(const uint8_t* p) {
    return Map([&](int i) { return std::ldexp(1.0f, p[i] - 127); });
  }
  template <class Fn>
  static W MapWords(Fn fn) {
    W out;
    for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
    return out;
  }
  static W SetWords(uint32_t x) {
    return MapWords([&](int) { return x; });
  }
  static void StoreWords(void* p, W w) { std::memcpy(p, w.v, sizeof w.v); }
  static F AsFloats(W w) { return Load(reinterpret_cast<const float*>(w.v)); }
  static W LowNibbles(W w) {
    return MapWords([&](int i) { return w.v[i] & 0x0F0F0F0Fu; });
  }
  static W HighNibbles(W w) {
    return MapWords([&](int i) { return w.v[i] >> 4 & 0x0F0F0F0Fu; });
  }
  // Nibbles in bytes to 12 + twice their E2M1.
  static W E2M1Codes(W nibbles) {
    constexpr uint8_t kCodes[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    return MapWords([&](int i) {
      uint32_t codes = 0;
      for (int j = 0; j < 32; j += 8) codes |= uint32_t{kCodes[nibbles.v[i] >> j & 15u]} << j;
      return codes;
    });
  }
  // sums + the four products of each lane's bytes: u are unsigned, s signed and not -128. kNarrow:
  // u < 32.
  template <bool kNarrow>
  static W Dot4(W sums, W u, W s) {
    return MapWords([&](int i) {
      int sum = static_cast<int>(sums.v[i]);
      for (int j = 0; j < 32; j += 8)
        sum += static_cast<uint8_t>(u.v[i] >> j) * static_cast<int8_t>(s.v[i] >> j);
      return static_cast<uint32_t>(sum);
    });
  }
  // The low bytes of the lanes' bits; of each eight the even lanes first.
  static void StoreLowBytes(const F (&x)[4], void* p) {
    auto* bytes = static_cast<unsigned char*>(p);
    for (const F& v : x)
      for (int i = 0; i < 16; ++i)
        bytes[(&v - x) * 16 + i / 8 * 8 + i % 2 * 4 + i % 8 / 2] =
            static_cast<uint8_t>(std::bit_cast<uint32_t>(v.v[i]));
  }
  static F Fma(F a, F b, F c) {
    return Map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  static F Add(F a, F b) {
    return Map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F Sub(F a, F b) {
    return Map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F Mul(F a, F b) {
    return Map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F Div(F a, F b) {
    return Map([&](int i) { return a.v[i] / b.v[i]; });
  }
  // As maxps and minps: the second operand where one is NaN.
  static F Max(F a, F b) {
    return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Min(F a, F b) {
    return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  // Of a and |b|; by their bits, so that NaN is above all. a is no less than 0.
  static F MaxMagnitude(F a, F b) {
    return Map([&](int i) {
      const uint32_t x = std::bit_cast<uint32_t>(a.v[i]);
      const uint32_t y = std::bit_cast<uint32_t>(b.v[i]) & 0x7FFFFFFFu;
      return std::bit_cast<float>(x > y ? x : y);
    });
  }
  static F SelectFirst(F a, F b, int n) {
    return Map([&](int i) { return i < n ? a.v[i] : b.v[i]; });
  }
  // x where test ≥ bound, zero elsewhere (and where test is NaN).
  static F ZeroBelow(F x, F test, F bound) {
    return Map([&](int i) { return test.v[i] >= bound.v[i] ? x.v[i] : 0.0f; });
  }
  // x · 2^n, n in the low bits of `shifted`.
  static F AddExponent(F x, F shifted) {
    return Map([&](int i) {
      return std::bit_cast<float>(std::bit_cast<uint32_t>(x.v[i]) +
                                  (std::bit_cast<uint32_t>(shifted.v[i]) << 23));
    });
  }
  // to[j]'s lane i is from[i · stride + j].
  static void Transpose(const float* from, ptrdiff_t stride, F (&to)[16]) {
    for (int j = 0; j < 16; ++j) to[j] = Map([&](int i) { return from[i * stride + j]; });
  }
  static float ReduceAdd(F x) {
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) x.v[i] = x.v[i] + x.v[i + width];
    return x.v[0];
  }
  static float ReduceMax(F x) {
    for (int width = 8; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) x.v[i] = x.v[i] > x.v[i + width] ? x.v[i] : x.v[i + width];
    return x.v[0];
  }
  static float Sqrt(float x) { return std::sqrt(x); }
  static void FetchToL2(const void*) {}
};

}  // namespace
}  // namespace perdure::engine
