// The FFN of a layer, gated or Spark: of one token, of a few, of a whole prompt.
#include <math.h>

#include <algorithm>

#include "spark_engine.h"

namespace tamis {

void Engine::ffn_gated(Walk& walk, int i) {
  const auto& layer = layers_[i];
  own_rows(walk, rows_, [&](int b) {
    normalise(walk, residual(walk, b), layer.norms[2], b);
    prepare(walk, 0, layer.gate.type, rows_, b, normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
  });
  meet_if_several();
  const Activations x = prepared(walk, 0, layer.gate.type, rows_);
  float *gate = gate_.as<float>(), *up = up_.as<float>();
  {
    Dealer& deal = dealer(walk);
    const int least = least_rows(layer.gate), most = most_rows(layer.gate);
    for (int first, last; deal.deal(config_.neurons, least, most, pool_.size(), first, last);) {
      kernels_->matmul(layer.gate, first, last, x, gate, score_stride_);
      kernels_->matmul(layer.up, first, last, x, up, score_stride_);
      for (int b = 0; b < rows_; b++)
        kernels_->gelu_times(gate + b * score_stride_ + first, up + b * score_stride_ + first, last - first);
    }
  }
  pool_.meet();
  own_rows(walk, rows_,
           [&](int b) { prepare(walk, 0, layer.down.type, rows_, b, gate + b * score_stride_, neurons_); });
  meet_if_several();
  project(walk, layer.down, 0, projected_.as<float>(), hidden_);
  pool_.meet();
  own_rows(walk, rows_, [&](int b) {
    normalise(walk, projected_.as<float>() + static_cast<size_t>(b) * hidden_, layer.norms[3], b);
    kernels_->add(residual(walk, b), normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
  });
  end_lap(walk, predictor);
}

void Engine::ffn_spark(Walk& walk, int i) {
  const auto& layer = layers_[i];
  own_rows(walk, rows_, [&](int b) {
    const float* normed = normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4);
    normalise(walk, residual(walk, b), layer.norms[2], b);
    prepare(walk, 0, layer.gate.type, rows_, b, normed, hidden_);
    if (layer.up.type != layer.gate.type) prepare(walk, 1, layer.up.type, rows_, b, normed, hidden_);
  });
  meet_if_several();
  project(walk, layer.gate, 0, gate_.as<float>(), score_stride_);
  pool_.meet();
  end_lap(walk, predictor);
  own_rows(walk, rows_, [&](int b) { choose(walk, i, b); });
  rows_ == 1 ? gather_one(walk, i) : rows_ <= few_rows ? gather_few(walk, i) : gather_several(walk, i);
  end_lap(walk, gather);
}

// The active neurons of a row, and by how much each passes the threshold.
void Engine::choose(Walk& walk, int i, int b) {
  const size_t at = place(walk, rows_, b);
  const float* scores = gate_.as<float>() + b * score_stride_;
  int32_t* index = index_.as<int32_t>() + at * score_stride_;
  float *value = value_.as<float>() + at * score_stride_, *theta = thetas_.as<float>() + at;
  int count = config_.neurons;
  if (config_.ffn_active < config_.neurons) {
    count = kernels_->soft_threshold(scores, config_.neurons, ffn_quantile_ + ffn_shifts_[i], theta, index, value);
  } else {
    *theta = 0;  // nothing is left out, nothing taken off
    for (int n = 0; n < count; n++) index[n] = n, value[n] = scores[n];
  }
  counts_.as<int32_t>()[at] = count;
  if (rows_ > 1 || walk.thread == 0) active_.fetch_add(count, std::memory_order_relaxed);
}

// Gates of active neurons from the finer predictor: coarse scores chose them and gave theta.
void Engine::score_again(const tamis_spark_layer& layer, const void* x, int count, const int32_t* index, float* value,
                         float theta) {
  kernels_->dot_rows(layer.rescore, index, count, x, 1, value);
  for (int j = 0; j < count; j++) {
    const float over = value[j] - theta;
    value[j] = over <= 0 ? 0 : over;  // NaN stays
  }
}

// The active list is cut into a fixed number of pieces, each summed apart: equal work for every thread, and the same
// result for any number of them.
void Engine::gather_one(Walk& walk, int i) {
  const auto& layer = layers_[i];
  const size_t at = place(walk, 1, 0);
  const int count = counts_.as<int32_t>()[at];
  const float theta = thetas_.as<float>()[at];
  const int32_t* index = index_.as<int32_t>() + at * score_stride_;
  float* value = value_.as<float>() + at * score_stride_;
  const int set = layer.up.type != layer.gate.type ? 1 : 0;
  const Activations x = prepared(walk, set, layer.up.type, 1);
  const char* second = static_cast<const char*>(x.data) + config_.ffn_predictor * bytes_of(layer.up.type);
  Dealer& deal = dealer(walk);
  // Runs of pieces: within a run the next rows are fetched ahead.
  for (int run, end; deal.deal(pieces, 1, pieces, pool_.size(), run, end);)
    for (int piece = run; piece < end; piece++) {
      float* y = sums_.as<float>() + static_cast<size_t>(piece) * hidden_;
      std::fill(y, y + hidden_, theta - theta == 0 ? 0.0f : NAN);
      // Whole groups, but for the last piece.
      const auto part = [&](int p) { return p == pieces ? count : count * p / pieces / gather_group * gather_group; };
      const int first = part(piece), last = part(piece + 1);
      if (first == last) continue;
      const Matrix* again = layer.rescore.data != nullptr ? &layer.rescore : nullptr;
      if (again == nullptr) kernels_->gelu(value + first, last - first);
      kernels_->gather(layer.up, layer.down, again, index + first, value + first, last - first, count - last, second,
                       x.data, x.scale[0], theta, y);
    }
  pool_.meet();
  float* y = normed_.as<float>() + at * (pitch_ / 4);
  std::fill(y, y + hidden_, 0.0f);
  for (int piece = 0; piece < pieces; piece++)
    kernels_->add(y, sums_.as<float>() + static_cast<size_t>(piece) * hidden_, hidden_);
  kernels_->rms_norm(y, layer.norms[3], config_.hidden, hidden_, config_.epsilon, y);
  kernels_->add(residual(walk, 0), y, hidden_);
}

// A few tokens: neurons are cut into fixed pieces, and within a piece the tokens take turns every hundred neurons, so that a
// row that two of them need is in the cache for the second.
void Engine::gather_few(Walk& walk, int i) {
  const auto& layer = layers_[i];
  constexpr int stretch = 108;
  const int set = layer.up.type != layer.gate.type ? 1 : 0;
  const size_t width = bytes_of(layer.up.type);
  pool_.meet();
  const Activations x = prepared(walk, set, layer.up.type, rows_);
  Dealer& deal = dealer(walk);
  int done[few_rows];
  for (int piece, end; deal.deal(pieces, 1, 1, pool_.size(), piece, end);) {
    const int64_t neurons = config_.neurons;
    const int first = static_cast<int>(neurons * piece / pieces), last = static_cast<int>(neurons * (piece + 1) / pieces);
    for (int b = 0; b < rows_; b++) {
      const int32_t* index = index_.as<int32_t>() + b * score_stride_;
      done[b] = static_cast<int>(std::lower_bound(index, index + counts_.as<int32_t>()[b], first) - index);
      float* y = sums_.as<float>() + (static_cast<size_t>(b) * pieces + piece) * hidden_;
      const float theta = thetas_.as<float>()[b];
      std::fill(y, y + hidden_, theta - theta == 0 ? 0.0f : NAN);
    }
    for (int at = first; at < last; at += stretch)
      for (int b = 0; b < rows_; b++) {
        const int32_t* index = index_.as<int32_t>() + b * score_stride_;
        float* value = value_.as<float>() + b * score_stride_;
        const int count = counts_.as<int32_t>()[b], from = done[b], until = std::min(last, at + stretch);
        int to = from;
        while (to < count && index[to] < until) to++;
        done[b] = to;
        if (from == to) continue;
        const char* vector = static_cast<const char*>(x.data) + static_cast<size_t>(b) * x.stride * width;
        const Matrix* again = layer.rescore.data != nullptr ? &layer.rescore : nullptr;
        if (again == nullptr) kernels_->gelu(value + from, to - from);
        kernels_->gather(layer.up, layer.down, again, index + from, value + from, to - from, count - to,
                         vector + config_.ffn_predictor * width, vector, x.scale[b], thetas_.as<float>()[b],
                         sums_.as<float>() + (static_cast<size_t>(b) * pieces + piece) * hidden_);
      }
  }
  pool_.meet();
  own_rows(walk, rows_, [&](int b) {
    float* y = normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4);
    std::fill(y, y + hidden_, 0.0f);
    for (int piece = 0; piece < pieces; piece++)
      kernels_->add(y, sums_.as<float>() + (static_cast<size_t>(b) * pieces + piece) * hidden_, hidden_);
    kernels_->rms_norm(y, layer.norms[3], config_.hidden, hidden_, config_.epsilon, y);
    kernels_->add(residual(walk, b), y, hidden_);
  });
}

// Several tokens: together they need nearly every neuron, so what is saved is arithmetic. Neurons are dealt out for the
// first product, columns of the output for the second, each read from memory once, in tiles that stay in the cache while
// every token takes its own rows from them. The next tile is fetched meanwhile.
void Engine::gather_several(Walk& walk, int i) {
  const auto& layer = layers_[i];
  const int set = layer.up.type != layer.gate.type ? 1 : 0;
  int* done = done_.as<int>() + static_cast<size_t>(walk.thread) * config_.rows;
  const auto fetch_share = [&](const Matrix& m, int tile, int last, int b, int column, int columns) {
    const size_t width = bytes_of(m.type);
    const int from = tile + tile_neurons * b / rows_, to = tile + tile_neurons * (b + 1) / rows_;
    for (int n = from; n < to && n < last; n++) {
      const char* row = static_cast<const char*>(m.data) + (static_cast<size_t>(n) * m.stride + column) * width;
      for (size_t at = 0; at < columns * width; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
  };
  pool_.meet();
  {
    const Activations x = prepared(walk, set, layer.up.type, rows_);
    const size_t width = bytes_of(layer.up.type);
    Dealer& deal = dealer(walk);
    for (int first, last; deal.deal(config_.neurons, tile_neurons, 8 * tile_neurons, pool_.size(), first, last);) {
      for (int b = 0; b < rows_; b++) {
        const int32_t* index = index_.as<int32_t>() + b * score_stride_;
        done[b] = static_cast<int>(std::lower_bound(index, index + counts_.as<int32_t>()[b], first) - index);
      }
      for (int tile = first; tile < last; tile += tile_neurons)
        for (int b = 0; b < rows_; b++) {
          fetch_share(layer.up, tile + tile_neurons, last, b, 0, layer.up.cols);
          const int32_t* index = index_.as<int32_t>() + b * score_stride_;
          float* value = value_.as<float>() + b * score_stride_;
          const int count = counts_.as<int32_t>()[b], from = done[b], end = std::min(last, tile + tile_neurons);
          int to = from;
          while (to < count && index[to] < end) to++;
          done[b] = to;
          if (from == to) continue;
          const char* vector = static_cast<const char*>(x.data) + static_cast<size_t>(b) * x.stride * width;
          if (layer.rescore.data != nullptr)
            score_again(layer, vector, to - from, index + from, value + from, thetas_.as<float>()[b]);
          kernels_->gelu(value + from, to - from);
          float product[tile_neurons];
          kernels_->dot_rows(layer.up, index + from, to - from, vector + config_.ffn_predictor * width, x.scale[b],
                             product);
          for (int j = from; j < to; j++) value[j] *= product[j - from];
        }
    }
  }
  pool_.meet();
  {
    float* y = projected_.as<float>();
    Matrix wide{};
    float* tile_of_v = tiles_.as<float>() + static_cast<size_t>(walk.thread) * tile_neurons * tile_columns;
    wide.data = tile_of_v;
    wide.stride = tile_columns;
    wide.type = f32;
    Dealer& deal = dealer(walk);
    for (int first, last; deal.deal(hidden_, tile_columns, tile_columns, pool_.size(), first, last);) {
      const int columns = last - first;
      wide.cols = columns;
      for (int b = 0; b < rows_; b++) {
        const float theta = thetas_.as<float>()[b];
        float* row = y + static_cast<size_t>(b) * hidden_;
        std::fill(row + first, row + last, theta - theta == 0 ? 0.0f : NAN);
      }
      std::fill(done, done + rows_, 0);
      for (int tile = 0; tile < config_.neurons; tile += tile_neurons) {
        const int end = std::min(config_.neurons, tile + tile_neurons);
        kernels_->widen_rows(layer.down, tile, end, first, columns, tile_of_v, tile_columns);
        for (int b = 0; b < rows_; b++) {
          fetch_share(layer.down, tile + tile_neurons, config_.neurons, b, first, columns);
          const int32_t* index = index_.as<int32_t>() + b * score_stride_;
          const int count = counts_.as<int32_t>()[b], from = done[b];
          int32_t within[tile_neurons];
          int to = from;
          for (; to < count && index[to] < end; to++) within[to - from] = index[to] - tile;
          done[b] = to;
          if (to > from)
            kernels_->add_rows(wide, within, value_.as<float>() + b * score_stride_ + from, to - from, 0, columns,
                               y + static_cast<size_t>(b) * hidden_ + first);
        }
      }
      // Products write what lies before the padding only: a NaN left there would be in every norm from now on.
      for (int b = 0; b < rows_ && last > config_.hidden; b++) {
        float* row = y + static_cast<size_t>(b) * hidden_;
        std::fill(row + std::max(first, config_.hidden), row + last, 0.0f);
      }
    }
  }
  pool_.meet();
  own_rows(walk, rows_, [&](int b) {
    normalise(walk, projected_.as<float>() + static_cast<size_t>(b) * hidden_, layer.norms[3], b);
    kernels_->add(residual(walk, b), normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
  });
}

}  // namespace tamis
