// The active neurons of a Spark FFN: of [K2 | V], the rows that the predictor chose.

// Eight neurons side by side: the processor's own prefetching follows that many streams, and reads faster than with four.
// While one group is computed, the next one's rows are asked for line by line: a burst of some hundred prefetches would
// fill the queue of misses and stop everything behind it.
template <class T>
void gather_some(const Matrix& up, const Matrix& down, const Matrix* again, const int32_t* index, const float* gate,
                 int count, int ahead, const void* x, const void* x_again, float x_scale, float theta, float* y) {
  constexpr int group = gather_group, per_line = line_bytes / sizeof(typename T::W);
  using Dot = typename T::Dot;
  const typename T::X* v = static_cast<const typename T::X*>(x);
  const ptrdiff_t to_v = static_cast<const typename T::W*>(down.data) - static_cast<const typename T::W*>(up.data);
  for (int i = 0; i < group && i < count; i++) T::fetch_scale(up, index[i]), T::fetch_scale(down, index[i]);
  for (int i = 0; i < count; i += group) {
    const int n = count - i < group ? count - i : group;
    const typename T::W *k2[group], *next[group];
    float weight[group] = {};
    for (int j = 0; j < group; j++) {
      const int at = i + j < count ? i + j : i, then = i + group + j < count + ahead ? i + group + j : at;
      k2[j] = row_of<T>(up, index[at]);
      next[j] = row_of<T>(up, index[then]);
      T::fetch_scale(up, index[then]);
      T::fetch_scale(down, index[then]);
    }
    Dot dot[group];
    float gates[group] = {};
    if (again != nullptr) {
      const typename T::X* v1 = static_cast<const typename T::X*>(x_again);
      const ptrdiff_t to_k1 = static_cast<const typename T::W*>(again->data) - static_cast<const typename T::W*>(up.data);
      for (auto& each : dot) each.clear();
      for (int c = 0; c < again->cols; c += per_line)
#pragma GCC unroll 8
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
#pragma GCC unroll 8
      for (int j = 0; j < group; j++) {
        prefetch(next[j] + c);
        for (int k = 0; k < per_line; k += Dot::step) dot[j].take(k2[j] + c + k, v + c + k);
      }
    for (int j = 0; j < n; j++)
      weight[j] = gates[j] * T::finish(up, index[i + j], dot[j].total(), x_scale) * T::scale(down, index[i + j]);
    for (int c = 0; c < down.cols; c += per_line) {
      const ptrdiff_t o = to_v + c;
#pragma GCC unroll 8
      for (int j = 0; j < group; j++) prefetch(next[j] + o);
#pragma GCC unroll 4
      for (int k = 0; k < per_line; k += lanes) {
        F s = load(y + c + k);
#pragma GCC unroll 8
        for (int j = 0; j < group; j++) s = fma(set(weight[j]), load(k2[j] + o + k), s);
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
