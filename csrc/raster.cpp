// The portable image kernels, and the choice among the instruction sets (see raster.h).
#define TAMIS_RASTER raster_portable
#include "raster.inl"

#include "dispatch.h"

namespace {

const tamis::Raster& table(int isa) {
#ifdef TAMIS_HAS_AVX2
  if (isa >= static_cast<int>(tamis::Isa::avx2)) return tamis::raster_avx2();
#endif
  (void)isa;
  return tamis::raster_portable();
}

}  // namespace

extern "C" {

void tamis_raster_halve(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width, uint8_t* copy,
                        uint8_t* out) {
  table(isa).halve(isa, plane, stride, height, width, copy, out);
}

int64_t tamis_raster_strokes(int isa, const uint8_t* picture, int32_t height, int32_t width, int32_t before,
                             int32_t faintest, int32_t newborn_age, uint8_t* rise, uint8_t* fall, uint8_t* age_rise,
                             uint8_t* age_fall, uint8_t* newborn) {
  return table(isa).strokes(isa, picture, height, width, before, faintest, newborn_age, rise, fall, age_rise, age_fall,
                            newborn);
}

int64_t tamis_raster_pieces(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width,
                            int32_t strength, int32_t least, int32_t run, int32_t smallest, int32_t* out,
                            int64_t most) {
  return table(isa).pieces(isa, plane, stride, height, width, strength, least, run, smallest, out, most);
}

int64_t tamis_raster_rows(int isa, const uint8_t* plane, int64_t stride, int32_t left, int32_t top, int32_t right,
                          int32_t bottom, int32_t strength, double thin, int64_t* lines, double* weights) {
  return table(isa).rows(isa, plane, stride, left, top, right, bottom, strength, thin, lines, weights);
}

int64_t tamis_raster_components(int isa, const uint8_t* mask, int64_t stride, int32_t height, int32_t width,
                                int32_t connectivity, int32_t* labels, int32_t* stats, int64_t most) {
  return table(isa).components(isa, mask, stride, height, width, connectivity, labels, stats, most);
}

int64_t tamis_raster_depth(int isa, const uint8_t* mask, int32_t height, int32_t width, int32_t far, int64_t* count) {
  return table(isa).depth(isa, mask, height, width, far, count);
}

void tamis_raster_merge(int isa, const uint8_t* const* planes, const int64_t* strides, const uint8_t* averaged,
                        int32_t number, int32_t height, int32_t width, uint8_t* mean, uint8_t* low, uint8_t* high) {
  table(isa).merge(isa, planes, strides, averaged, number, height, width, mean, low, high);
}

void tamis_raster_blur(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width,
                       const uint16_t* kernel, int32_t radius, uint8_t* out) {
  table(isa).blur(isa, plane, stride, height, width, kernel, radius, out);
}

void tamis_raster_resample(int isa, const uint8_t* plane, int64_t stride, int32_t out_height, int32_t out_width,
                           int32_t columns, const int32_t* column, const float* column_weight, int32_t rows,
                           const int32_t* row, const float* row_weight, uint8_t* out) {
  table(isa).resample(isa, plane, stride, out_height, out_width, columns, column, column_weight, rows, row, row_weight,
                      out);
}

int64_t tamis_raster_steps(int isa, const uint8_t* picture, int32_t width, int64_t number, const int32_t* y,
                           const int32_t* x, const int32_t* sign, const int32_t* step_of, uint8_t* alive,
                           int32_t* stood, int32_t* life, int32_t* now, int64_t* total) {
  return table(isa).steps(isa, picture, width, number, y, x, sign, step_of, alive, stood, life, now, total);
}

int64_t tamis_raster_contrast(int isa, const uint8_t* plane, int64_t stride, int64_t number, const int64_t* y,
                              const int64_t* x, const int64_t* other_y, const int64_t* other_x) {
  return table(isa).contrast(isa, plane, stride, number, y, x, other_y, other_x);
}

}  // extern "C"
