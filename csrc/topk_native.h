// The C interface of the training kernels, as src/tamis/spark/topk_native.py binds it. float32 and float64.
// Row by row, contiguous; the caller owns every buffer and checks every shape. Nothing throws; each returns how it ended
// (tamis_native.h). With fewer threads than were asked for the results are the same.
#pragma once

#include <stdint.h>

#include "tamis_native.h"

#ifdef __cplusplus
extern "C" {
#endif

// Scores [rows][keys] of queries that see a range of keys: row r is query r % queries, whose own key is number
// r % queries + offset; it sees that and the earlier ones, `window` in all (0: all of them).
typedef struct {
  int64_t rows, queries, keys, offset, window;
  int64_t active;           // k of the statistical top-k; 0: no threshold
  double cap;               // soft-cap of the scores; 0: none
  const double* quantiles;  // [keys + 1], of 1 - k/n for n visible keys
} tamis_attention_rows;

#define TAMIS_TOPK_API(T, name)                                                                                         \
  TAMIS_API int tamis_soft_threshold_##name(int isa, const T* x, int64_t rows, int64_t n, double quantile, T* y,        \
                                            T* saved /* [rows][2] */, int threads);                                     \
  TAMIS_API int tamis_soft_threshold_backward_##name(int isa, const T* x, const T* g, const T* saved, int64_t rows,     \
                                                     int64_t n, double quantile, T* dx, int threads);                   \
  TAMIS_API int tamis_attention_weights_##name(int isa, const tamis_attention_rows* rows, const T* s,                   \
                                               const T* u /* or NULL: no gate */, T* w, T* saved /* [rows][3] */,       \
                                               int threads);                                                            \
  TAMIS_API int tamis_attention_weights_backward_##name(int isa, const tamis_attention_rows* rows, const T* s,          \
                                                        const T* u, const T* g, const T* saved, T* ds,                  \
                                                         T* du /* or NULL */, int threads);

TAMIS_TOPK_API(float, f32)
TAMIS_TOPK_API(double, f64)

#ifdef __cplusplus
}
#endif
