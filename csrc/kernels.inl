// The loops themselves, written once over the lanes (F), dot products (DotBf16, DotInt8) and tile sizes of the including
// file. Everything here is local to it.

namespace {

using namespace tamis;

// Ahead of a stream of rows: far enough to hide memory's latency. 1.3 x over none (LOG.md).
constexpr size_t ahead_bytes = 4096;
constexpr size_t line_bytes = 64;
constexpr int rows_ahead = 16;  // of gathered rows

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

inline void prefetch_row(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += line_bytes) prefetch(static_cast<const char*>(p) + i);
}

struct DotF32 {
  F a;
  static constexpr int step = lanes;
  void clear() { a = set(0); }
  void take(const float* w, const float* x) { a = fma(::load(w), ::load(x), a); }
  F partial() const { return a; }
  float total() const { return ::sum(a); }
};

struct WeightsF32 {
  using W = float;
  using X = float;
  using Dot = DotF32;
  static float finish(const Matrix&, int, float total, float) { return total; }
  static float scale(const Matrix&, int) { return 1; }
};
struct WeightsBf16 {
  using W = uint16_t;
  using X = uint16_t;
  using Dot = DotBf16;
  static float finish(const Matrix&, int, float total, float) { return total; }
  static float scale(const Matrix&, int) { return 1; }
};
struct WeightsInt8 {
  using W = int8_t;
  using X = uint8_t;
  using Dot = DotInt8;
  static float finish(const Matrix& m, int row, int32_t total, float x_scale) {
    return static_cast<float>(total - 128 * m.row_sum[row]) * m.scale[row] * x_scale;
  }
  static float scale(const Matrix& m, int row) { return m.scale[row]; }
};

template <class T>
const typename T::W* row_of(const Matrix& m, int row) {
  return static_cast<const typename T::W*>(m.data) + static_cast<size_t>(row) * m.stride;
}

// ---- elementwise

// Cephes' expf: relative error below 2e-7 in [-87, 88]; NaN stays NaN (the second operand of max and min wins).
inline F exponential(F x) {
  x = min(set(88.0f), max(set(-87.0f), x));
  F n = round(mul(x, set(1.44269504f)));
  F r = fma(n, set(-0.693359375f), x);
  r = fma(n, set(2.12194440e-4f), r);
  F p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  p = fma(p, mul(r, r), add(r, set(1.0f)));
  return mul(p, power_of_2(n));
}

// x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form without a tanh.
inline F gelu_of(F x) {
  F u2 = mul(x, fma(mul(x, x), set(2 * 0.7978845608f * 0.044715f), set(2 * 0.7978845608f)));
  return div(x, add(set(1), exponential(sub(set(0), u2))));
}

// cap * tanh(x / cap) = cap - 2 cap / (exp(2 x / cap) + 1); small |x| by the series, where the difference would cancel.
inline F capped(F x, float cap, float inverse) {
  F y = mul(x, set(inverse)), y2 = mul(y, y);
  F e = exponential(add(y, y));
  F wide = sub(set(cap), div(set(2 * cap), add(e, set(1))));
  F series = fma(y2, set(-17.0f / 315), set(2.0f / 15));
  series = fma(series, y2, set(-1.0f / 3));
  series = mul(x, fma(series, y2, set(1)));
  // A blend without masks: 1 where |y| < 1/16, else 0, by a step that saturates.
  F near = min(set(1), max(set(0), mul(sub(set(0.0625f), abs(y)), set(1e30f))));
  return fma(near, sub(series, wide), wide);
}

