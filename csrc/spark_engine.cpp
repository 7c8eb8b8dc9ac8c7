#include "spark_engine.h"

#include <math.h>
#include <time.h>

#include <algorithm>

namespace tamis {
namespace {

using Clock = std::chrono::steady_clock;

// Seconds that this thread has computed, so that a busy machine does not count; elapsed ones where the system has none.
double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
#else
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
#endif
}

// Pieces of a product: enough bytes to be worth asking for, few enough that nobody waits long at the end.
constexpr int64_t least_bytes = 32 << 10, most_bytes = 512 << 10;
constexpr int row_grain = 16;  // 16 floats of output are one cache line

int most_rows(const Matrix& m) {
  int64_t rows = most_bytes / (m.stride * static_cast<int64_t>(bytes_of(m.type)));
  return static_cast<int>(std::max<int64_t>(row_grain, rows / row_grain * row_grain));
}

int least_rows(const Matrix& m) {
  int64_t rows = least_bytes / (m.stride * static_cast<int64_t>(bytes_of(m.type)));
  return static_cast<int>(std::max<int64_t>(row_grain, rows / row_grain * row_grain));
}

}  // namespace

// By halving: exact to double precision, and only done when a model is opened.
double normal_quantile(double probability) {
  double low = -40, high = 40;
  for (int i = 0; i < 80; i++) {
    double middle = (low + high) / 2;
    (0.5 * erfc(-middle / M_SQRT2) < probability ? low : high) = middle;
  }
  return (low + high) / 2;
}

Engine::Engine(const tamis_spark_config& config, const tamis_spark_ends& ends, const tamis_spark_layer* layers, int isa,
               int threads, int spin)
    : config_(config),
      ends_(ends),
      layers_(layers, layers + config.layers),
      kernels_(kernels(isa)),
      pool_(threads, spin),
      dealers_(static_cast<size_t>(config.layers) * 8 + 8) {
  const auto& c = config_;
  const size_t rows = c.rows, places = rows + threads;
  hidden_ = padded(c.hidden);
  neurons_ = padded(c.neurons);
  out_ = padded(c.heads * c.head_dim);
  qkv_ = padded((c.heads + 2 * c.kv_heads) * c.head_dim);
  group_ = c.heads / c.kv_heads;
  part_ = c.attention_spark ? c.attention_predictor : c.head_dim;
  predictor_dim_ = padded(part_);
  gate_dim_ = c.attention_spark ? padded(c.head_dim - part_) : 0;
  value_dim_ = padded(c.head_dim);
  // A vector may be read from the end of the predictor's part on, up to a padded row later.
  const int widest = std::max({hidden_, out_, c.ffn_spark ? 0 : neurons_}) + 2 * row_multiple;
  pitch_ = sizeof(float) * static_cast<size_t>(padded(widest));
  score_stride_ = static_cast<size_t>(neurons_) + 2 * row_multiple;

  x_ = Memory(sizeof(float) * places * hidden_);
  normed_ = Memory(places * pitch_);
  activations_ = Memory(2 * places * pitch_);
  scales_ = Memory(sizeof(float) * 2 * places);
  qkv_out_ = Memory(sizeof(float) * rows * qkv_);
  attended_ = Memory(sizeof(float) * rows * out_);
  projected_ = Memory(sizeof(float) * rows * hidden_);
  gate_ = Memory(sizeof(float) * rows * score_stride_);
  if (c.ffn_spark) {
    index_ = Memory(sizeof(int32_t) * places * score_stride_);
    value_ = Memory(sizeof(float) * places * score_stride_);
    counts_ = Memory(sizeof(int32_t) * places);
    thetas_ = Memory(sizeof(float) * places);
    sums_ = Memory(sizeof(float) * pieces * hidden_ * std::min<size_t>(rows, few_rows));
    tiles_ = Memory(sizeof(float) * threads * tile_neurons * tile_columns);
    ffn_quantile_ = c.ffn_active < c.neurons
                        ? static_cast<float>(normal_quantile(1 - static_cast<double>(c.ffn_active) / c.neurons))
                        : -INFINITY;
  } else {
    up_ = Memory(sizeof(float) * rows * score_stride_);
  }
  turns_ = Memory(sizeof(float) * rows * 2 * c.head_dim);
  queries_ = Memory(rows * c.heads * (predictor_dim_ + gate_dim_) * bytes_of(c.cache_type));
  const size_t keys = c.context + 2 * row_multiple;
  scratch_ = Memory(static_cast<size_t>(threads) * sizeof(float) *
                    static_cast<size_t>(group_) * (3 * keys + value_dim_));
  for (int part = 0; part < 2; part++) {
    const int size = part == 0 ? part_ : c.head_dim - part_;
    for (int i = 0; i < size / 2; i++)
      frequencies_.push_back(pow(static_cast<double>(c.rope_theta), -2.0 * i / size));
  }
  if (c.attention_spark) {
    quantiles_.assign(c.context + 1, 0.0f);
    for (int n = c.attention_active + 1; n <= c.context; n++)
      quantiles_[n] = static_cast<float>(normal_quantile(1 - static_cast<double>(c.attention_active) / n));
  }
  ffn_shifts_.assign(c.layers, 0.0f);
  attention_shifts_.assign(c.layers, 0.0f);
  const size_t a_token = static_cast<size_t>(c.slots) * c.kv_heads * (predictor_dim_ + gate_dim_ + value_dim_);
  for (int i = 0; i < c.layers; i++) cache_.emplace_back(a_token * c.context * bytes_of(c.cache_type));
}

