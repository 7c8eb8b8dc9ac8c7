// Activation functions, norms and conversions, number by number.

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

// x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form without a tanh. The exponential ends at e^88: 6e-39 |x|
// stay of numbers far below 0, which shows from -1e30 on, and -inf stays what it is.
inline F gelu_of(F x) {
  F u2 = mul(x, fma(mul(x, x), set(2 * 0.7978845608f * 0.044715f), set(2 * 0.7978845608f)));
  return div(x, add(set(1), exponential(sub(set(0), u2))));
}

// cap * tanh(x / cap) = cap - 2 cap / (exp(2 x / cap) + 1); small |x| by the series, where the difference would cancel.
// Finite x of any size end at +-cap. What is not finite becomes NaN: tanh would make a number of it, and hide it.
inline F capped(F x, float cap, float inverse) {
  F y = mul(x, set(inverse)), y2 = min(set(1), mul(y, y));  // far out the series only has to stay finite
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

// n_padded values are read and written; those past n are 0 and stay 0. Squares that overflow give NaN: 1/inf would make
// zeros of large numbers.
void rms_norm(const float* x, const float* weight, int n, int n_padded, float epsilon, float* out) {
  F a = set(0), b = set(0);
  for (int i = 0; i < n_padded; i += 2 * lanes) {
    F p = load(x + i), q = load(x + i + lanes);
    a = fma(p, p, a);
    b = fma(q, q, b);
  }
  const double squares = static_cast<double>(sum(add(a, b)));
  F scale = set(squares < INFINITY ? static_cast<float>(1 / sqrt(squares / n + static_cast<double>(epsilon))) : NAN);
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
