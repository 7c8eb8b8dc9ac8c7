// The inner loops of decoding, one table of functions per instruction set.
//
// Weights lie row by row (a row is an output neuron), every row padded with zeros to a multiple of 64 elements and at any
// alignment. Activations are converted to the type of the weights that they meet, on every path the same: float32 as it
// is, bfloat16 rounded to nearest even, int8 by one scale per vector and an offset of 128 (the row sum takes it off again).
// A value that is not finite makes the scale, and with it every result, NaN.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "tamis_native.h"

namespace tamis {

enum Type : int32_t { f32 = 0, bf16 = 1, int8 = 2 };

constexpr int row_multiple = 64;  // elements; 64 int8 are one cache line
constexpr int padded(int n) { return (n + row_multiple - 1) / row_multiple * row_multiple; }
constexpr int gather_group = 8;   // active neurons that are read side by side
constexpr size_t bytes_of(int type) { return type == f32 ? 4 : type == bf16 ? 2 : 1; }

using Matrix = tamis_matrix;

// One or several vectors in the type of the weights they will meet.
struct Activations {
  const void* data;     // [batch][stride]
  size_t stride;        // elements
  const float* scale;   // [batch], 1 unless int8
  int batch;
};

// One key-value head, its query heads, the keys a query may see.
struct Attention {
  int32_t type;            // of queries, keys and values: f32 or bf16
  int32_t keys;            // visible ones
  int32_t heads;           // query heads that share this cache, 1 to 4 at a time
  int32_t predictor_dim;   // padded; softmax attention: the whole head
  int32_t value_gate_dim;  // padded; softmax attention: 0
  int32_t head_dim;        // of the values, padded
  const void* k1;          // [keys][predictor_dim]
  const void* k2v;         // [keys][value_gate_dim + head_dim]
  const void* q1;          // [heads][predictor_dim], scaled
  const void* q2;          // [heads][value_gate_dim], scaled
  float soft_cap;          // 0: none
  float quantile;          // of the statistical top-k; unused where active >= keys
  int32_t active;          // k; keys or more: no mask
  int32_t spark;
  float* out;              // [heads][out_stride]
  size_t out_stride;
  float* scores;           // scratch [heads][keys + 64]
  float* values;           // scratch [heads][keys + 64]
  int32_t* index;          // scratch [heads][keys + 64]
  int64_t attended;        // result: keys kept, summed over heads
};

struct Kernels {
  // x[n] to `type`; n padded, the padding finite. Returns through scale.
  void (*convert)(int type, const float* x, int n, void* out, float* scale);
  // y[b][row] for row in [row0, row1): the product of rows with every vector.
  void (*matmul)(const Matrix& m, int row0, int row1, const Activations& x, float* y, size_t y_stride);
  // out[i] = row index[i] times x (one vector).
  void (*dot_rows)(const Matrix& m, const int32_t* index, int count, const void* x, float x_scale, float* out);
  // y[column0 + j] += sum_i weight[i] * row index[i][column0 + j], j < columns, a multiple of 64.
  void (*add_rows)(const Matrix& m, const int32_t* index, const float* weight, int count, int column0, int columns,
                   float* y);
  // Rows [row0, row1) of some columns as float32: out[row - row0][out_stride].
  void (*widen_rows)(const Matrix& m, int row0, int row1, int column0, int columns, float* out, size_t out_stride);
  // Spark FFN of one token: y += sum over active neurons of gate[i] * (up row . x) * down row. `index` may be read
  // (for prefetching) up to `ahead` entries past count. With rows of `again` (of the type of `up`, just before it in
  // memory), gate is not read: it is gelu(max(0, again row . x_again - theta)).
  void (*gather)(const Matrix& up, const Matrix& down, const Matrix* again, const int32_t* index, const float* gate,
                 int count, int ahead, const void* x, const void* x_again, float x_scale, float theta, float* y);
  void (*rms_norm)(const float* x, const float* weight, int n, int n_padded, float epsilon, float* out);
  void (*add)(float* y, const float* x, int n);
  void (*gelu)(float* x, int n);                           // tanh form
  void (*gelu_times)(float* gate, const float* up, int n);
  void (*soft_cap)(float* x, int n, float cap);
  // Statistical top-k, soft threshold: index and x - theta of every x > theta. Returns their number; theta is NaN (and
  // the number 0) if any x is not finite. Scratch behind index and value: 16 entries past n.
  int (*soft_threshold)(const float* x, int n, float quantile, float* theta, int32_t* index, float* value);
  void (*attend)(Attention& task);
  uint64_t (*read)(const void* data, size_t bytes);        // a plain read, for comparison
};

const Kernels* kernels(int isa);

#define TAMIS_KERNELS(name) const Kernels* kernels_##name()
TAMIS_KERNELS(portable);
TAMIS_KERNELS(avx2);
TAMIS_KERNELS(avx512);
TAMIS_KERNELS(avx512_bf16);

}  // namespace tamis