// log(1 + exp(x)) = max(x, 0) + 2 artanh(t / (t + 2)), t = exp(-|x|): the series converges fast as t/(t+2) <= 1/3.
inline F softplus_of(F x) {
  F t = exponential(sub(set(0), abs(x)));
  F z = div(t, add(t, set(2))), z2 = mul(z, z);
  F p = set(2.0f / 13);
  p = fma(p, z2, set(2.0f / 11));
  p = fma(p, z2, set(2.0f / 9));
  p = fma(p, z2, set(2.0f / 7));
  p = fma(p, z2, set(2.0f / 5));
  p = fma(p, z2, set(2.0f / 3));
  p = fma(p, z2, set(2.0f));
  return fma(p, z, max(set(0), x));
}

void gelu(float* x, int n) {
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(x + i, gelu_of(load(x + i)));
  if (i == n) return;
  float rest[lanes] = {};
  for (int j = i; j < n; j++) rest[j - i] = x[j];
  store(rest, gelu_of(load(rest)));
  for (int j = i; j < n; j++) x[j] = rest[j - i];
}

void gelu_times(float* gate, const float* up, int n) {
  gelu(gate, n);
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(gate + i, mul(load(gate + i), load(up + i)));
  for (; i < n; i++) gate[i] *= up[i];
}

void soft_cap(float* x, int n, float cap) {
  float inverse = 1 / cap;
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(x + i, capped(load(x + i), cap, inverse));
  if (i == n) return;
  float rest[lanes] = {};
  for (int j = i; j < n; j++) rest[j - i] = x[j];
  store(rest, capped(load(rest), cap, inverse));
  for (int j = i; j < n; j++) x[j] = rest[j - i];
}

void add_to(float* y, const float* x, int n) {
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(y + i, add(load(y + i), load(x + i)));
  for (; i < n; i++) y[i] += x[i];
}

// n_padded values are read and written; those past n are 0 and stay 0.
void rms_norm(const float* x, const float* weight, int n, int n_padded, float epsilon, float* out) {
  F a = set(0), b = set(0);
  for (int i = 0; i < n_padded; i += 2 * lanes) {
    F p = load(x + i), q = load(x + i + lanes);
    a = fma(p, p, a);
    b = fma(q, q, b);
  }
  F scale = set(static_cast<float>(1 / sqrt(static_cast<double>(sum(add(a, b))) / n + static_cast<double>(epsilon))));
  for (int i = 0; i < n_padded; i += lanes) store(out + i, mul(mul(load(x + i), scale), load(weight + i)));
}

void convert(int type, const float* x, int n, void* out, float* scale) {
  *scale = 1;
  if (type == f32) {
    memcpy(out, x, sizeof(float) * static_cast<size_t>(n));
  } else if (type == bf16) {
    for (int i = 0; i < n; i += lanes) store_bf16(static_cast<uint16_t*>(out) + i, load(x + i));
  } else {
    F most_seen = set(0), zero = set(0);
    for (int i = 0; i < n; i += lanes) {
      F v = load(x + i);
      most_seen = max(most_seen, abs(v));
      zero = fma(v, set(0), zero);  // NaN if any value is not finite
    }
    const float most = largest(most_seen), not_finite = sum(zero);
    *scale = most / 127 + not_finite;
    // Below 1e-36 the vector is as good as zero, and 127 / most would overflow.
    const F inverse = set(most > 1e-36f ? 127 / most : 0);
    for (int i = 0; i < n; i += lanes) {
      F v = not_finite == 0 ? mul(load(x + i), inverse) : set(0);
      store_offset(static_cast<uint8_t*>(out) + i, v);
    }
  }
}

// ---- products of rows with vectors

template <class T, int R, int B, bool fetch>
inline void tile(const typename T::W* const (&row)[R], const typename T::X* const (&x)[B], int columns,
                 typename T::Dot (&dot)[R][B], size_t ahead = ahead_bytes) {
  for (int r = 0; r < R; r++)
    for (int b = 0; b < B; b++) dot[r][b].clear();
  for (int i = 0; i < columns; i += T::Dot::step) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      if (fetch) prefetch(reinterpret_cast<const char*>(row[r] + i) + ahead);
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) dot[r][b].take(row[r] + i, x[b] + i);
    }
  }
}

