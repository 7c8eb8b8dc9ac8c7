// The portable training kernels, the choice among the instruction sets, and the threads (see topk_training.h).
#define TAMIS_TOPK_NAMESPACE portable
#include "topk_training.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "boundary.h"
#include "dispatch.h"

TAMIS_TOPK_TABLE(float, portable)
TAMIS_TOPK_TABLE(double, portable)

namespace tamis {
namespace {

template <class T>
TopkKernels<T> kernels(int isa) {
#ifdef TAMIS_HAS_AVX512
  if (isa >= static_cast<int>(Isa::avx512)) return topk_avx512<T>();
#endif
#ifdef TAMIS_HAS_AVX2
  if (isa >= static_cast<int>(Isa::avx2)) return topk_avx2<T>();
#endif
  (void)isa;
  return topk_portable<T>();
}

// Rows of one thread are worth as much as it costs: below 0.1 ms it costs more than it saves.
int64_t worthwhile(int64_t rows, int64_t row_size, int threads) {
  return std::max<int64_t>(1, std::min<int64_t>({threads, rows * row_size / (1 << 18), rows}));
}

// Splits rows into n shares, one a thread; threads live for this call only: training calls are long, and nothing spins
// between them. work(share, first, last) does not throw. A share for which the system gives no thread is done here.
template <class Work>
void in_threads(int64_t rows, int64_t n, Work work) {
  const auto share = [=](int64_t t) { work(t, rows * t / n, rows * (t + 1) / n); };
  std::vector<std::thread> others;
  others.reserve(n - 1);
  int64_t begun = 1;
  try {
    for (; begun < n; begun++) others.emplace_back(share, begun);
  } catch (...) {
  }
  share(0);
  for (int64_t t = begun; t < n; t++) share(t);
  for (auto& other : others) other.join();
}

// Of n threads, made before any of them begins.
template <class T>
struct Scratch {
  int64_t size;
  std::vector<int32_t> index;
  std::vector<T> values;
  Scratch(int64_t n, int64_t keys) : size(keys + 1), index(n * size), values(4 * n * size) {}
  Survivors<T> of(int64_t share) {
    T* v = values.data() + 4 * share * size;
    return {index.data() + share * size, v, v + size, v + 2 * size, v + 3 * size, 0};
  }
};

}  // namespace
}  // namespace tamis

#define TAMIS_TOPK_DEFINE(T, name)                                                                                      \
  int tamis_soft_threshold_##name(int isa, const T* x, int64_t rows, int64_t n, double quantile, T* y, T* saved,        \
                                  int threads) {                                                                        \
    if (!tamis::isa_supported(isa)) return TAMIS_NO_ISA;                                                                \
    const auto run = tamis::kernels<T>(isa).soft_threshold;                                                             \
    return tamis::guarded([=] {                                                                                         \
      tamis::in_threads(rows, tamis::worthwhile(rows, n, threads), [=](int64_t, int64_t first, int64_t last) {          \
        run(x, first, last, n, quantile, y, saved);                                                                     \
      });                                                                                                               \
    });                                                                                                                 \
  }                                                                                                                     \
  int tamis_soft_threshold_backward_##name(int isa, const T* x, const T* g, const T* saved, int64_t rows, int64_t n,    \
                                           double quantile, T* dx, int threads) {                                       \
    if (!tamis::isa_supported(isa)) return TAMIS_NO_ISA;                                                                \
    const auto run = tamis::kernels<T>(isa).soft_threshold_backward;                                                    \
    return tamis::guarded([=] {                                                                                         \
      tamis::in_threads(rows, tamis::worthwhile(rows, n, threads), [=](int64_t, int64_t first, int64_t last) {          \
        run(x, g, saved, first, last, n, quantile, dx);                                                                 \
      });                                                                                                               \
    });                                                                                                                 \
  }                                                                                                                     \
  int tamis_attention_weights_##name(int isa, const tamis_attention_rows* rows, const T* s, const T* u, T* w,           \
                                     T* saved, int threads) {                                                           \
    if (!tamis::isa_supported(isa)) return TAMIS_NO_ISA;                                                                \
    const auto run = tamis::kernels<T>(isa).weights;                                                                    \
    return tamis::guarded([=] {                                                                                         \
      const int64_t n = tamis::worthwhile(rows->rows, rows->keys, threads);                                             \
      tamis::Scratch<T> scratch(n, rows->keys);                                                                         \
      tamis::in_threads(rows->rows, n, [=, &scratch](int64_t share, int64_t first, int64_t last) {                      \
        run(*rows, first, last, s, u, w, saved, scratch.of(share));                                                     \
      });                                                                                                               \
    });                                                                                                                 \
  }                                                                                                                     \
  int tamis_attention_weights_backward_##name(int isa, const tamis_attention_rows* rows, const T* s, const T* u,        \
                                              const T* g, const T* saved, T* ds, T* du, int threads) {                  \
    if (!tamis::isa_supported(isa)) return TAMIS_NO_ISA;                                                                \
    const auto run = tamis::kernels<T>(isa).weights_backward;                                                           \
    return tamis::guarded([=] {                                                                                         \
      const int64_t n = tamis::worthwhile(rows->rows, rows->keys, threads);                                             \
      tamis::Scratch<T> scratch(n, rows->keys);                                                                         \
      tamis::in_threads(rows->rows, n, [=, &scratch](int64_t share, int64_t first, int64_t last) {                      \
        run(*rows, first, last, s, u, g, saved, ds, du, scratch.of(share));                                             \
      });                                                                                                               \
    });                                                                                                                 \
  }

extern "C" {
TAMIS_TOPK_DEFINE(float, f32)
TAMIS_TOPK_DEFINE(double, f64)
}