void Engine::step(tamis_spark_step_t& step) {
  step_ = &step;
  rows_ = step.rows;
  for (auto& dealer : dealers_) dealer.next.store(0, std::memory_order_relaxed);
  active_ = kept_ = rescored_ = 0;
  std::fill(step.seconds, step.seconds + 5, 0.0);
  const size_t half = frequencies_.size();
  for (int b = 0; b < rows_; b++) {
    float* cosine = turns_.as<float>() + static_cast<size_t>(b) * 2 * config_.head_dim;
    for (size_t i = 0; i < half; i++) {
      cosine[i] = static_cast<float>(cos(step.position[b] * frequencies_[i]));
      cosine[config_.head_dim + i] = static_cast<float>(sin(step.position[b] * frequencies_[i]));
    }
  }
  pool_.run([this](int thread) {
    Walk walk{};
    walk.thread = thread;
    walk.lap = thread_seconds();
    work(walk);
  });
  step.active = active_;
  step.attended = kept_;
  step.rescored = rescored_;
}

void Engine::work(Walk& walk) {
  embed(walk);
  for (int i = 0; i < config_.layers; i++) {
    attention_block(walk, i);
    if (step_->parts & TAMIS_FFN) config_.ffn_spark ? ffn_spark(walk, i) : ffn_gated(walk, i);
  }
  if ((step_->parts & TAMIS_HEAD) && step_->wanted > 0) logits(walk);
}

void Engine::embed(Walk& walk) {
  own_rows(walk, rows_, [&](int b) {
    float* x = residual(walk, b);
    std::fill(x, x + hidden_, 0.0f);
    const int32_t token = step_->token[b];
    kernels_->add_rows(ends_.embedding, &token, &config_.embedding_scale, 1, 0, hidden_, x);
  });
}

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

