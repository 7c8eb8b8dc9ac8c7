// Statistical top-k: mean + quantile * standard deviation, and what lies above it.

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
