// Statistical top-k for training: forward and backward, fused, one row at a time while it lies in the cache.
//
// Included by one translation unit per instruction set, inside a namespace of its own (TAMIS_TOPK_NAMESPACE). Plain loops
// that compilers vectorise: sums run in 32 lanes, which also keeps their rounding errors small.
//
//   soft_threshold     theta = mean + std z;  y = max(x - theta, 0)
//                      dx = g m - s/n - (x - mean) s z / (std n),  m = [x > theta], s = sum(g m)
//   attention_weights  over the visible keys of a query: keep score > theta or largest; a = softmax(cap(score));
//                      w = a softplus(gate);  ds = a (d - sum a d) (1 - tanh^2) with d = g softplus, dgate = g a sigmoid
//                      Survivors are packed first: everything transcendental runs on them alone.
// Nothing of the standard library that is more than a loop appears here: the linker keeps one copy of an inline function,
// and must not keep the one that was compiled for a newer processor.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "topk_kernels.h"

namespace tamis {
namespace TAMIS_TOPK_NAMESPACE {

constexpr int lanes = 32;

template <class T>
T total(const T (&lane)[lanes]) {
  double sum = 0;
  for (T value : lane) sum += value;
  return static_cast<T>(sum);
}

template <class T>
T sum_of(const T* x, int64_t n) {
  T lane[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; l++) lane[l] += x[i + l];
  for (int l = 0; i + l < n; l++) lane[l] += x[i + l];
  return total(lane);
}

// sum (x - mean)^2
template <class T>
T spread_of(const T* x, int64_t n, T mean) {
  T lane[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; l++) lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
  for (int l = 0; i + l < n; l++) lane[l] += (x[i + l] - mean) * (x[i + l] - mean);
  return total(lane);
}

template <class T>
T product_of(const T* x, const T* y, int64_t n) {
  T lane[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; l++) lane[l] += x[i + l] * y[i + l];
  for (int l = 0; i + l < n; l++) lane[l] += x[i + l] * y[i + l];
  return total(lane);
}

// sum of g where x > theta
template <class T>
T sum_above(const T* x, const T* g, int64_t n, T theta) {
  T lane[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int l = 0; l < lanes; l++) lane[l] += x[i + l] > theta ? g[i + l] : T(0);
  for (int l = 0; i + l < n; l++) lane[l] += x[i + l] > theta ? g[i + l] : T(0);
  return total(lane);
}

template <class T>
void threshold_row(const T* x, int64_t n, double quantile, T* y, T* saved) {
  const T mean = sum_of(x, n) / static_cast<T>(n);
  const T std = std::sqrt(spread_of(x, n, mean) / static_cast<T>(n));
  const T theta = mean + std * static_cast<T>(quantile);
  for (int64_t i = 0; i < n; i++) {
    const T above = x[i] - theta;
    y[i] = above <= T(0) ? T(0) : above;  // this way round NaN stays NaN
  }
  saved[0] = mean;
  saved[1] = std;
}

template <class T>
void threshold_row_backward(const T* x, const T* g, const T* saved, int64_t n, double quantile, T* dx) {
  const T mean = saved[0], std = saved[1], theta = mean + std * static_cast<T>(quantile);
  const T s = sum_above(x, g, n, theta), shift = s / static_cast<T>(n);
  // Of a constant row the standard deviation has no derivative; 0 is taken.
  const T slope = std > T(0) ? shift * static_cast<T>(quantile) / std : T(0);
  for (int64_t i = 0; i < n; i++) {
    const T direct = x[i] > theta ? g[i] : T(0);
    dx[i] = direct - shift - (x[i] - mean) * slope;
  }
}

// exp in float32 to 1.2e-7 relative, and to 0 below e^-87: a polynomial that compilers vectorise.
inline float exponential(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float magic = x * 1.44269504f + 12582912.0f;  // rounds to an integer, which lies in the low bits
  const float whole = magic - 12582912.0f;
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits, power;
  std::memcpy(&bits, &p, 4);
  std::memcpy(&power, &magic, 4);
  bits += static_cast<int32_t>(static_cast<uint32_t>(power) << 23);
  std::memcpy(&p, &bits, 4);
  return p;
}
inline double exponential(double x) { return std::exp(x); }

// log(1 + t) for t in [0, 1]: the series of 2 atanh(t / (2 + t)), to 1e-8.
inline float log_1_plus(float t) {
  const float z = t / (2.0f + t), q = z * z;
  float p = 1.0f / 13;
  p = p * q + 1.0f / 11;
  p = p * q + 1.0f / 9;
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  p = p * q + 1.0f / 3;
  return 2 * z * (p * q + 1.0f);
}
inline double log_1_plus(double t) { return std::log1p(t); }

template <class T>
T softplus(T u) {  // this way round NaN stays NaN
  return (u < T(0) ? T(0) : u) + log_1_plus(exponential(-std::abs(u)));
}

template <class T>
T sigmoid(T u) {
  return T(1) / (T(1) + exponential(-u));
}

// tanh by the exponential loses digits near 0, where it is about x: an absolute 1e-7 of a cap of 50.
template <class T>
T capped(T x, T cap) {
  if (cap <= T(0)) return x;
  return cap * (T(1) - T(2) / (exponential(T(2) * x / cap) + T(1)));
}

struct Window {
  int64_t first, last;  // visible keys [first, last)
  Window(const tamis_attention_rows& a, int64_t row) {
    const int64_t own = row % a.queries + a.offset;  // the query's own key
    last = own + 1 < a.keys ? own + 1 : a.keys;
    first = a.window > 0 && own + 1 > a.window ? own + 1 - a.window : 0;
  }
};

template <class T>
void pack(Survivors<T>& kept, const T* s, const T* u, Window seen, T theta, T largest) {
  int64_t c = 0;
  for (int64_t j = seen.first; j < seen.last; j++) {
    kept.index[c] = static_cast<int32_t>(j);
    c += (s[j] > theta) | (s[j] == largest);
  }
  kept.count = c;
  for (int64_t i = 0; i < c; i++) kept.score[i] = s[kept.index[i]];
  if (u != nullptr)
    for (int64_t i = 0; i < c; i++) kept.gate[i] = u[kept.index[i]];
}

// saved: theta, largest score, 1 / sum of exponentials
template <class T>
void weights_row(const tamis_attention_rows& a, int64_t row, const T* s, const T* u, T* w, T* saved, Survivors<T>& kept) {
  const Window seen(a, row);
  const int64_t n = seen.last - seen.first;
  for (int64_t j = 0; j < a.keys; j++) w[j] = T(0);
  T largest = -static_cast<T>(INFINITY), theta = largest;
  for (int64_t j = seen.first; j < seen.last; j++) largest = s[j] > largest ? s[j] : largest;
  if (a.active > 0 && n > a.active) {
    const T mean = sum_of(s + seen.first, n) / static_cast<T>(n);
    theta = mean + std::sqrt(spread_of(s + seen.first, n, mean) / static_cast<T>(n)) * static_cast<T>(a.quantiles[n]);
  }
  pack(kept, s, u, seen, theta, largest);
  // theta carries NaN to the weights, and through `saved` to the gradients. Without a threshold only -inf and NaN are not
  // packed; of nothing but these two there is no softmax.
  if (n > 0 && largest == -static_cast<T>(INFINITY))
    theta = static_cast<T>(NAN);
  else if (theta == -static_cast<T>(INFINITY) && kept.count < n)
    for (int64_t j = seen.first; j < seen.last; j++) theta = s[j] != s[j] ? s[j] : theta;
  const T cap = static_cast<T>(a.cap), top = capped(largest, cap);
  T* e = kept.a;
  for (int64_t i = 0; i < kept.count; i++) e[i] = exponential(capped(kept.score[i], cap) - top);
  const T inverse = T(1) / sum_of(e, kept.count);
  if (u != nullptr)
    for (int64_t i = 0; i < kept.count; i++) e[i] *= softplus(kept.gate[i]);
  for (int64_t i = 0; i < kept.count; i++) w[kept.index[i]] = e[i] * inverse;
  if (theta != theta)  // NaN in, NaN out
    for (int64_t j = seen.first; j < seen.last; j++) w[j] = theta;
  saved[0] = theta;
  saved[1] = largest;
  saved[2] = inverse;
}

template <class T>
void weights_row_backward(const tamis_attention_rows& a, int64_t row, const T* s, const T* u, const T* g, const T* saved,
                          T* ds, T* du, Survivors<T>& kept) {
  const Window seen(a, row);
  for (int64_t j = 0; j < a.keys; j++) ds[j] = T(0);
  if (du != nullptr)
    for (int64_t j = 0; j < a.keys; j++) du[j] = T(0);
  if (saved[0] != saved[0]) {
    for (int64_t j = seen.first; j < seen.last; j++) ds[j] = saved[0];
    for (int64_t j = seen.first; du != nullptr && j < seen.last; j++) du[j] = saved[0];
    return;
  }
  pack(kept, s, u, seen, saved[0], saved[1]);
  const T cap = static_cast<T>(a.cap), top = capped(saved[1], cap), inverse = saved[2];
  T *p = kept.a, *d = kept.b;
  for (int64_t i = 0; i < kept.count; i++) d[i] = g[kept.index[i]];
  for (int64_t i = 0; i < kept.count; i++) {
    const T c = capped(kept.score[i], cap);
    p[i] = exponential(c - top) * inverse;
    kept.score[i] = cap > T(0) ? T(1) - (c / cap) * (c / cap) : T(1);  // derivative of the cap
  }
  if (u != nullptr) {
    for (int64_t i = 0; i < kept.count; i++) {
      const T x = kept.gate[i];
      kept.gate[i] = d[i] * p[i] * sigmoid(x);
      d[i] *= softplus(x);
    }
    for (int64_t i = 0; i < kept.count; i++) du[kept.index[i]] = kept.gate[i];
  }
  const T mean = product_of(p, d, kept.count);
  for (int64_t i = 0; i < kept.count; i++) p[i] *= (d[i] - mean) * kept.score[i];
  for (int64_t i = 0; i < kept.count; i++) ds[kept.index[i]] = p[i];
}

template <class T>
void soft_threshold(const T* x, int64_t first, int64_t last, int64_t n, double quantile, T* y, T* saved) {
  for (int64_t r = first; r < last; r++) threshold_row(x + r * n, n, quantile, y + r * n, saved + 2 * r);
}

template <class T>
void soft_threshold_backward(const T* x, const T* g, const T* saved, int64_t first, int64_t last, int64_t n,
                             double quantile, T* dx) {
  for (int64_t r = first; r < last; r++)
    threshold_row_backward(x + r * n, g + r * n, saved + 2 * r, n, quantile, dx + r * n);
}

template <class T>
void weights(const tamis_attention_rows& a, int64_t first, int64_t last, const T* s, const T* u, T* w, T* saved,
             Survivors<T> kept) {
  for (int64_t r = first; r < last; r++)
    weights_row(a, r, s + r * a.keys, u ? u + r * a.keys : u, w + r * a.keys, saved + 3 * r, kept);
}

template <class T>
void weights_backward(const tamis_attention_rows& a, int64_t first, int64_t last, const T* s, const T* u, const T* g,
                      const T* saved, T* ds, T* du, Survivors<T> kept) {
  for (int64_t r = first; r < last; r++) {
    const int64_t at = r * a.keys;
    weights_row_backward(a, r, s + at, u ? u + at : u, g + at, saved + 3 * r, ds + at, du ? du + at : du, kept);
  }
}

}  // namespace TAMIS_TOPK_NAMESPACE
}  // namespace tamis

#define TAMIS_TOPK_TABLE(T, isa)                                                                   \
  namespace tamis {                                                                                \
  template <>                                                                                      \
  TopkKernels<T> topk_##isa<T>() {                                                                 \
    return {isa::soft_threshold<T>, isa::soft_threshold_backward<T>, isa::weights<T>, isa::weights_backward<T>}; \
  }                                                                                                \
  }
