// The attention block of a layer, and the cached keys and values.
#include <math.h>
#include <string.h>

#include <algorithm>

#include "spark_engine.h"

namespace tamis {

void Engine::attention_block(Walk& walk, int i) {
  const auto& layer = layers_[i];
  const bool projects = step_->parts & TAMIS_PROJECTIONS, attends = step_->parts & TAMIS_ATTENTION;
  if (projects) {
    own_rows(walk, rows_, [&](int b) {
      normalise(walk, residual(walk, b), layer.norms[0], b);
      prepare(walk, 0, layer.qkv.type, rows_, b, normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
    });
    meet_if_several();
    project(walk, layer.qkv, 0, qkv_out_.as<float>(), qkv_);
    pool_.meet();
    end_lap(walk, projections);
  }
  if (attends) {
    // One task a key-value head, or a query head where that leaves threads without work.
    const bool apart = rows_ * config_.kv_heads < pool_.size() && group_ > 1;
    const int heads = apart ? 1 : group_;
    const bool ahead = rows_ > 1 || apart;
    if (ahead) {
      own_rows(walk, rows_, [&](int b) {
        if (rows_ == 1 && walk.thread != 0) return;
        for (int h = 0; h < config_.kv_heads; h++) store_keys(i, b, h);
        turn_queries(b, 0, config_.heads);
      });
      pool_.meet();
    }
    const int tasks = rows_ * config_.heads / heads, tasks_a_row = config_.heads / heads;
    Dealer& deal = dealer(walk);
    for (int first, last; deal.deal(tasks, 1, 1, pool_.size(), first, last);) {
      const int b = first / tasks_a_row, h = first % tasks_a_row * heads;
      if (!ahead) {
        store_keys(i, b, h / group_);
        turn_queries(b, h, heads);
      }
      attend(walk, i, b, h, heads);
    }
    pool_.meet();
    end_lap(walk, attention);
  }
  if (projects) {
    own_rows(walk, rows_, [&](int b) {
      prepare(walk, 0, layer.out.type, rows_, b, attended_.as<float>() + static_cast<size_t>(b) * out_, out_);
    });
    meet_if_several();
    project(walk, layer.out, 0, projected_.as<float>(), hidden_);
    pool_.meet();
    own_rows(walk, rows_, [&](int b) {
      normalise(walk, projected_.as<float>() + static_cast<size_t>(b) * hidden_, layer.norms[1], b);
      kernels_->add(residual(walk, b), normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
    });
    end_lap(walk, projections);
  }
}

void Engine::turn(const float* x, int row, float* first, float* second, float scale_first, float scale_second) const {
  const float* cosine = turns_.as<float>() + static_cast<size_t>(row) * 2 * config_.head_dim;
  const float* sine = cosine + config_.head_dim;
  for (int part = 0; part < (gate_dim_ > 0 ? 2 : 1); part++) {
    const int half = (part == 0 ? part_ : config_.head_dim - part_) / 2;
    float* out = part == 0 ? first : second;
    const float scale = part == 0 ? scale_first : scale_second;
    for (int j = 0; j < half; j++) {
      const float a = x[j], b = x[j + half];
      out[j] = (a * cosine[j] - b * sine[j]) * scale;
      out[j + half] = (b * cosine[j] + a * sine[j]) * scale;
    }
    x += 2 * half, cosine += half, sine += half;
  }
}

void Engine::store_keys(int i, int row, int head) {
  const auto& c = config_;
  const auto [k1, k2v] = cached(i, step_->slot[row], head, step_->position[row]);
  const size_t width = bytes_of(c.cache_type);
  const float* key = qkv_out_.as<float>() + static_cast<size_t>(row) * qkv_ + (c.heads + head) * c.head_dim;
  alignas(64) float first[most_head_dim] = {}, second[most_head_dim] = {};
  float unused;
  turn(key, row, first, second, 1, 1);
  kernels_->convert(c.cache_type, first, predictor_dim_, k1, &unused);
  if (gate_dim_ > 0) kernels_->convert(c.cache_type, second, gate_dim_, k2v, &unused);
  const float* value = key + c.kv_heads * c.head_dim;
  std::fill(first, first + value_dim_, 0.0f);
  std::copy(value, value + c.head_dim, first);
  kernels_->convert(c.cache_type, first, value_dim_, k2v + gate_dim_ * width, &unused);
}

void Engine::turn_queries(int row, int first_head, int heads) {
  const auto& c = config_;
  const size_t width = bytes_of(c.cache_type);
  alignas(64) float first[most_head_dim] = {}, second[most_head_dim] = {};
  float unused;
  const float scale_first = c.attention_spark ? 1 / sqrtf(static_cast<float>(part_)) : c.query_scale;
  const float scale_second = gate_dim_ > 0 ? 1 / sqrtf(static_cast<float>(c.head_dim - part_)) : 0;
  for (int h = first_head; h < first_head + heads; h++) {
    turn(qkv_out_.as<float>() + static_cast<size_t>(row) * qkv_ + h * c.head_dim, row, first, second, scale_first,
         scale_second);
    // [row][all heads' first parts | all heads' second parts]
    char* q = queries_.as<char>() + static_cast<size_t>(row) * c.heads * (predictor_dim_ + gate_dim_) * width;
    kernels_->convert(c.cache_type, first, predictor_dim_, q + static_cast<size_t>(h) * predictor_dim_ * width, &unused);
    if (gate_dim_ > 0)
      kernels_->convert(c.cache_type, second, gate_dim_,
                        q + (static_cast<size_t>(c.heads) * predictor_dim_ + static_cast<size_t>(h) * gate_dim_) * width,
                        &unused);
  }
}

void Engine::attend(Walk& walk, int i, int row, int first_head, int heads) {
  const auto& c = config_;
  const size_t width = bytes_of(c.cache_type), context = c.context;
  const int seen = step_->position[row] + 1;
  const int keys = layers_[i].sliding ? std::min(seen, c.window) : seen, skipped = seen - keys;
  const Cached first_key = cached(i, step_->slot[row], first_head / group_, skipped);
  const size_t scratch_keys = context + 2 * row_multiple;
  float* scratch = scratch_.as<float>() +
                   static_cast<size_t>(walk.thread) * group_ * (3 * scratch_keys + value_dim_);
  const char* q = queries_.as<char>() + static_cast<size_t>(row) * c.heads * (predictor_dim_ + gate_dim_) * width;

  Attention task{};
  task.type = c.cache_type;
  task.keys = keys;
  task.heads = heads;
  task.predictor_dim = predictor_dim_;
  task.value_gate_dim = gate_dim_;
  task.head_dim = value_dim_;
  task.k1 = first_key.k1;
  task.k2v = first_key.k2v;
  task.q1 = q + static_cast<size_t>(first_head) * predictor_dim_ * width;
  task.q2 = q + (static_cast<size_t>(c.heads) * predictor_dim_ + static_cast<size_t>(first_head) * gate_dim_) * width;
  task.soft_cap = c.attention_cap;
  task.spark = c.attention_spark;
  task.active = c.attention_active;
  task.quantile = c.attention_spark ? quantiles_[keys] + attention_shifts_[i] : 0;
  task.scores = scratch;
  task.out = scratch + group_ * scratch_keys;
  task.out_stride = value_dim_;
  task.values = task.out + group_ * value_dim_;
  task.index = reinterpret_cast<int32_t*>(task.values + group_ * scratch_keys);
  kernels_->attend(task);
  for (int h = 0; h < heads; h++)
    std::copy(task.out + h * value_dim_, task.out + h * value_dim_ + c.head_dim,
              attended_.as<float>() + static_cast<size_t>(row) * out_ + (first_head + h) * c.head_dim);
  kept_.fetch_add(task.attended, std::memory_order_relaxed);
}

Engine::Cached Engine::cached(int i, int slot, int head, int position) {
  const auto& c = config_;
  const size_t width = bytes_of(c.cache_type), held = held_[layers_[i].sliding != 0];
  const size_t place = position - (layers_[i].sliding ? first_[slot] : 0);
  const size_t at = (static_cast<size_t>(slot) * c.kv_heads + head) * held + place;
  const size_t second = static_cast<size_t>(c.slots) * c.kv_heads * held * predictor_dim_;
  return {cache_[i].as<char>() + at * predictor_dim_ * width,
          cache_[i].as<char>() + (second + at * (gate_dim_ + value_dim_)) * width};
}

// Sliding layers hold their window and a little more. When that is full, what is still seen moves to the front.
void Engine::make_room() {
  const auto& c = config_;
  const size_t width = bytes_of(c.cache_type);
  for (int b = 0; b < rows_; b++) {
    const int slot = step_->slot[b], low = step_->position[b];
    while (b + 1 < rows_ && step_->slot[b + 1] == slot) b++;
    const int seen = std::max(0, low - c.window + 1), held = first_[slot];
    if (seen < held) {  // begun anew
      first_[slot] = seen;
      continue;
    }
    if (step_->position[b] - held < held_[1]) continue;
    // Who jumps ahead in a cache filled by tamis_spark_fill_cache sees tokens that were never put in: those are not there to move.
    const int moved = std::min(low, held + held_[1]) - seen;
    for (int i = 0; moved > 0 && i < c.layers; i++)
      for (int h = 0; layers_[i].sliding && h < c.kv_heads; h++) {
        const Cached to = cached(i, slot, h, held), from = cached(i, slot, h, seen);
        const size_t bytes = static_cast<size_t>(moved) * width;
        memmove(to.k1, from.k1, bytes * predictor_dim_);
        memmove(to.k2v, from.k2v, bytes * (gate_dim_ + value_dim_));
      }
    first_[slot] = seen;
  }
}

void Engine::fill_cache(uint64_t seed) {
  // Sums of four uniform numbers of 16 bits, mean 0 and variance 1.
  constexpr size_t period = size_t{1} << 20;
  std::vector<float> pool(period);
  for (auto& each : pool) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    float sum = 0;
    for (int i = 0; i < 4; i++) sum += static_cast<float>((seed >> (16 * i)) & 0xffff) / 65536.0f;
    each = (sum - 2.0f) * 1.7320508f;
  }
  std::vector<char> converted(period * bytes_of(config_.cache_type));
  float unused;
  kernels_->convert(config_.cache_type, pool.data(), static_cast<int>(period), converted.data(), &unused);
  for (auto& layer : cache_) {
    const size_t bytes = layer.bytes();
    for (size_t at = 0; at < bytes; at += converted.size()) {
      seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
      const size_t n = std::min(converted.size(), bytes - at), from = seed % (converted.size() - n + 1) / 64 * 64;
      memcpy(layer.as<char>() + at, converted.data() + from, n);
    }
  }
}

}  // namespace tamis
