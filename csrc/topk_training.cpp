// The portable training kernels, the choice among the instruction sets, and the threads (see topk_training.h).
#define TAMIS_TOPK_NAMESPACE portable
#include "topk_training.h"

#include <algorithm>
#include <thread>
#include <vector>

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

// Splits rows among threads that live for this call only: training calls are long, and nothing spins between them.
template <class Work>
void in_threads(int64_t rows, int64_t row_size, int threads, Work work) {
  const int64_t worth = rows * row_size / (1 << 18);  // below 0.1 ms a thread costs more than it saves
  const int64_t n = std::max<int64_t>(1, std::min<int64_t>({threads, worth, rows}));
  std::vector<std::thread> others;
  for (int64_t t = 1; t < n; t++) others.emplace_back(work, rows * t / n, rows * (t + 1) / n);
  work(int64_t{0}, rows / n);
  for (auto& other : others) other.join();
}

template <class T>
struct Scratch {
  std::vector<int32_t> index;
  std::vector<T> values;
  int64_t size;
  explicit Scratch(int64_t keys) : index(keys + 1), values(4 * (keys + 1)), size(keys + 1) {}
  Survivors<T> survivors() {
    T* v = values.data();
    return {index.data(), v, v + size, v + 2 * size, v + 3 * size, 0};
  }
};

}  // namespace
}  // namespace tamis

#define TAMIS_TOPK_DEFINE(T, name)                                                                                      \
  void tamis_soft_threshold_##name(int isa, const T* x, int64_t rows, int64_t n, double quantile, T* y, T* saved,       \
                                   int threads) {                                                                       \
    const auto run = tamis::kernels<T>(isa).soft_threshold;                                                             \
    tamis::in_threads(rows, n, threads,                                                                                 \
                      [=](int64_t first, int64_t last) { run(x, first, last, n, quantile, y, saved); });                \
  }                                                                                                                     \
  void tamis_soft_threshold_backward_##name(int isa, const T* x, const T* g, const T* saved, int64_t rows, int64_t n,   \
                                            double quantile, T* dx, int threads) {                                      \
    const auto run = tamis::kernels<T>(isa).soft_threshold_backward;                                                    \
    tamis::in_threads(rows, n, threads,                                                                                 \
                      [=](int64_t first, int64_t last) { run(x, g, saved, first, last, n, quantile, dx); });            \
  }                                                                                                                     \
  void tamis_attention_weights_##name(int isa, const tamis_attention_rows* rows, const T* s, const T* u, T* w,          \
                                      T* saved, int threads) {                                                          \
    const auto run = tamis::kernels<T>(isa).weights;                                                                    \
    tamis::in_threads(rows->rows, rows->keys, threads, [=](int64_t first, int64_t last) {                               \
      tamis::Scratch<T> scratch(rows->keys);                                                                            \
      run(*rows, first, last, s, u, w, saved, scratch.survivors());                                                     \
    });                                                                                                                 \
  }                                                                                                                     \
  void tamis_attention_weights_backward_##name(int isa, const tamis_attention_rows* rows, const T* s, const T* u,       \
                                               const T* g, const T* saved, T* ds, T* du, int threads) {                 \
    const auto run = tamis::kernels<T>(isa).weights_backward;                                                           \
    tamis::in_threads(rows->rows, rows->keys, threads, [=](int64_t first, int64_t last) {                               \
      tamis::Scratch<T> scratch(rows->keys);                                                                            \
      run(*rows, first, last, s, u, g, saved, ds, du, scratch.survivors());                                             \
    });                                                                                                                 \
  }

extern "C" {
TAMIS_TOPK_DEFINE(float, f32)
TAMIS_TOPK_DEFINE(double, f64)
}
