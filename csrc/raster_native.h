// The C interface of the image kernels of subtitles, as src/tamis/subtitles/raster_native.py binds it.
// Planes are uint8, row by row; a stride is in bytes, a plane without one is contiguous. The caller owns every buffer and
// checks every shape. Nothing throws but for lack of memory.
#pragma once

#include <stdint.h>

#include "tamis_native.h"

#ifdef __cplusplus
extern "C" {
#endif

// Means of 2 x 2 pixels: [height / 2][width / 2], height and width even. `copy`, unless NULL, gets the plane itself.
TAMIS_API void tamis_raster_halve(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width,
                                  uint8_t* copy, uint8_t* out);

// One step of the stroke operator (strokes.py). All planes but `picture` are [height - 1][width - 2]; rise, fall and the
// ages are updated. With `before` 0 there was no sample before. Returns how many pixels are newborn.
TAMIS_API int64_t tamis_raster_strokes(int isa, const uint8_t* picture, int32_t height, int32_t width, int32_t before,
                                       int32_t faintest, int32_t newborn_age, uint8_t* rise, uint8_t* fall,
                                       uint8_t* age_rise, uint8_t* age_fall, uint8_t* newborn);

// Groups of filled cells (lines.py): pixels above `strength` are counted in cells of 4 x 4, smoothed along the row, compared
// with `least` (of 255), closed over gaps of a cell or two, cut where fewer than `run` cells stand side by side; those of at
// least `smallest` cells are kept: left, top, width, height, area in cells. Returns their number; out holds `most`.
TAMIS_API int64_t tamis_raster_pieces(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width,
                                      int32_t strength, int32_t least, int32_t run, int32_t smallest, int32_t* out,
                                      int64_t most);

// The lines inside a box of a plane (lines.py): split at thin rows, trimmed to the pixels above `strength`. Each is left, top,
// right, bottom, number of pixels; its weight beside it. Returns their number, at most (bottom - top) / 2 + 1.
TAMIS_API int64_t tamis_raster_rows(int isa, const uint8_t* plane, int64_t stride, int32_t left, int32_t top, int32_t right,
                                    int32_t bottom, int32_t strength, double thin, int64_t* lines, double* weights);

// Connected pixels that are not 0, numbered from 1 in order of their first 2 x 2 block (connectivity 8) or pixel (4). stats:
// left, top, width, height, area of each. Returns their number, or -1 when there are more than `most`.
TAMIS_API int64_t tamis_raster_components(int isa, const uint8_t* mask, int64_t stride, int32_t height, int32_t width,
                                          int32_t connectivity, int32_t* labels, int32_t* stats, int64_t most);

// Distance along rows and columns to the next pixel that is 0, summed over those that are not; their number through
// `count`. Without any 0 each counts `far`.
TAMIS_API int64_t tamis_raster_depth(int isa, const uint8_t* mask, int32_t height, int32_t width, int32_t far,
                                     int64_t* count);

// Minimum, maximum and (of planes whose flag in `averaged` is not 0) mean, rounded to nearest even, of planes of one shape.
TAMIS_API void tamis_raster_merge(int isa, const uint8_t* const* planes, const int64_t* strides, const uint8_t* averaged,
                                  int32_t number, int32_t height, int32_t width, uint8_t* mean, uint8_t* low,
                                  uint8_t* high);

// Convolution with a symmetric kernel of 2 radius + 1 weights, sum 256, along rows and then columns; edges are mirrored
// without repeating the last pixel.
TAMIS_API void tamis_raster_blur(int isa, const uint8_t* plane, int64_t stride, int32_t height, int32_t width,
                                 const uint16_t* kernel, int32_t radius, uint8_t* out);

// Every output pixel is a weighted sum over `columns` times `rows` pixels, whose places are given for each output column
// (index and weight [out_width][columns]) and row ([out_height][rows]).
TAMIS_API void tamis_raster_resample(int isa, const uint8_t* plane, int64_t stride, int32_t out_height, int32_t out_width,
                                     int32_t columns, const int32_t* column, const float* column_weight, int32_t rows,
                                     const int32_t* row, const float* row_weight, uint8_t* out);

// Steps of a track's points (track.py) in a picture of this width: step_of is the reference step. alive[i] says whether at
// least half of it is there; stood and life are counted up where it is. Returns how many are alive, the sum of the steps
// through `total`; the steps themselves through `now` unless NULL.
TAMIS_API int64_t tamis_raster_steps(int isa, const uint8_t* picture, int32_t width, int64_t number, const int32_t* y,
                                     const int32_t* x, const int32_t* sign, const int32_t* step_of, uint8_t* alive,
                                     int32_t* stood, int32_t* life, int32_t* now, int64_t* total);

// Sum of some pixels minus the sum of as many others, each given by row and column.
TAMIS_API int64_t tamis_raster_contrast(int isa, const uint8_t* plane, int64_t stride, int64_t number,
                                        const int64_t* y, const int64_t* x, const int64_t* other_y,
                                        const int64_t* other_x);

#ifdef __cplusplus
}
#endif
