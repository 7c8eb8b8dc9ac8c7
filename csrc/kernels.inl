// The loops themselves, written once over the lanes (F), dot products (DotBf16, DotInt8) and tile sizes of the including
// file. Everything here is local to it.

namespace {

using namespace tamis;

// Ahead of a stream of rows: far enough to hide memory's latency. 1.3 x over none (LOG.md).
constexpr size_t ahead_bytes = 4096;
constexpr size_t line_bytes = 64;
constexpr int rows_ahead = 16;  // of gathered rows

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

inline void prefetch_row(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += line_bytes) prefetch(static_cast<const char*>(p) + i);
}

struct DotF32 {
  F a;
  static constexpr int step = lanes;
  void clear() { a = set(0); }
  void take(const float* w, const float* x) { a = fma(::load(w), ::load(x), a); }
  F partial() const { return a; }
  float total() const { return ::sum(a); }
};

struct WeightsF32 {
  using W = float;
  using X = float;
  using Dot = DotF32;
  static float finish(const Matrix&, int, float total, float) { return total; }
  static float scale(const Matrix&, int) { return 1; }
  static void fetch_scale(const Matrix&, int) {}
};
struct WeightsBf16 {
  using W = uint16_t;
  using X = uint16_t;
  using Dot = DotBf16;
  static float finish(const Matrix&, int, float total, float) { return total; }
  static float scale(const Matrix&, int) { return 1; }
  static void fetch_scale(const Matrix&, int) {}
};
struct WeightsInt8 {
  using W = int8_t;
  using X = uint8_t;
  using Dot = DotInt8;
  static float finish(const Matrix& m, int row, int32_t total, float x_scale) {
    return static_cast<float>(total - 128 * m.row_sum[row]) * m.scale[row] * x_scale;
  }
  static float scale(const Matrix& m, int row) { return m.scale[row]; }
  // Scales of chosen rows lie far apart: asked for late, each is waited for.
  static void fetch_scale(const Matrix& m, int row) {
    prefetch(m.scale + row);
    prefetch(m.row_sum + row);
  }
};

template <class T>
const typename T::W* row_of(const Matrix& m, int row) {
  return static_cast<const typename T::W*>(m.data) + static_cast<size_t>(row) * m.stride;
}

#include "elementwise.inl"
#include "products.inl"
#include "topk.inl"
#include "gather.inl"
#include "attention.inl"

uint64_t read_all(const void* data, size_t bytes) {
  constexpr size_t chains = 4;  // lines whose sums do not wait for each other
  const char* p = static_cast<const char*>(data);
  F s[chains];
  for (auto& each : s) each = set(0);
  for (size_t i = 0; i + chains * line_bytes <= bytes; i += chains * line_bytes)
    for (size_t k = 0; k < chains; k++) {
      const char* line = p + i + k * line_bytes;
      prefetch(line + ahead_bytes);
      for (size_t j = 0; j < line_bytes; j += sizeof(float) * lanes)
        s[k] = max(s[k], load(reinterpret_cast<const float*>(line + j)));
    }
  return static_cast<uint64_t>(sum(max(max(s[0], s[1]), max(s[2], s[3]))) > 0);
}

const Kernels table = {convert,    matmul,   dot_rows,       add_rows, widen_rows, gather,   rms_norm, add_to, gelu,
                       gelu_times, soft_cap, soft_threshold, attend,   read_all};

}  // namespace

namespace tamis {
const Kernels* TAMIS_TABLE() { return &table; }
}  // namespace tamis
