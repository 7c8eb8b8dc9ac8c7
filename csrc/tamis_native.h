// The C interface of the native kernels, as src/tamis/native.py and src/tamis/spark/engine.py bind it.
// Nothing here throws, keeps a Python object or needs one; the caller owns every buffer and knows its size.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TAMIS_API __declspec(dllexport)
#else
#define TAMIS_API __attribute__((visibility("default")))
#endif

// Raised with every change of this file, so that a stale library beside newer Python code is noticed.
#define TAMIS_ABI 4

#ifdef __cplusplus
extern "C" {
#endif

TAMIS_API int tamis_abi(void);

// How a call ended. Anything but TAMIS_DONE left nothing behind.
enum {
  TAMIS_DONE = 0,
  TAMIS_NO_MEMORY = 1,
  TAMIS_NO_THREADS = 2,  // the system gives fewer than were asked for
  TAMIS_NO_ISA = 3,
  TAMIS_REFUSED = 4,     // numbers that contradict each other, or lie outside of what they count
  TAMIS_FAILED = 5
};

// Instruction sets are numbered from 0, the portable one, upwards. The name is NULL past the last.
TAMIS_API const char* tamis_isa_name(int isa);
TAMIS_API int tamis_isa_supported(int isa);
TAMIS_API int tamis_isa_best(void);

// ---- decoding (csrc/spark_*.cpp)

// Rows of weights: [rows][stride] elements, of which the first cols (a multiple of 64, zeros at the end) are this matrix.
typedef struct {
  const void* data;
  const float* scale;      // [rows], int8 only: value = scale * int8
  const int32_t* row_sum;  // [rows], int8 only: the sum of a row's int8
  int64_t stride;
  int32_t rows, cols;
  int32_t type;            // 0 float32, 1 bfloat16, 2 int8
  int32_t unused;
} tamis_matrix;

typedef struct {
  int32_t vocabulary, hidden, layers, heads, kv_heads, head_dim, neurons;
  int32_t ffn_spark, ffn_predictor, ffn_active;
  int32_t attention_spark, attention_predictor, attention_active;
  int32_t window;            // of sliding layers
  int32_t context, slots;    // the cache holds `slots` sequences of up to `context` tokens
  int32_t rows;              // most tokens in one step
  int32_t cache_type;        // 0 float32, 1 bfloat16
  float rope_theta, epsilon, attention_cap, final_cap, query_scale, embedding_scale;  // caps: 0 for none
} tamis_spark_config;

typedef struct {
  tamis_matrix qkv;        // query heads, then key heads, then value heads
  tamis_matrix out;
  tamis_matrix gate;       // gated FFN; Spark: the predictor, K1
  tamis_matrix up;         // Spark: K2
  tamis_matrix down;       // gated: [hidden][neurons]; Spark: V by neuron, [neurons][hidden], in the rows of K2
  tamis_matrix rescore;    // K1 once more in a finer type, to score active neurons again; data NULL: none
  const float* norms[4];   // 1 + weight, padded with zeros: before and after attention, before and after the FFN
  int32_t sliding, unused;
} tamis_spark_layer;

typedef struct {
  tamis_matrix embedding;  // as looked up
  tamis_matrix head;       // as multiplied: the same, or coarser
  const float* norm;
  float rescore_margin;    // > 0: logits within this many standard errors of the largest are computed again from
  float head_scale, head_length;  // `embedding`; largest scale and largest row length of an int8 head
} tamis_spark_ends;

// What of a step runs; benchmarks leave parts out.
enum { TAMIS_PROJECTIONS = 1, TAMIS_ATTENTION = 2, TAMIS_FFN = 4, TAMIS_HEAD = 8, TAMIS_EVERYTHING = 15 };

typedef struct {
  int32_t rows;             // tokens; of one slot in rising position
  int32_t parts;
  const int32_t* token;     // [rows]
  const int32_t* slot;      // [rows]
  const int32_t* position;  // [rows]
  int32_t wanted, unused;   // logits of these rows
  const int32_t* wanted_row;
  float* logits;            // [wanted][vocabulary]
  double seconds[5];        // results, of one thread's computing: projections, attention, dense FFN or predictor, gather, vocabulary
  int64_t active, attended; // neurons over rows and layers; keys over rows, layers and query heads
  int64_t rescored;         // logits computed again
} tamis_spark_step_t;

typedef struct tamis_spark tamis_spark;

// NULL unless the status is TAMIS_DONE. Weights are not copied and must outlive the result.
TAMIS_API tamis_spark* tamis_spark_open(const tamis_spark_config*, const tamis_spark_ends*, const tamis_spark_layer*,
                                        int isa, int threads, int spin, int* status);
TAMIS_API void tamis_spark_close(tamis_spark*);
// What each layer adds to the normal quantile of its thresholds: ffn[layers], attention[layers]. 0 unless called.
TAMIS_API void tamis_spark_shift(tamis_spark*, const float* ffn, const float* attention);
TAMIS_API int tamis_spark_step(tamis_spark*, tamis_spark_step_t*);
// Normal-looking keys and values in the whole cache, for benchmarks.
TAMIS_API int tamis_spark_fill_cache(tamis_spark*, uint64_t seed);
// Reads memory with the engine's threads; returns seconds, NaN if it could not.
TAMIS_API double tamis_spark_read(tamis_spark*, const void* data, size_t bytes);

// Single kernels, for tests. x[batch][columns] and y[batch][rows] float32; returns how it ended.
TAMIS_API int tamis_matmul(int isa, const tamis_matrix*, const float* x, int batch, float* y);
// Returns how many x > theta = mean + quantile * std there are, -1 without `isa`. index, value: 64 entries past n.
TAMIS_API int tamis_soft_threshold(int isa, const float* x, int n, float quantile, float* theta, int32_t* index,
                                   float* value);
// Elementwise in place: 0 gelu, 1 soft-cap.
TAMIS_API int tamis_elementwise(int isa, int what, float* x, int n, float parameter);

#ifdef __cplusplus
}
#endif
