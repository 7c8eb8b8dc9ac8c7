// Attention of one key-value head over its cache.

constexpr int value_block = 8;   // values that are added between two visits of the sum
constexpr int chosen_group = 8;  // chosen rows that are read side by side

inline float* of_head(float* scratch, const Attention& t, int head) {
  return scratch + static_cast<size_t>(head) * (t.keys + row_multiple);
}

// Scores of all keys, for G heads. Line after line in the order of memory: the processor's own prefetching follows that, and
// not rows side by side.
template <class T, int G>
void score(const Attention& t, int head0) {
  using W = typename T::W;
  const W* k = static_cast<const W*>(t.k1);
  const W* x[G];
  float* out[G];
  for (int g = 0; g < G; g++) {
    x[g] = static_cast<const W*>(t.q1) + static_cast<size_t>(head0 + g) * t.predictor_dim;
    out[g] = of_head(t.scores, t, head0 + g);
  }
  const auto take = [&](typename T::Dot(&dot)[G]) {
    for (auto& each : dot) each.clear();
    for (int i = 0; i < t.predictor_dim; i += T::Dot::step) {
      prefetch(reinterpret_cast<const char*>(k + i) + ahead_bytes);
#pragma GCC unroll 4
      for (int g = 0; g < G; g++) dot[g].take(k + i, x[g] + i);
    }
    k += t.predictor_dim;
  };
  constexpr int block = 4;  // keys whose sums are taken together
  int j = 0;
  for (; j + block <= t.keys; j += block) {
    typename T::Dot dot[block][G];
#pragma GCC unroll 4
    for (auto& row : dot) take(row);
    for (int g = 0; g < G; g++)
      sums(dot[0][g].partial(), dot[1][g].partial(), dot[2][g].partial(), dot[3][g].partial(), out[g] + j);
  }
  for (; j < t.keys; j++) {
    typename T::Dot dot[G];
    take(dot);
    for (int g = 0; g < G; g++) out[g][j] = dot[g].total();
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

// Softmax attention: out = scale * sum over all keys of weight * value, the rows read once for all heads.
template <class T, int G>
void add_values(const Attention& t, int head0, const float (&scale)[G]) {
  using W = typename T::W;
  const float* s[G];
  float* y[G];
  for (int g = 0; g < G; g++) {
    s[g] = of_head(t.scores, t, head0 + g);
    y[g] = t.out + (head0 + g) * t.out_stride;
    for (int i = 0; i < t.head_dim; i += lanes) store(y[g] + i, set(0));
  }
  for (int j = 0; j < t.keys; j += value_block) {
    const int n = t.keys - j < value_block ? t.keys - j : value_block;
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

// The keys that a head chooses by the first part of its query: into index, and exp(score) into values. Returns how many, 0
// where scores are NaN or a threshold of them is not finite; their sum through total.
inline int choose(const Attention& t, const float* scores, int32_t* index, float* values, float* total) {
  float least = -INFINITY;
  if (t.active < t.keys) {
    const float theta = threshold(scores, t.keys, t.quantile);
    if (!(theta - theta == 0)) return 0;
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
  const int kept = select(scores, t.keys, least, index, values);
  if (t.active >= t.keys && kept < t.keys) return 0;  // all were to be kept, and NaN compares with nothing
  *total = exponentiate(values, kept, t.soft_cap);
  return kept;
}

// Of the chosen keys the second part and the value: y = sum of weight * softplus(second part . q) * value / total. `then` are
// the rows that are needed next, by another head.
template <class T>
void add_chosen(const Attention& t, int head, const int32_t* index, const float* values, int kept, float total,
                const int32_t* then, int then_kept) {
  using W = typename T::W;
  constexpr int group = chosen_group, per_line = line_bytes / sizeof(W);
  const size_t stride = t.value_gate_dim + t.head_dim;
  const W* rows = static_cast<const W*>(t.k2v);
  const W* q = static_cast<const W*>(t.q2) + static_cast<size_t>(head) * t.value_gate_dim;
  float* y = t.out + head * t.out_stride;
  for (int i = 0; i < t.head_dim; i += lanes) store(y + i, set(0));
  for (int i = 0; i < kept; i += group) {
    const W *row[group], *next[group];
    for (int j = 0; j < group; j++) {
      const int at = i + j < kept ? i + j : i, after = i + group + j;
      row[j] = rows + index[at] * stride;
      next[j] = after < kept                ? rows + index[after] * stride
                : after - kept < then_kept ? rows + then[after - kept] * stride
                                           : row[j];
    }
    typename T::Dot dot[group];
    for (auto& each : dot) each.clear();
    for (int c = 0; c < t.value_gate_dim; c += per_line)
#pragma GCC unroll 8
      for (int j = 0; j < group; j++) {
        prefetch(next[j] + c);
        for (int k = 0; k < per_line; k += T::Dot::step) dot[j].take(row[j] + c + k, q + c + k);
      }
    alignas(64) float weight[group > lanes ? group : lanes] = {};
    for (int j = 0; j < group; j += 4)
      sums(dot[j].partial(), dot[j + 1].partial(), dot[j + 2].partial(), dot[j + 3].partial(), weight + j);
    for (int j = 0; j < group; j += lanes) store(weight + j, softplus_of(load(weight + j)));
    for (int j = 0; j < group; j++) weight[j] = i + j < kept ? weight[j] * values[i + j] : 0;
    for (int c = 0; c < t.head_dim; c += per_line) {
      const W* const* at = row;
#pragma GCC unroll 8
      for (int j = 0; j < group; j++) prefetch(next[j] + t.value_gate_dim + c);
#pragma GCC unroll 4
      for (int k = 0; k < per_line; k += lanes) {
        F s = load(y + c + k);
#pragma GCC unroll 8
        for (int j = 0; j < group; j++) s = fma(set(weight[j]), load(at[j] + t.value_gate_dim + c + k), s);
        store(y + c + k, s);
      }
    }
  }
  // Nothing chosen: scores that are not finite.
  const F scale = set(kept > 0 ? 1 / total : NAN);
  for (int i = 0; i < t.head_dim; i += lanes) store(y + i, mul(load(y + i), scale));
}

template <class T, int G>
void attend_group(Attention& t, int head0) {
  score<T, G>(t, head0);
  if (!t.spark) {
    float scale[G];
    for (int g = 0; g < G; g++) scale[g] = 1 / exponentiate(of_head(t.scores, t, head0 + g), t.keys, t.soft_cap);
    t.attended += static_cast<int64_t>(G) * t.keys;
    return add_values<T, G>(t, head0, scale);
  }
  int kept[G + 1] = {};
  float total[G];
  const size_t row_bytes = sizeof(typename T::W) * (t.value_gate_dim + t.head_dim);
  for (int g = 0; g < G; g++) {
    int32_t* index = t.index + static_cast<size_t>(g) * (t.keys + row_multiple);
    kept[g] = choose(t, of_head(t.scores, t, head0 + g), index, of_head(t.values, t, g), &total[g]);
    t.attended += kept[g];
    for (int i = 0; g == 0 && i < chosen_group && i < kept[0]; i++)
      prefetch_row(static_cast<const char*>(t.k2v) + index[i] * row_bytes, row_bytes);
  }
  for (int g = 0; g < G; g++) {
    const int32_t* index = t.index + static_cast<size_t>(g) * (t.keys + row_multiple);
    add_chosen<T>(t, head0 + g, index, of_head(t.values, t, g), kept[g], total[g], index + t.keys + row_multiple,
                  kept[g + 1]);
  }
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
