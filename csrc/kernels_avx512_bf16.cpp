// AVX-512 with the dot products of bfloat16 pairs (BF16) and of int8 quadruples (VNNI).
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace {

#include "lanes_avx512.h"

inline void store_bf16(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x.v));
}

struct DotBf16 {
  __m512 a;
  static constexpr int step = 32;
  void clear() { a = _mm512_setzero_ps(); }
  void take(const uint16_t* w, const uint16_t* x) {
    a = _mm512_dpbf16_ps(a, (__m512bh)_mm512_loadu_si512(w), (__m512bh)_mm512_loadu_si512(x));
  }
  F partial() const { return {a}; }
  float total() const { return _mm512_reduce_add_ps(a); }
};
struct DotInt8 {
  __m512i a;
  static constexpr int step = 64;
  void clear() { a = _mm512_setzero_si512(); }
  void take(const int8_t* w, const uint8_t* x) {
    a = _mm512_dpbusd_epi32(a, _mm512_loadu_si512(x), _mm512_loadu_si512(w));
  }
  int32_t total() const { return _mm512_reduce_add_epi32(a); }
};

}  // namespace

#define TAMIS_TABLE kernels_avx512_bf16
#include "kernels.inl"
