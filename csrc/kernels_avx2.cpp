// AVX2 with FMA.
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace {

constexpr int lanes = 8;
constexpr int tile_rows = 2, tile_batch = 2;

struct F {
  __m256 v;
};
inline F load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, F x) { _mm256_storeu_ps(p, x.v); }
inline F set(float x) { return {_mm256_set1_ps(x)}; }
inline F add(F a, F b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F sub(F a, F b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F mul(F a, F b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F div(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F max(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F min(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F abs(F a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline F round(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline F power_of_2(F n) {
  __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(e, 23))};
}
inline float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline void sums(F a, F b, F c, F d, float* out) {
  const __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a.v, b.v), _mm256_hadd_ps(c.v, d.v));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
}
inline float largest(F a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}
inline F load(const uint16_t* p) {
  __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16))};
}
inline F load(const int8_t* p) {
  __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b))};
}
inline void store_bf16(uint16_t* p, F x) {
  __m256i bits = _mm256_castps_si256(x.v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i up = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)), 16);
  __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  up = _mm256_blendv_epi8(up, quiet, nan);
  __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}
inline void store_offset(uint8_t* p, F x) {
  __m256i n = _mm256_add_epi32(_mm256_cvtps_epi32(x.v), _mm256_set1_epi32(128));
  __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
}
inline int compact(F x, F least, int32_t index0, int32_t* index, float* value) {
  unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x.v, least.v, _CMP_GE_OQ)));
  if (mask == 0) return 0;
  alignas(32) float each[lanes];
  _mm256_store_ps(each, x.v);
  int n = 0;
  for (; mask != 0; mask &= mask - 1) {
    int i = __builtin_ctz(mask);
    index[n] = index0 + i;
    value[n++] = each[i];
  }
  return n;
}

// Two bfloat16 in a 32-bit word: the odd one is the word with its low half cleared, the even one the word shifted up.
struct DotBf16 {
  F even, odd;
  static constexpr int step = 16;
  void clear() { even = odd = set(0); }
  void take(const uint16_t* w, const uint16_t* x) {
    const __m256i high = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
    __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
    __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    odd = fma({_mm256_castsi256_ps(_mm256_and_si256(a, high))}, {_mm256_castsi256_ps(_mm256_and_si256(b, high))}, odd);
    even = fma({_mm256_castsi256_ps(_mm256_slli_epi32(a, 16))}, {_mm256_castsi256_ps(_mm256_slli_epi32(b, 16))}, even);
  }
  F partial() const { return add(even, odd); }
  float total() const { return sum(partial()); }
};
struct DotInt8 {
  __m256i a;
  static constexpr int step = 16;
  void clear() { a = _mm256_setzero_si256(); }
  void take(const int8_t* w, const uint8_t* x) {
    __m256i p = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    __m256i q = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    a = _mm256_add_epi32(a, _mm256_madd_epi16(p, q));
  }
  int32_t total() const {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }
};

}  // namespace

#define TAMIS_TABLE kernels_avx2
#include "kernels.inl"