// One vector: four rows far apart are read at once, which memory serves faster than one stream.
template <class T>
void multiply_one(const Matrix& m, int row0, int row1, const Activations& x, float* y) {
  constexpr int streams = 4;
  const typename T::X* const v[1] = {static_cast<const typename T::X*>(x.data)};
  const int part = (row1 - row0) / streams;
  for (int i = 0; i < part; i++) {
    const typename T::W* row[streams];
    for (int s = 0; s < streams; s++) row[s] = row_of<T>(m, row0 + s * part + i);
    typename T::Dot dot[streams][1];
    tile<T, streams, 1, true>(row, v, m.cols, dot);
    for (int s = 0; s < streams; s++) {
      int r = row0 + s * part + i;
      y[r] = T::finish(m, r, dot[s][0].total(), x.scale[0]);
    }
  }
  for (int r = row0 + streams * part; r < row1; r++) {
    const typename T::W* const row[1] = {row_of<T>(m, r)};
    typename T::Dot dot[1][1];
    tile<T, 1, 1, true>(row, v, m.cols, dot);
    y[r] = T::finish(m, r, dot[0][0].total(), x.scale[0]);
  }
}

template <class T, int R, int B, bool fetch>
inline void multiply_tile(const Matrix& m, int r0, const Activations& x, int b0, float* y, size_t y_stride) {
  const typename T::W* row[R];
  const typename T::X* v[B];
  for (int r = 0; r < R; r++) row[r] = row_of<T>(m, r0 + r);
  for (int b = 0; b < B; b++) v[b] = static_cast<const typename T::X*>(x.data) + (b0 + b) * x.stride;
  typename T::Dot dot[R][B];
  tile<T, R, B, fetch>(row, v, m.cols, dot, R * m.stride * sizeof(typename T::W));
  for (int r = 0; r < R; r++)
    for (int b = 0; b < B; b++)
      y[(b0 + b) * y_stride + r0 + r] = T::finish(m, r0 + r, dot[r][b].total(), x.scale[b0 + b]);
}

template <class T, int R>
inline void multiply_rows(const Matrix& m, int r, const Activations& x, float* y, size_t y_stride) {
  int b = 0;
  if (x.batch >= tile_batch) {  // the first vectors bring the rows, and prefetch the next ones, for all that follow
    multiply_tile<T, R, tile_batch, true>(m, r, x, 0, y, y_stride);
    for (b = tile_batch; b + tile_batch <= x.batch; b += tile_batch)
      multiply_tile<T, R, tile_batch, false>(m, r, x, b, y, y_stride);
  } else if (x.batch >= 2) {
    multiply_tile<T, R, 2, true>(m, r, x, 0, y, y_stride);
    b = 2;
  }
  for (; b + 2 <= x.batch; b += 2) multiply_tile<T, R, 2, false>(m, r, x, b, y, y_stride);
  for (; b < x.batch; b++) multiply_tile<T, R, 1, false>(m, r, x, b, y, y_stride);
}

template <class T>
void multiply(const Matrix& m, int row0, int row1, const Activations& x, float* y, size_t y_stride) {
  if (x.batch == 1) return multiply_one<T>(m, row0, row1, x, y);
  int r = row0;
  for (; r + tile_rows <= row1; r += tile_rows) multiply_rows<T, tile_rows>(m, r, x, y, y_stride);
  for (; r < row1; r++) multiply_rows<T, 1>(m, r, x, y, y_stride);
}

void matmul(const Matrix& m, int row0, int row1, const Activations& x, float* y, size_t y_stride) {
  switch (m.type) {
    case f32:
      return multiply<WeightsF32>(m, row0, row1, x, y, y_stride);
    case bf16:
      return multiply<WeightsBf16>(m, row0, row1, x, y, y_stride);
    default:
      return multiply<WeightsInt8>(m, row0, row1, x, y, y_stride);
  }
}

