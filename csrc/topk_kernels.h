// The training kernels as a table of functions per instruction set and type. See topk_training.h for what they do.
#pragma once

#include <cstdint>

#include "topk_native.h"

namespace tamis {

// Scratch of one thread, [keys + 1] each: the keys that a query attends, packed.
template <class T>
struct Survivors {
  int32_t* index;
  T *score, *gate, *a, *b;
  int64_t count;
};

// Each works on rows [first, last) of whole arrays.
template <class T>
struct TopkKernels {
  void (*soft_threshold)(const T* x, int64_t first, int64_t last, int64_t n, double quantile, T* y, T* saved);
  void (*soft_threshold_backward)(const T* x, const T* g, const T* saved, int64_t first, int64_t last, int64_t n,
                                  double quantile, T* dx);
  void (*weights)(const tamis_attention_rows& rows, int64_t first, int64_t last, const T* s, const T* u, T* w, T* saved,
                  Survivors<T> scratch);
  void (*weights_backward)(const tamis_attention_rows& rows, int64_t first, int64_t last, const T* s, const T* u,
                           const T* g, const T* saved, T* ds, T* du, Survivors<T> scratch);
};

template <class T>
TopkKernels<T> topk_portable();
template <class T>
TopkKernels<T> topk_avx2();
template <class T>
TopkKernels<T> topk_avx512();

}  // namespace tamis
