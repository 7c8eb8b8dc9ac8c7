// The C interface of the engine, and single kernels for the tests.
#include <math.h>

#include <vector>

#include "boundary.h"
#include "spark_engine.h"
#include "tamis_native.h"

using namespace tamis;

struct tamis_spark {
  Engine engine;
};

extern "C" {

tamis_spark* tamis_spark_open(const tamis_spark_config* config, const tamis_spark_ends* ends,
                              const tamis_spark_layer* layers, int isa, int threads, int spin, int* status) {
  tamis_spark* made = nullptr;
  *status = kernels(isa) == nullptr                      ? TAMIS_NO_ISA
            : !sound(*config, *ends, layers, threads) ? TAMIS_REFUSED
            : guarded([&] { made = new tamis_spark{Engine(*config, *ends, layers, isa, threads, spin)}; });
  return made;
}

void tamis_spark_close(tamis_spark* spark) { delete spark; }
void tamis_spark_shift(tamis_spark* spark, const float* ffn, const float* attention) {
  spark->engine.shift(ffn, attention);
}
int tamis_spark_step(tamis_spark* spark, tamis_spark_step_t* step) {
  return spark->engine.accepts(*step) ? guarded([&] { spark->engine.step(*step); }) : TAMIS_REFUSED;
}
int tamis_spark_fill_cache(tamis_spark* spark, uint64_t seed) {
  return guarded([&] { spark->engine.fill_cache(seed); });
}
double tamis_spark_read(tamis_spark* spark, const void* data, size_t bytes) {
  double seconds = NAN;
  guarded([&] { seconds = spark->engine.read(data, bytes); });
  return seconds;
}

int tamis_matmul(int isa, const tamis_matrix* m, const float* x, int batch, float* y) {
  const Kernels* k = kernels(isa);
  if (k == nullptr) return TAMIS_NO_ISA;
  return guarded([&] {
    const size_t width = bytes_of(m->type);
    std::vector<char> converted(static_cast<size_t>(m->cols) * batch * width);
    std::vector<float> scale(batch);
    for (int b = 0; b < batch; b++)
      k->convert(m->type, x + static_cast<size_t>(b) * m->cols, m->cols,
                 converted.data() + static_cast<size_t>(b) * m->cols * width, &scale[b]);
    k->matmul(*m, 0, m->rows, {converted.data(), static_cast<size_t>(m->cols), scale.data(), batch}, y, m->rows);
  });
}

int tamis_soft_threshold(int isa, const float* x, int n, float quantile, float* theta, int32_t* index, float* value) {
  const Kernels* k = kernels(isa);
  return k == nullptr ? -1 : k->soft_threshold(x, n, quantile, theta, index, value);
}

int tamis_elementwise(int isa, int what, float* x, int n, float parameter) {
  const Kernels* k = kernels(isa);
  if (k == nullptr) return TAMIS_NO_ISA;
  what == 0 ? k->gelu(x, n) : k->soft_cap(x, n, parameter);
  return TAMIS_DONE;
}
}