// ---- chosen rows only

template <class T>
inline float dot_row(const Matrix& m, int row, const void* x, float x_scale) {
  // Two chains of sums: one alone would wait for itself, as few rows are in flight here.
  const typename T::W* w = row_of<T>(m, row);
  const typename T::X* v = static_cast<const typename T::X*>(x);
  typename T::Dot a, b;
  a.clear();
  b.clear();
  int i = 0;
  for (; i + 2 * T::Dot::step <= m.cols; i += 2 * T::Dot::step) {
    a.take(w + i, v + i);
    b.take(w + i + T::Dot::step, v + i + T::Dot::step);
  }
  if (i < m.cols) a.take(w + i, v + i);
  return T::finish(m, row, a.total() + b.total(), x_scale);
}

template <class T>
void dot_some(const Matrix& m, const int32_t* index, int count, const void* x, float x_scale, float* out) {
  for (int i = 0; i < count; i++) {
    if (i + rows_ahead < count)
      prefetch_row(row_of<T>(m, index[i + rows_ahead]), static_cast<size_t>(m.cols) * sizeof(typename T::W));
    out[i] = dot_row<T>(m, index[i], x, x_scale);
  }
}

void dot_rows(const Matrix& m, const int32_t* index, int count, const void* x, float x_scale, float* out) {
  switch (m.type) {
    case f32:
      return dot_some<WeightsF32>(m, index, count, x, x_scale, out);
    case bf16:
      return dot_some<WeightsBf16>(m, index, count, x, x_scale, out);
    default:
      return dot_some<WeightsInt8>(m, index, count, x, x_scale, out);
  }
}

template <class T, int R>
inline void add_tile(const Matrix& m, const int32_t* index, const float* weight, int column0, int columns, float* y) {
  const typename T::W* row[R];
  F c[R];
  for (int r = 0; r < R; r++) {
    row[r] = row_of<T>(m, index[r]) + column0;
    c[r] = set(weight[r] * T::scale(m, index[r]));
  }
  y += column0;
  for (int i = 0; i < columns; i += lanes) {
    F s = load(y + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) s = fma(c[r], load(row[r] + i), s);
    store(y + i, s);
  }
}

template <class T>
void add_some(const Matrix& m, const int32_t* index, const float* weight, int count, int column0, int columns,
              float* y) {
  int i = 0;
  for (; i + 4 <= count; i += 4) add_tile<T, 4>(m, index + i, weight + i, column0, columns, y);
  for (; i < count; i++) add_tile<T, 1>(m, index + i, weight + i, column0, columns, y);
}

void add_rows(const Matrix& m, const int32_t* index, const float* weight, int count, int column0, int columns,
              float* y) {
  switch (m.type) {
    case f32:
      return add_some<WeightsF32>(m, index, weight, count, column0, columns, y);
    case bf16:
      return add_some<WeightsBf16>(m, index, weight, count, column0, columns, y);
    default:
      return add_some<WeightsInt8>(m, index, weight, count, column0, columns, y);
  }
}

template <class T>
void widen_some(const Matrix& m, int row0, int row1, int column0, int columns, float* out, size_t out_stride) {
  for (int r = row0; r < row1; r++, out += out_stride) {
    const typename T::W* row = row_of<T>(m, r) + column0;
    const F scale = set(T::scale(m, r));
    for (int i = 0; i < columns; i += lanes) store(out + i, mul(scale, load(row + i)));
  }
}

void widen_rows(const Matrix& m, int row0, int row1, int column0, int columns, float* out, size_t out_stride) {
  switch (m.type) {
    case f32:
      return widen_some<WeightsF32>(m, row0, row1, column0, columns, out, out_stride);
    case bf16:
      return widen_some<WeightsBf16>(m, row0, row1, column0, columns, out, out_stride);
    default:
      return widen_some<WeightsInt8>(m, row0, row1, column0, columns, out, out_stride);
  }
}