void Engine::project(Walk& walk, const Matrix& m, int set, float* y, size_t y_stride) {
  const Activations x = prepared(walk, set, m.type, rows_);
  const int least = least_rows(m), most = most_rows(m);
  Dealer& deal = dealer(walk);
  for (int first, last; deal.deal(m.rows, least, most, pool_.size(), first, last);)
    kernels_->matmul(m, first, last, x, y, y_stride);
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
  const size_t width = bytes_of(c.cache_type), context = c.context, position = step_->position[row];
  const size_t at = (static_cast<size_t>(step_->slot[row]) * c.kv_heads + head) * context;
  char* k1 = cache_[i].as<char>() + (at + position) * predictor_dim_ * width;
  char* k2v = cache_[i].as<char>() + static_cast<size_t>(c.slots) * c.kv_heads * context * predictor_dim_ * width +
              (at + position) * (gate_dim_ + value_dim_) * width;
  const float* key = qkv_out_.as<float>() + static_cast<size_t>(row) * qkv_ + (c.heads + head) * c.head_dim;
  constexpr int most = 1024;
  alignas(64) float first[most] = {}, second[most] = {};
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
  constexpr int most = 1024;
  alignas(64) float first[most] = {}, second[most] = {};
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
  const size_t at = (static_cast<size_t>(step_->slot[row]) * c.kv_heads + first_head / group_) * context + skipped;
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
  task.k1 = cache_[i].as<char>() + at * predictor_dim_ * width;
  task.k2v = cache_[i].as<char>() + static_cast<size_t>(c.slots) * c.kv_heads * context * predictor_dim_ * width +
             at * (gate_dim_ + value_dim_) * width;
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

void Engine::shift(const float* ffn, const float* attention) {
  ffn_shifts_.assign(ffn, ffn + config_.layers);
  attention_shifts_.assign(attention, attention + config_.layers);
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
  for (int j = 0; j < count; j++) value[j] = std::max(0.0f, value[j] - theta);
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
    std::vector<int> done(rows_);
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
    std::vector<int> done(rows_);
    for (int first, last; deal.deal(hidden_, tile_columns, tile_columns, pool_.size(), first, last);) {
      const int columns = last - first;
      wide.cols = columns;
      for (int b = 0; b < rows_; b++) {
        const float theta = thetas_.as<float>()[b];
        std::fill(y + b * hidden_ + first, y + b * hidden_ + last, theta - theta == 0 ? 0.0f : NAN);
      }
      std::fill(done.begin(), done.end(), 0);
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
    }
  }
  pool_.meet();
  own_rows(walk, rows_, [&](int b) {
    normalise(walk, projected_.as<float>() + static_cast<size_t>(b) * hidden_, layer.norms[3], b);
    kernels_->add(residual(walk, b), normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4), hidden_);
  });
}

void Engine::logits(Walk& walk) {
  const int wanted = step_->wanted;
  const Matrix& head = ends_.head;
  const bool coarse = ends_.rescore_margin > 0;
  meet_if_several();
  own_rows(walk, wanted, [&](int w) {
    float* normed = normed_.as<float>() + place(walk, wanted, w) * (pitch_ / 4);
    const float* x = residual(walk, step_->wanted_row[w]);
    kernels_->rms_norm(x, ends_.norm, config_.hidden, hidden_, config_.epsilon, normed);
    prepare(walk, 0, head.type, wanted, w, normed, hidden_);
    if (coarse) prepare(walk, 1, ends_.embedding.type, wanted, w, normed, hidden_);
  });
  if (wanted > 1) pool_.meet();
  const Activations x = prepared(walk, 0, head.type, wanted);
  const size_t vocabulary_size = config_.vocabulary;
  {
    Dealer& deal = dealer(walk);
    const int least = least_rows(head), most = most_rows(head);
    for (int first, last; deal.deal(config_.vocabulary, least, most, pool_.size(), first, last);) {
      kernels_->matmul(head, first, last, x, step_->logits, vocabulary_size);
      if (config_.final_cap > 0 && !coarse)
        for (int w = 0; w < wanted; w++)
          kernels_->soft_cap(step_->logits + w * vocabulary_size + first, last - first, config_.final_cap);
    }
  }
  if (coarse) {
    pool_.meet();
    for (int w = walk.thread; w < wanted; w += pool_.size()) rescore(walk, w);
    pool_.meet();
    Dealer& deal = dealer(walk);
    if (config_.final_cap > 0)
      for (int first, last; deal.deal(config_.vocabulary, 4096, 65536, pool_.size(), first, last);)
        for (int w = 0; w < wanted; w++)
          kernels_->soft_cap(step_->logits + w * vocabulary_size + first, last - first, config_.final_cap);
  }
  end_lap(walk, vocabulary);
}

