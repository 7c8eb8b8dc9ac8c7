// Products of rows of weights with vectors, of all rows or of chosen ones.

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

// One vector: row after row, in the order of memory. The processor's own prefetching follows one stream best; four rows far
// apart were a tenth slower (LOG.md).
template <class T>
void multiply_one(const Matrix& m, int row0, int row1, const Activations& x, float* y) {
  const typename T::X* const v[1] = {static_cast<const typename T::X*>(x.data)};
  for (int r = row0; r < row1; r++) {
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
