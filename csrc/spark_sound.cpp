// What an engine is opened with, and what is asked of it, looked at before anything is computed with it.
#include <algorithm>

#include "spark_engine.h"

namespace tamis {
namespace {

// Sums and paddings of numbers up to here still fit their 32 bits; buffers take products of them apart (`product`).
constexpr int64_t most = int64_t{1} << 28;

bool within(int64_t value, int64_t least, int64_t largest) { return value >= least && value <= largest; }

bool has_shape(const Matrix& m, int64_t rows, int64_t cols) {
  return m.data != nullptr && within(m.type, f32, int8) && m.rows == rows && m.cols == padded(static_cast<int>(cols)) &&
         m.stride >= m.cols && (m.type != int8 || (m.scale != nullptr && m.row_sum != nullptr));
}

// Of a Spark FFN, K2 and V lie side by side in the rows of one matrix, before them K1 if it is there once more.
bool is_spark_ffn(const tamis_spark_config& c, const tamis_spark_layer& layer) {
  const Matrix &up = layer.up, &again = layer.rescore;
  return has_shape(layer.gate, c.neurons, c.ffn_predictor) && has_shape(up, c.neurons, c.hidden - c.ffn_predictor) &&
         has_shape(layer.down, c.neurons, c.hidden) && layer.down.type == up.type && layer.down.stride == up.stride &&
         (again.data == nullptr ||
          (has_shape(again, c.neurons, c.ffn_predictor) && again.type == up.type && again.stride == up.stride));
}

bool is_gated_ffn(const tamis_spark_config& c, const tamis_spark_layer& layer) {
  return has_shape(layer.gate, c.neurons, c.hidden) && has_shape(layer.up, c.neurons, c.hidden) &&
         layer.up.type == layer.gate.type && has_shape(layer.down, c.hidden, c.neurons);
}

}  // namespace

size_t product(std::initializer_list<size_t> sizes) {
  size_t all = 1;
  for (const size_t each : sizes)
    if (__builtin_mul_overflow(all, each, &all)) throw std::bad_alloc();
  return all;
}

bool sound(const tamis_spark_config& c, const tamis_spark_ends& ends, const tamis_spark_layer* layers, int threads) {
  for (const int64_t each : {c.vocabulary, c.hidden, c.layers, c.heads, c.kv_heads, c.neurons, c.context, c.slots, c.rows})
    if (!within(each, 1, most)) return false;
  if (!within(threads, 1, 1 << 16) || !within(c.head_dim, 1, most_head_dim) || c.heads % c.kv_heads != 0) return false;
  const int64_t queries = int64_t{c.heads} * c.head_dim, projected = queries + int64_t{2} * c.kv_heads * c.head_dim;
  if (projected > most || c.window < 1 || !within(c.cache_type, f32, bf16)) return false;
  if (c.ffn_spark && (!within(c.ffn_predictor, 1, c.hidden - 1) || c.ffn_active < 1)) return false;
  if (c.attention_spark && (!within(c.attention_predictor, 1, c.head_dim - 1) || c.attention_active < 1)) return false;
  if (!has_shape(ends.embedding, c.vocabulary, c.hidden) || !has_shape(ends.head, c.vocabulary, c.hidden)) return false;
  if (ends.norm == nullptr) return false;
  return std::all_of(layers, layers + c.layers, [&](const tamis_spark_layer& layer) {
    return has_shape(layer.qkv, projected, c.hidden) && has_shape(layer.out, c.hidden, queries) &&
           std::find(layer.norms, layer.norms + 4, nullptr) == layer.norms + 4 &&
           (c.ffn_spark ? is_spark_ffn(c, layer) : is_gated_ffn(c, layer));
  });
}

bool Engine::accepts(const tamis_spark_step_t& step) {
  const auto& c = config_;
  if (!within(step.rows, 1, c.rows) || !within(step.wanted, 0, c.rows)) return false;
  asking_++;
  for (int b = 0; b < step.rows; b++) {
    if (!within(step.token[b], 0, c.vocabulary - 1) || !within(step.slot[b], 0, c.slots - 1) ||
        !within(step.position[b], 0, c.context - 1))
      return false;
    const int slot = step.slot[b];
    // Room is made for a run of positions (make_room), once a slot.
    if (b > 0 && step.slot[b - 1] == slot) {
      if (step.position[b] != step.position[b - 1] + 1) return false;
    } else if (asked_[slot] == asking_) {
      return false;
    }
    asked_[slot] = asking_;
  }
  return std::all_of(step.wanted_row, step.wanted_row + step.wanted,
                     [&](int32_t row) { return within(row, 0, step.rows - 1); });
}

}  // namespace tamis