// Four neurons at a time. While one group is computed, the next one's rows are fetched line by line: a burst of some
// hundred prefetches would fill the queue of misses and stop everything behind it.
template <class T>
void gather_some(const Matrix& up, const Matrix& down, const Matrix* again, const int32_t* index, const float* gate,
                 int count, int ahead, const void* x, const void* x_again, float x_scale, float theta, float* y) {
  constexpr int group = 4, per_line = line_bytes / sizeof(typename T::W);
  using Dot = typename T::Dot;
  const typename T::X* v = static_cast<const typename T::X*>(x);
  for (int i = 0; i < count; i += group) {
    const int n = count - i < group ? count - i : group;
    const typename T::W *k2[group], *next[group];
    float weight[group] = {};
    for (int j = 0; j < group; j++) {
      const int at = i + j < count ? i + j : i, then = i + group + j < count + ahead ? i + group + j : at;
      k2[j] = row_of<T>(up, index[at]);
      next[j] = row_of<T>(up, index[then]);
    }
    Dot dot[group];
    float gates[group] = {};
    if (again != nullptr) {
      const typename T::X* v1 = static_cast<const typename T::X*>(x_again);
      const ptrdiff_t to_k1 = static_cast<const typename T::W*>(again->data) - static_cast<const typename T::W*>(up.data);
      for (auto& each : dot) each.clear();
      for (int c = 0; c < again->cols; c += per_line)
#pragma GCC unroll 4
        for (int j = 0; j < group; j++) {
          prefetch(next[j] + to_k1 + c);
          for (int k = 0; k < per_line; k += Dot::step) dot[j].take(k2[j] + to_k1 + c + k, v1 + c + k);
        }
      for (int j = 0; j < n; j++) {
        const float over = T::finish(*again, index[i + j], dot[j].total(), x_scale) - theta;
        gates[j] = over <= 0 ? 0 : over;  // NaN stays
      }
      gelu(gates, group);
    } else {
      for (int j = 0; j < n; j++) gates[j] = gate[i + j];
    }
    for (auto& each : dot) each.clear();
    for (int c = 0; c < up.cols; c += per_line)
#pragma GCC unroll 4
      for (int j = 0; j < group; j++) {
        prefetch(next[j] + c);
        for (int k = 0; k < per_line; k += Dot::step) dot[j].take(k2[j] + c + k, v + c + k);
      }
    for (int j = 0; j < n; j++)
      weight[j] = gates[j] * T::finish(up, index[i + j], dot[j].total(), x_scale) * T::scale(down, index[i + j]);
    const ptrdiff_t to_v = static_cast<const typename T::W*>(down.data) - static_cast<const typename T::W*>(up.data);
    const F c0 = set(weight[0]), c1 = set(weight[1]), c2 = set(weight[2]), c3 = set(weight[3]);
    for (int c = 0; c < down.cols; c += per_line) {
      const ptrdiff_t o = to_v + c;
      for (int j = 0; j < group; j++) prefetch(next[j] + o);
#pragma GCC unroll 4
      for (int k = 0; k < per_line; k += lanes) {
        F s = load(y + c + k);
        s = fma(c0, load(k2[0] + o + k), s);
        s = fma(c1, load(k2[1] + o + k), s);
        s = fma(c2, load(k2[2] + o + k), s);
        s = fma(c3, load(k2[3] + o + k), s);
        store(y + c + k, s);
      }
    }
  }
}

void gather(const Matrix& up, const Matrix& down, const Matrix* again, const int32_t* index, const float* gate, int count,
            int ahead, const void* x, const void* x_again, float x_scale, float theta, float* y) {
  switch (up.type) {
    case f32:
      return gather_some<WeightsF32>(up, down, again, index, gate, count, ahead, x, x_again, x_scale, theta, y);
    case bf16:
      return gather_some<WeightsBf16>(up, down, again, index, gate, count, ahead, x, x_again, x_scale, theta, y);
    default:
      return gather_some<WeightsInt8>(up, down, again, index, gate, count, ahead, x, x_again, x_scale, theta, y);
  }
}

