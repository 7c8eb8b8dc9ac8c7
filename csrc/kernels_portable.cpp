// Plain C++: eight lanes that the compiler lays on whatever vectors the architecture has always had.
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace {

constexpr int lanes = 8;
constexpr int tile_rows = 2, tile_batch = 2;

struct F {
  float v[lanes];
};
#define EACH(expression)                                   \
  F r;                                                     \
  for (int i = 0; i < lanes; i++) r.v[i] = (expression);   \
  return r
inline F load(const float* p) { F r; memcpy(r.v, p, sizeof r.v); return r; }
inline void store(float* p, F x) { memcpy(p, x.v, sizeof x.v); }
inline F set(float x) { EACH(x); }
inline F add(F a, F b) { EACH(a.v[i] + b.v[i]); }
inline F sub(F a, F b) { EACH(a.v[i] - b.v[i]); }
inline F mul(F a, F b) { EACH(a.v[i] * b.v[i]); }
inline F div(F a, F b) { EACH(a.v[i] / b.v[i]); }
inline F fma(F a, F b, F c) { EACH(a.v[i] * b.v[i] + c.v[i]); }
inline F max(F a, F b) { EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F min(F a, F b) { EACH(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F abs(F a) { EACH(fabsf(a.v[i])); }
inline F round(F a) { EACH(rintf(a.v[i])); }
// 2^n for an integral n in [-126, 127]
inline F power_of_2(F n) {
  F r;
  for (int i = 0; i < lanes; i++) {
    uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23;
    memcpy(&r.v[i], &bits, 4);
  }
  return r;
}
inline float sum(F a) {
  return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
inline void sums(F a, F b, F c, F d, float* out) { out[0] = sum(a), out[1] = sum(b), out[2] = sum(c), out[3] = sum(d); }
inline float largest(F a) {
  float m = a.v[0];
  for (int i = 1; i < lanes; i++) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
inline float widen(uint16_t b) {
  uint32_t bits = static_cast<uint32_t>(b) << 16;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
inline F load(const uint16_t* p) { EACH(widen(p[i])); }
inline F load(const int8_t* p) { EACH(static_cast<float>(p[i])); }
inline void store_bf16(uint16_t* p, F x) {
  for (int i = 0; i < lanes; i++) {
    uint32_t bits;
    memcpy(&bits, &x.v[i], 4);
    bool nan = (bits & 0x7fffffff) > 0x7f800000;
    p[i] = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
}
// round(x) + 128 of values in [-127, 127]
inline void store_offset(uint8_t* p, F x) {
  for (int i = 0; i < lanes; i++) p[i] = static_cast<uint8_t>(static_cast<int32_t>(rintf(x.v[i])) + 128);
}
// Appends index0 + lane and x of every x >= least; returns how many.
inline int compact(F x, F least, int32_t index0, int32_t* index, float* value) {
  int n = 0;
  for (int i = 0; i < lanes; i++)
    if (x.v[i] >= least.v[i]) {
      index[n] = index0 + i;
      value[n++] = x.v[i];
    }
  return n;
}

struct DotBf16 {
  F a;
  static constexpr int step = lanes;
  void clear() { a = set(0); }
  void take(const uint16_t* w, const uint16_t* x) { a = fma(load(w), load(x), a); }
  F partial() const { return a; }
  float total() const { return sum(a); }
};
struct DotInt8 {
  int32_t a[lanes];
  static constexpr int step = lanes;
  void clear() { memset(a, 0, sizeof a); }
  void take(const int8_t* w, const uint8_t* x) {
    for (int i = 0; i < lanes; i++) a[i] += static_cast<int32_t>(w[i]) * x[i];
  }
  int32_t total() const {
    int32_t s = 0;
    for (int i = 0; i < lanes; i++) s += a[i];
    return s;
  }
};
#undef EACH

}  // namespace

#define TAMIS_TABLE kernels_portable
#include "kernels.inl"
