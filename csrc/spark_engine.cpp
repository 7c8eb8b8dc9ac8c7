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

int rows_of(const Matrix& m, int64_t bytes) {
  const int64_t rows = bytes / (m.stride * static_cast<int64_t>(bytes_of(m.type)));
  return static_cast<int>(std::max<int64_t>(row_grain, rows / row_grain * row_grain));
}

}  // namespace

int most_rows(const Matrix& m) { return rows_of(m, most_bytes); }
int least_rows(const Matrix& m) { return rows_of(m, least_bytes); }

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
  // A window or a k beyond what there is means all of it.
  config_.window = std::min(config.window, config.context);
  config_.attention_active = std::min(config.attention_active, config.context);
  config_.ffn_active = std::min(config.ffn_active, config.neurons);
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
    done_ = Memory(sizeof(int) * threads * rows);
    ffn_quantile_ = c.ffn_active < c.neurons
                        ? static_cast<float>(normal_quantile(1 - static_cast<double>(c.ffn_active) / c.neurons))
                        : -INFINITY;
  } else {
    up_ = Memory(sizeof(float) * rows * score_stride_);
  }
  turns_ = Memory(sizeof(float) * rows * 2 * c.head_dim);
  queries_ = Memory(rows * c.heads * (predictor_dim_ + gate_dim_) * bytes_of(c.cache_type));
  const size_t context = c.context, keys = context + 2 * row_multiple, group = group_;
  scratch_ = Memory(product({static_cast<size_t>(threads), sizeof(float), group, 3 * keys + value_dim_}));
  for (int part = 0; part < 2; part++) {
    const int size = part == 0 ? part_ : c.head_dim - part_;
    for (int i = 0; i < size / 2; i++)
      frequencies_.push_back(pow(static_cast<double>(c.rope_theta), -2.0 * i / size));
  }
  if (c.attention_spark) {
    quantiles_.assign(context + 1, 0.0f);
    for (int n = c.attention_active + 1; n <= c.context; n++)
      quantiles_[n] = static_cast<float>(normal_quantile(1 - static_cast<double>(c.attention_active) / n));
  }
  ffn_shifts_.assign(c.layers, 0.0f);
  attention_shifts_.assign(c.layers, 0.0f);
  held_[0] = c.context;
  held_[1] = static_cast<int>(
      std::min<int64_t>(c.context, static_cast<int64_t>(c.window) + std::max(c.rows, c.window / 8)));
  first_.assign(c.slots, 0);
  asked_.assign(c.slots, 0);
  const size_t slots = c.slots, heads = c.kv_heads, numbers = predictor_dim_ + gate_dim_ + value_dim_;
  for (const auto& layer : layers_) {
    const size_t held = held_[layer.sliding != 0];
    cache_.emplace_back(product({slots, heads, numbers, bytes_of(c.cache_type), held}));
  }
}

void Engine::step(tamis_spark_step_t& step) {
  step_ = &step;
  rows_ = step.rows;
  make_room();
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

void Engine::project(Walk& walk, const Matrix& m, int set, float* y, size_t y_stride) {
  const Activations x = prepared(walk, set, m.type, rows_);
  const int least = least_rows(m), most = most_rows(m);
  Dealer& deal = dealer(walk);
  for (int first, last; deal.deal(m.rows, least, most, pool_.size(), first, last);)
    kernels_->matmul(m, first, last, x, y, y_stride);
}

void Engine::shift(const float* ffn, const float* attention) {
  ffn_shifts_.assign(ffn, ffn + config_.layers);
  attention_shifts_.assign(attention, attention + config_.layers);
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
