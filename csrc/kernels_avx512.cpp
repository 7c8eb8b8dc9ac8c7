// AVX-512 F, BW, VL and DQ, without the instructions for bfloat16 and int8 products.
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace {

#include "lanes_avx512.h"

inline void store_bf16(uint16_t* p, F x) {
  __m512i bits = _mm512_castps_si512(x.v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i up = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16);
  __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
  up = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(up));
}

struct DotBf16 {
  F even, odd;
  static constexpr int step = 32;
  void clear() { even = odd = set(0); }
  void take(const uint16_t* w, const uint16_t* x) {
    const __m512i high = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
    __m512i a = _mm512_loadu_si512(w), b = _mm512_loadu_si512(x);
    odd = fma({_mm512_castsi512_ps(_mm512_and_si512(a, high))}, {_mm512_castsi512_ps(_mm512_and_si512(b, high))}, odd);
    even = fma({_mm512_castsi512_ps(_mm512_slli_epi32(a, 16))}, {_mm512_castsi512_ps(_mm512_slli_epi32(b, 16))}, even);
  }
  F partial() const { return add(even, odd); }
  float total() const { return sum(partial()); }
};
struct DotInt8 {
  __m512i a;
  static constexpr int step = 32;
  void clear() { a = _mm512_setzero_si512(); }
  void take(const int8_t* w, const uint8_t* x) {
    __m512i p = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
    __m512i q = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    a = _mm512_add_epi32(a, _mm512_madd_epi16(p, q));
  }
  int32_t total() const { return _mm512_reduce_add_epi32(a); }
};

}  // namespace

#define TAMIS_TABLE kernels_avx512
#include "kernels.inl"
