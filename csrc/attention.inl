// Attention of one key-value head over its cache.

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