// ---- statistical top-k

// mean + quantile * biased standard deviation, in two passes; NaN if any x is not finite.
inline float threshold(const float* x, int n, float quantile) {
  const int whole = n - n % lanes;
  F s = set(0);
  for (int i = 0; i < whole; i += lanes) s = add(s, load(x + i));
  double total = static_cast<double>(sum(s));
  for (int i = whole; i < n; i++) total += static_cast<double>(x[i]);
  const float mean = static_cast<float>(total / n);
  F squares = set(0);
  for (int i = 0; i < whole; i += lanes) {
    F d = sub(load(x + i), set(mean));
    squares = fma(d, d, squares);
  }
  double variance = static_cast<double>(sum(squares));
  for (int i = whole; i < n; i++) variance += static_cast<double>(x[i] - mean) * static_cast<double>(x[i] - mean);
  return static_cast<float>(static_cast<double>(mean) + static_cast<double>(quantile) * sqrt(variance / n));
}

// Every x >= least: index and value. Writes up to `lanes` entries past the last.
inline int select(const float* x, int n, float least, int32_t* index, float* value) {
  int kept = 0, i = 0;
  for (; i + lanes <= n; i += lanes) kept += compact(load(x + i), set(least), i, index + kept, value + kept);
  for (; i < n; i++)
    if (x[i] >= least) {
      index[kept] = i;
      value[kept++] = x[i];
    }
  return kept;
}

int soft_threshold(const float* x, int n, float quantile, float* theta, int32_t* index, float* value) {
  *theta = threshold(x, n, quantile);
  if (!(*theta - *theta == 0)) return *theta = NAN, 0;
  int kept = select(x, n, nextafterf(*theta, INFINITY), index, value);
  for (int i = 0; i < kept; i++) value[i] -= *theta;
  return kept;
}

// ---- attention of one key-value head

template <class T, int G>
void score(const Attention& t, int head0) {
  using W = typename T::W;
  const W* k = static_cast<const W*>(t.k1);
  const W* x[G];
  float* out[G];
  for (int g = 0; g < G; g++) {
    x[g] = static_cast<const W*>(t.q1) + static_cast<size_t>(head0 + g) * t.predictor_dim;
    out[g] = t.scores + static_cast<size_t>(head0 + g) * (t.keys + row_multiple);
  }
  constexpr int block = 4;  // keys whose sums are taken together
  int j = 0;
  for (; j + block <= t.keys; j += block, k += block * t.predictor_dim) {
    typename T::Dot dot[block][G];
    for (auto& row : dot)
      for (auto& each : row) each.clear();
    for (int i = 0; i < t.predictor_dim; i += T::Dot::step)
#pragma GCC unroll 4
      for (int b = 0; b < block; b++) {
        const W* p = k + b * t.predictor_dim + i;
        prefetch(reinterpret_cast<const char*>(p) + ahead_bytes);
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) dot[b][g].take(p, x[g] + i);
      }
    for (int g = 0; g < G; g++)
      sums(dot[0][g].partial(), dot[1][g].partial(), dot[2][g].partial(), dot[3][g].partial(), out[g] + j);
  }
  for (; j < t.keys; j++, k += t.predictor_dim)
    for (int g = 0; g < G; g++) {
      typename T::Dot dot;
      dot.clear();
      for (int i = 0; i < t.predictor_dim; i += T::Dot::step) dot.take(k + i, x[g] + i);
      out[g][j] = dot.total();
    }
}

