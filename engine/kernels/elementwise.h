// Norms, rotary embedding, activation, softmax. Written once over the 16-lane `Simd` of the
// including file.
#pragma once

#include "engine/kernels/lanes.h"
#include "engine/kv_view.h"

namespace perdure::engine {
namespace {

// e^x for x ≤ 88, relative error below 2^-22; 0 below -86.5. Cody and Waite's reduction by
// multiples of ln 2, then 1 + r + r²·p(r) with p fitted to minimise the relative error.
PERDURE_INLINE F ExpUpTo88(F x) {
  const F magic = Simd::Set1(0x1.8p23f);  // adding it rounds to an integer in the low bits
  const F shifted = Simd::Fma(x, Simd::Set1(0x1.715476p0f), magic);
  const F n = Simd::Sub(shifted, magic);
  F r = Simd::Fma(n, Simd::Set1(-0x1.62e4p-1f), x);
  r = Simd::Fma(n, Simd::Set1(-0x1.7f7d1cp-20f), r);
  F p = Simd::Set1(0x1.6a2348p-10f);
  p = Simd::Fma(p, r, Simd::Set1(0x1.123a6cp-7f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.5558f4p-5f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.555490p-3f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.fffffcp-2f));
  const F one_plus_r = Simd::Add(r, Simd::Set1(1.0f));
  p = Simd::Fma(Simd::Mul(r, r), p, one_plus_r);
  return Simd::ZeroBelow(Simd::AddExponent(p, shifted), x, Simd::Set1(-86.5f));
}

// The same for every x; e^88 above 88.
PERDURE_INLINE F Exp(F x) { return ExpUpTo88(Simd::Min(x, Simd::Set1(88.0f))); }

void RmsNorm(const float* x, const float* weight, int n, float epsilon, float* y) {
  F sum = Simd::Zero();
  for (int i = 0; i < n; i += 16) {
    const F v = Simd::LoadFirst(x + i, n - i);
    sum = Simd::Fma(v, v, sum);
  }
  const float mean = Simd::ReduceAdd(sum) / static_cast<float>(n);
  const F scale = Simd::Set1(1.0f / Simd::Sqrt(mean + epsilon));
  for (int i = 0; i < n; i += 16) {
    const F v = Simd::Mul(Simd::LoadFirst(x + i, n - i), scale);
    Simd::StoreFirst(y + i, Simd::Mul(v, Simd::LoadFirst(weight + i, n - i)), n - i);
  }
}

void Rope(float* x, const float* cosines, const float* sines, int half) {
  for (int i = 0; i < half; i += 16) {
    const int n = half - i;
    const F a = Simd::LoadFirst(x + i, n), b = Simd::LoadFirst(x + half + i, n);
    const F c = Simd::LoadFirst(cosines + i, n), s = Simd::LoadFirst(sines + i, n);
    Simd::StoreFirst(x + i, Simd::Sub(Simd::Mul(a, c), Simd::Mul(b, s)), n);
    Simd::StoreFirst(x + half + i, Simd::Add(Simd::Mul(b, c), Simd::Mul(a, s)), n);
  }
}

PERDURE_INLINE int Left(size_t n, size_t i) { return n - i < 16 ? static_cast<int>(n - i) : 16; }

void AddTo(float* x, const float* y, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    Simd::StoreFirst(x + i, Simd::Add(Simd::LoadFirst(x + i, left), Simd::LoadFirst(y + i, left)),
                     left);
  }
}

void AddScaled(float* x, const float* y, float factor, size_t n) {
  const F f = Simd::Set1(factor);
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F sum = Simd::Fma(f, Simd::LoadFirst(y + i, left), Simd::LoadFirst(x + i, left));
    Simd::StoreFirst(x + i, sum, left);
  }
}

void Softmax(float* x, int n) {
  const F minus_infinity = Simd::Set1(-__builtin_inff());
  F top = minus_infinity;
  for (int i = 0; i < n; i += 16)
    top = Simd::Max(top, Simd::SelectFirst(Simd::LoadFirst(x + i, n - i), minus_infinity, n - i));
  const F pivot = Simd::Set1(Simd::ReduceMax(top));
  F sum = Simd::Zero();
  for (int i = 0; i < n; i += 16) {
    const F power = Exp(Simd::Sub(Simd::LoadFirst(x + i, n - i), pivot));
    Simd::StoreFirst(x + i, power, n - i);
    sum = Simd::Add(sum, Simd::SelectFirst(power, Simd::Zero(), n - i));
  }
  const F total = Simd::Set1(Simd::ReduceAdd(sum));
  for (int i = 0; i < n; i += 16)
    Simd::StoreFirst(x + i, Simd::Div(Simd::LoadFirst(x + i, n - i), total), n - i);
}

void SiluMul(float* gate, const float* up, size_t n) {
  const F one = Simd::Set1(1.0f);
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F g = Simd::LoadFirst(gate + i, left);
    const F silu = Simd::Div(g, Simd::Add(one, Exp(Simd::Sub(Simd::Zero(), g))));
    Simd::StoreFirst(gate + i, Simd::Mul(silu, Simd::LoadFirst(up + i, left)), left);
  }
}

PERDURE_INLINE F ClampToF16(F x) {
  return Simd::Min(Simd::Max(x, Simd::Set1(-65504.0f)), Simd::Set1(65504.0f));
}

void ToF16(const float* x, uint16_t* y, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F v = ClampToF16(Simd::LoadFirst(x + i, left));
    if (left == 16) {
      Simd::StoreF16(y + i, v);
    } else {
      uint16_t tail[16];
      Simd::StoreF16(tail, v);
      for (int j = 0; j < left; ++j) y[i + size_t(j)] = tail[j];
    }
  }
}

void KeysToF16(const float* x, ptrdiff_t stride, int n, uint16_t* y) {
  static_assert(kKeysAtOnce == 16);
  for (int i = 0; i < n; i += 16) {
    F columns[16];
    Simd::Transpose(x + i, stride, columns);
#pragma GCC unroll 16
    for (int j = 0; j < 16; ++j)
      Simd::StoreF16(y + ptrdiff_t(i + j) * kPageTokens, ClampToF16(columns[j]));
  }
}

}  // namespace
}  // namespace perdure::engine
