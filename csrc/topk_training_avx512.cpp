#define TAMIS_TOPK_NAMESPACE avx512
#include "topk_training.h"

TAMIS_TOPK_TABLE(float, avx512)
TAMIS_TOPK_TABLE(double, avx512)
