// Statistical top-k: mean + quantile * standard deviation, and what lies above it.

// mean + quantile * biased standard deviation, in two passes; NaN if any x is not finite.
inline float threshold(const float* x, int n, float quantile) {
  // Four sums at a time: one alone would wait for itself.
  constexpr int chains = 4;
  const int whole = n - n % (chains * lanes);
  F s[chains], squares[chains];
  for (int c = 0; c < chains; c++) s[c] = squares[c] = set(0);
  for (int i = 0; i < whole; i += chains * lanes)
    for (int c = 0; c < chains; c++) s[c] = add(s[c], load(x + i + c * lanes));
  double total = static_cast<double>(sum(add(add(s[0], s[1]), add(s[2], s[3]))));
  for (int i = whole; i < n; i++) total += static_cast<double>(x[i]);
  const float mean = static_cast<float>(total / n);
  for (int i = 0; i < whole; i += chains * lanes)
    for (int c = 0; c < chains; c++) {
      const F d = sub(load(x + i + c * lanes), set(mean));
      squares[c] = fma(d, d, squares[c]);
    }
  double variance = static_cast<double>(sum(add(add(squares[0], squares[1]), add(squares[2], squares[3]))));
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
  const float cut = *theta = threshold(x, n, quantile);
  if (!(cut - cut == 0)) return *theta = NAN, 0;
  const int kept = select(x, n, nextafterf(cut, INFINITY), index, value);
  for (int i = 0; i < kept; i += lanes) store(value + i, sub(load(value + i), set(cut)));
  return kept;
}
