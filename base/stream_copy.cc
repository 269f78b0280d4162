#include "base/stream_copy.h"

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace perdure {

#ifdef __SSE2__

void StreamCopy(std::span<const std::byte> from, std::byte* to) {
  constexpr size_t kLine = 64;
  const std::byte* source = from.data();
  size_t bytes = from.size();
  const size_t ahead = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
  if (bytes < ahead + kLine) {
    if (bytes > 0) std::memcpy(to, source, bytes);
    return;
  }
  std::memcpy(to, source, ahead);
  source += ahead;
  to += ahead;
  bytes -= ahead;
  for (; bytes >= kLine; bytes -= kLine, source += kLine, to += kLine) {
    const auto* in = reinterpret_cast<const __m128i*>(source);
    auto* out = reinterpret_cast<__m128i*>(to);
    const __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2),
                  d = _mm_loadu_si128(in + 3);
    _mm_stream_si128(out, a);
    _mm_stream_si128(out + 1, b);
    _mm_stream_si128(out + 2, c);
    _mm_stream_si128(out + 3, d);
  }
  _mm_sfence();
  std::memcpy(to, source, bytes);
}

#else

void StreamCopy(std::span<const std::byte> from, std::byte* to) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

#endif

}  // namespace perdure