// exp(cap(s) - max), 0 behind the last; returns the sum.
inline float exponentiate(float* s, int n, float cap) {
  const int end = (n + lanes - 1) / lanes * lanes;
  for (int i = n; i < end; i++) s[i] = -INFINITY;
  if (cap > 0) {
    const float inverse = 1 / cap;
    for (int i = 0; i < n; i += lanes) store(s + i, capped(load(s + i), cap, inverse));
    for (int i = n; i < end; i++) s[i] = -INFINITY;
  }
  F most = set(-INFINITY);
  for (int i = 0; i < end; i += lanes) most = max(most, load(s + i));
  const F top = set(largest(most));
  F total = set(0);
  for (int i = 0; i < end; i += lanes) store(s + i, exponential(sub(load(s + i), top)));
  for (int i = n; i < end; i++) s[i] = 0;
  for (int i = 0; i < end; i += lanes) total = add(total, load(s + i));
  return sum(total);
}

// Softmax attention: out += sum over all keys of weight * value, the rows read once for all heads.
template <class T, int G>
void add_values(const Attention& t, int head0, const float (&scale)[G]) {
  using W = typename T::W;
  constexpr int block = 8;
  const float* s[G];
  float* y[G];
  for (int g = 0; g < G; g++) {
    s[g] = t.scores + static_cast<size_t>(head0 + g) * (t.keys + row_multiple);
    y[g] = t.out + (head0 + g) * t.out_stride;
    for (int i = 0; i < t.head_dim; i += lanes) store(y[g] + i, set(0));
  }
  for (int j = 0; j < t.keys; j += block) {
    const int n = t.keys - j < block ? t.keys - j : block;
    const W* v = static_cast<const W*>(t.k2v) + static_cast<size_t>(j) * t.head_dim;
    for (int i = 0; i < t.head_dim; i += 2 * lanes) {
      F a[G], b[G];
      for (int g = 0; g < G; g++) a[g] = load(y[g] + i), b[g] = load(y[g] + i + lanes);
      for (int k = 0; k < n; k++) {
        const W* p = v + static_cast<size_t>(k) * t.head_dim + i;
        prefetch(reinterpret_cast<const char*>(p) + ahead_bytes);
        const F lo = load(p), hi = load(p + lanes);
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
          const F c = set(s[g][j + k]);
          a[g] = fma(c, lo, a[g]);
          b[g] = fma(c, hi, b[g]);
        }
      }
      for (int g = 0; g < G; g++) store(y[g] + i, a[g]), store(y[g] + i + lanes, b[g]);
    }
  }
  for (int g = 0; g < G; g++)
    for (int i = 0; i < t.head_dim; i += lanes) store(y[g] + i, mul(load(y[g] + i), set(scale[g])));
}