// The int8 head errs by its own rounding and by that of the vector; whatever lies within some standard errors of the
// largest is computed again from the finer embedding, so that the largest is the right one.
void Engine::rescore(Walk& walk, int w) {
  const size_t at = place(walk, step_->wanted, w);
  float* logits = step_->logits + static_cast<size_t>(w) * config_.vocabulary;
  const float* normed = normed_.as<float>() + at * (pitch_ / 4);
  double square = 0;
  for (int i = 0; i < config_.hidden; i++) square += static_cast<double>(normed[i]) * normed[i];
  const double step = scales_.as<float>()[at];
  const double of_rows = ends_.head_scale * sqrt(square / 12), of_vector = step * ends_.head_length / sqrt(12.0);
  const float margin = static_cast<float>(ends_.rescore_margin * M_SQRT2 * hypot(of_rows, of_vector));
  const float least = *std::max_element(logits, logits + config_.vocabulary) - margin;
  const void* vector = prepared_at(1, at);
  for (int32_t v = 0; v < config_.vocabulary; v++)
    if (logits[v] >= least) {
      kernels_->dot_rows(ends_.embedding, &v, 1, vector, 1, logits + v);
      rescored_.fetch_add(1, std::memory_order_relaxed);
    }
}

void Engine::normalise(const Walk& walk, const float* x, const float* norm, int b) {
  kernels_->rms_norm(x, norm, config_.hidden, hidden_, config_.epsilon,
                     normed_.as<float>() + place(walk, rows_, b) * (pitch_ / 4));
}

void Engine::prepare(const Walk& walk, int set, int type, int rows, int b, const float* x, int n) {
  const size_t at = place(walk, rows, b);
  float* scale = scales_.as<float>() + set * (config_.rows + pool_.size()) + at;
  kernels_->convert(type, x, n, prepared_at(set, at), scale);
}

Activations Engine::prepared(const Walk& walk, int set, int type, int rows) const {
  const size_t at = place(walk, rows, 0);
  return {prepared_at(set, at), pitch_ / bytes_of(type),
          scales_.as<float>() + set * (config_.rows + pool_.size()) + at, rows};
}

void Engine::end_lap(Walk& walk, Lap lap) {
  if (walk.thread != 0) return;
  const double now = thread_seconds();
  step_->seconds[lap] += now - walk.lap;
  walk.lap = now;
}

void Engine::copy_cache(int from, int to, int count) {
  const auto& c = config_;
  const size_t width = bytes_of(c.cache_type), context = c.context;
  for (auto& layer : cache_)
    for (int h = 0; h < c.kv_heads; h++) {
      size_t start = 0;
      for (size_t dim : {static_cast<size_t>(predictor_dim_), static_cast<size_t>(gate_dim_ + value_dim_)}) {
        auto at = [&](int slot) {
          return layer.as<char>() + start + (static_cast<size_t>(slot) * c.kv_heads + h) * context * dim * width;
        };
        std::copy(at(from), at(from) + static_cast<size_t>(count) * dim * width, at(to));
        start += static_cast<size_t>(c.slots) * c.kv_heads * context * dim * width;
      }
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
  const size_t used_first = static_cast<size_t>(config_.slots) * config_.kv_heads * config_.context * bytes_of(config_.cache_type);
  for (auto& layer : cache_) {
    const size_t bytes = used_first * (predictor_dim_ + gate_dim_ + value_dim_);
    for (size_t at = 0; at < bytes; at += converted.size()) {
      seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
      const size_t n = std::min(converted.size(), bytes - at), from = seed % (converted.size() - n + 1) / 64 * 64;
      memcpy(layer.as<char>() + at, converted.data() + from, n);
    }
  }
}

double Engine::read(const void* data, size_t bytes) {
  constexpr int piece = 1 << 10;  // pages
  constexpr size_t page = 1 << 12;
  Dealer deal;
  const auto start = Clock::now();
  std::atomic<uint64_t> sink{0};
  pool_.run([&](int) {
    uint64_t seen = 0;
    for (int first, last; deal.deal(static_cast<int>(bytes / page), 8, piece, pool_.size(), first, last);)
      seen += kernels_->read(static_cast<const char*>(data) + first * page, (last - first) * page);
    sink += seen;
  });
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace tamis
