// The image kernels of subtitles: one table of functions per instruction set. raster.inl is compiled once for each; its loops
// are plain and left to the compiler's vectors.
#pragma once

#include "raster_native.h"

namespace tamis {

// The signatures are those of the C interface; the first argument is then without meaning.
struct Raster {
  decltype(tamis_raster_halve)* halve;
  decltype(tamis_raster_strokes)* strokes;
  decltype(tamis_raster_pieces)* pieces;
  decltype(tamis_raster_rows)* rows;
  decltype(tamis_raster_components)* components;
  decltype(tamis_raster_depth)* depth;
  decltype(tamis_raster_merge)* merge;
  decltype(tamis_raster_blur)* blur;
  decltype(tamis_raster_resample)* resample;
  decltype(tamis_raster_steps)* steps;
  decltype(tamis_raster_contrast)* contrast;
};

const Raster& raster_portable();
const Raster& raster_avx2();

}  // namespace tamis
