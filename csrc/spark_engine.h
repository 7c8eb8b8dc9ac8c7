// One step of a decoder in the Gemma-2 manner, dense or Spark: some tokens in, logits out.
//
// All threads walk through the same phases and meet between them, five times a layer. With one token every thread keeps its
// own copy of the residual stream and repeats the little work between products (norms, thresholds), which is cheaper than
// another meeting; with several tokens these are shared out by token. Results do not depend on the number of threads.
#pragma once

#include <atomic>
#include <chrono>
#include <initializer_list>
#include <vector>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace tamis {

constexpr int most_head_dim = 1024;  // of one head on the stack

class Engine {
 public:
  // Of numbers that `sound` accepts. Throws when memory or threads are not enough.
  Engine(const tamis_spark_config& config, const tamis_spark_ends& ends, const tamis_spark_layer* layers, int isa,
         int threads, int spin);
  void shift(const float* ffn, const float* attention);
  // Whether these rows lie in the vocabulary, the slots and the context, of one slot side by side and in rising position.
  bool accepts(const tamis_spark_step_t& step);
  void step(tamis_spark_step_t& step);
  void fill_cache(uint64_t seed);
  double read(const void* data, size_t bytes);

 private:
  enum Lap { projections, attention, predictor, gather, vocabulary };
  static constexpr int pieces = 16;  // of the active neurons of one token, each with a sum of its own
  static constexpr int few_rows = 16;  // tokens whose active neurons are still far from all neurons
  // Of [K2 | V] while several tokens take their rows from it: V, widened to float32, is 64 KB.
  static constexpr int tile_neurons = 128, tile_columns = 256;

  // The walk of one thread through a step.
  struct Walk {
    int thread;
    int phase = 0;
    double lap;
  };

  void work(Walk& walk);
  void embed(Walk& walk);
  void attention_block(Walk& walk, int layer);
  void project(Walk& walk, const Matrix& m, int set, float* y, size_t y_stride);
  struct Cached {
    char *k1, *k2v;
  };
  Cached cached(int layer, int slot, int kv_head, int position);
  void make_room();
  void store_keys(int layer, int row, int head);
  void turn_queries(int row, int first_head, int heads);
  void attend(Walk& walk, int layer, int row, int first_head, int heads);
  void ffn_gated(Walk& walk, int layer);
  void ffn_spark(Walk& walk, int layer);
  void gather_one(Walk& walk, int layer);
  void gather_few(Walk& walk, int layer);
  void gather_several(Walk& walk, int layer);
  void logits(Walk& walk);
  void rescore(Walk& walk, int wanted);

  void choose(Walk& walk, int layer, int row);
  void score_again(const tamis_spark_layer& layer, const void* x, int count, const int32_t* index, float* value,
                   float theta);
  void turn(const float* x, int row, float* first, float* second, float scale_first, float scale_second) const;
  void meet_if_several() {
    if (rows_ > 1) pool_.meet();
  }
  void end_lap(Walk& walk, Lap lap);
  // Rows of the step that this thread cares for: its share of several, or the only one.
  template <class Do>
  void own_rows(const Walk& walk, int rows, Do&& each) {
    if (rows == 1) return each(0);
    for (int b = walk.thread; b < rows; b += pool_.size()) each(b);
  }
  // Where row b of a buffer with one row a token and one a thread lies.
  size_t place(const Walk& walk, int rows, int b) const { return rows == 1 ? config_.rows + walk.thread : b; }
  float* residual(const Walk& walk, int b) { return x_.as<float>() + place(walk, rows_, b) * hidden_; }
  void normalise(const Walk& walk, const float* x, const float* norm, int b);
  // Row b of `set` from n floats, as rows of `type` expect it.
  void prepare(const Walk& walk, int set, int type, int rows, int b, const float* x, int n);
  Activations prepared(const Walk& walk, int set, int type, int rows) const;
  char* prepared_at(int set, size_t at) const {
    return activations_.as<char>() + (static_cast<size_t>(set) * (config_.rows + pool_.size()) + at) * pitch_;
  }
  Dealer& dealer(Walk& walk) { return dealers_[walk.phase++]; }

  tamis_spark_config config_;
  tamis_spark_ends ends_;
  std::vector<tamis_spark_layer> layers_;
  const Kernels* kernels_;
  Pool pool_;
  std::vector<Dealer> dealers_;
  tamis_spark_step_t* step_ = nullptr;
  int rows_ = 0;

  int hidden_, neurons_, out_, qkv_, group_;               // padded where they are widths of rows
  int predictor_dim_, gate_dim_, value_dim_, part_;        // padded parts of a head; part_: the first one, unpadded
  size_t pitch_, score_stride_;                            // bytes of a converted vector; floats of a row of scores
  std::vector<double> frequencies_;
  std::vector<float> quantiles_;                           // of the attention's top-k, by number of keys
  float ffn_quantile_;
  std::vector<float> ffn_shifts_, attention_shifts_;       // of these, a layer
  Memory x_, normed_, activations_, scales_, qkv_out_, attended_, projected_, gate_, up_, index_, value_, counts_,
      thetas_, sums_, tiles_, done_, turns_, queries_, scratch_;
  std::vector<Memory> cache_;                              // a layer: [slots][kv heads][held] of K1, then of [K2|V]
  int held_[2];                                            // tokens that global and sliding layers hold
  std::vector<int> first_;                                 // position of the first one in sliding layers, by slot
  std::vector<uint64_t> asked_;                            // the last step that was asked of a slot
  uint64_t asking_ = 0;
  std::atomic<int64_t> active_{0}, kept_{0}, rescored_{0};
};

// Whether an engine may trust these numbers: none is negative or beyond what its indices hold, matrices have the shapes that
// the configuration tells.
bool sound(const tamis_spark_config& config, const tamis_spark_ends& ends, const tamis_spark_layer* layers, int threads);
// Of sizes; throws std::bad_alloc where it does not fit.
size_t product(std::initializer_list<size_t> sizes);
double normal_quantile(double probability);
// Rows in a piece of a product: enough bytes to be worth asking for, few enough that nobody waits long at the end.
int least_rows(const Matrix& m);
int most_rows(const Matrix& m);

}  // namespace tamis