// Spark attention of one query head: choose keys by the first part, then read the second part and the value of those.
template <class T>
int attend_chosen(const Attention& t, int head, float* scores) {
  using W = typename T::W;
  float* y = t.out + head * t.out_stride;
  for (int i = 0; i < t.head_dim; i += lanes) store(y + i, set(0));
  float least = -INFINITY;
  if (t.active < t.keys) {
    const float theta = threshold(scores, t.keys, t.quantile);
    if (!(theta - theta == 0)) {
      for (int i = 0; i < t.head_dim; i++) y[i] = NAN;
      return 0;
    }
    float most = scores[0];
    int j = 0;
    if (t.keys >= lanes) {
      F m = load(scores);
      for (j = lanes; j + lanes <= t.keys; j += lanes) m = max(m, load(scores + j));
      most = largest(m);
    }
    for (; j < t.keys; j++) most = scores[j] > most ? scores[j] : most;
    // The largest always stays.
    least = nextafterf(theta, INFINITY);
    least = least < most ? least : most;
  }
  int kept = select(scores, t.keys, least, t.index, t.values);
  if (kept == 0) {  // only NaN: nothing compares
    for (int i = 0; i < t.head_dim; i++) y[i] = NAN;
    return 0;
  }
  Matrix rows{};
  rows.data = t.k2v;
  rows.stride = t.value_gate_dim + t.head_dim;
  rows.cols = t.value_gate_dim;
  const W* q = static_cast<const W*>(t.q2) + static_cast<size_t>(head) * t.value_gate_dim;
  const size_t bytes = static_cast<size_t>(rows.stride) * sizeof(W);
  constexpr int group = 4;
  for (int i = 0; i < kept && i < rows_ahead; i++) prefetch_row(row_of<T>(rows, t.index[i]), bytes);
  for (int i = 0; i < kept; i += group) {
    typename T::Dot dot[group];
    const W* row[group];
    for (int k = 0; k < group; k++) {
      dot[k].clear();
      row[k] = row_of<T>(rows, t.index[i + k < kept ? i + k : i]);
      if (i + k + rows_ahead < kept) prefetch_row(row_of<T>(rows, t.index[i + k + rows_ahead]), bytes);
    }
    for (int c = 0; c < rows.cols; c += T::Dot::step)
#pragma GCC unroll 4
      for (int k = 0; k < group; k++) dot[k].take(row[k] + c, q + c);
    sums(dot[0].partial(), dot[1].partial(), dot[2].partial(), dot[3].partial(), scores + i);
  }
  const float total = exponentiate(t.values, kept, t.soft_cap);
  for (int i = kept; i < (kept + lanes - 1) / lanes * lanes; i++) scores[i] = 0;
  for (int i = 0; i < kept; i += lanes)
    store(t.values + i, mul(mul(load(t.values + i), set(1 / total)), softplus_of(load(scores + i))));
  rows.data = static_cast<const W*>(t.k2v) + t.value_gate_dim;
  rows.cols = t.head_dim;
  add_some<T>(rows, t.index, t.values, kept, 0, t.head_dim, y);
  return kept;
}

template <class T, int G>
void attend_group(Attention& t, int head0) {
  score<T, G>(t, head0);
  float scale[G] = {};
  for (int g = 0; g < G; g++) {
    float* s = t.scores + static_cast<size_t>(head0 + g) * (t.keys + row_multiple);
    if (t.spark) {
      t.attended += attend_chosen<T>(t, head0 + g, s);
    } else {
      scale[g] = 1 / exponentiate(s, t.keys, t.soft_cap);
      t.attended += t.keys;
    }
  }
  if (!t.spark) add_values<T, G>(t, head0, scale);
}

template <class T>
void attend_as(Attention& t) {
  t.attended = 0;
  int h = 0;
  for (; h + 4 <= t.heads; h += 4) attend_group<T, 4>(t, h);
  for (; h + 2 <= t.heads; h += 2) attend_group<T, 2>(t, h);
  for (; h < t.heads; h++) attend_group<T, 1>(t, h);
}

void attend(Attention& t) { return t.type == f32 ? attend_as<WeightsF32>(t) : attend_as<WeightsBf16>(t); }

uint64_t read_all(const void* data, size_t bytes) {
  constexpr int streams = 4;
  const size_t part = bytes / streams / line_bytes * line_bytes;
  const char* p = static_cast<const char*>(data);
  F s[streams];
  for (auto& each : s) each = set(0);
  for (size_t i = 0; i < part; i += line_bytes)
    for (int k = 0; k < streams; k++) {
      const char* q = p + k * part + i;
      prefetch(q + ahead_bytes);
      for (size_t j = 0; j < line_bytes; j += sizeof(float) * lanes)
        s[k] = max(s[k], load(reinterpret_cast<const float*>(q + j)));
    }
  return static_cast<uint64_t>(sum(max(max(s[0], s[1]), max(s[2], s[3]))) > 0);
}

const Kernels table = {convert,    matmul,   dot_rows,       add_rows, widen_rows, gather,   rms_norm, add_to, gelu,
                       gelu_times, soft_cap, soft_threshold, attend,   read_all};

}  // namespace

namespace tamis {
const Kernels* TAMIS_TABLE() { return &table; }
}  // namespace tamis
