#define TAMIS_TOPK_NAMESPACE avx2
#include "topk_training.h"

TAMIS_TOPK_TABLE(float, avx2)
TAMIS_TOPK_TABLE(double, avx2)
