#define TAMIS_RASTER raster_avx2
#include "raster.inl"
