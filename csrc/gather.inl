// The active neurons of a Spark FFN: of [K2 | V], the rows that the predictor chose.

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
